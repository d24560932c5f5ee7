"""Judges that need no model: the ceiling that knows everything, and the two that look at nothing.

Every table wants all three beside the models. A model above the ceiling is a bug in the labels; a
model near a constant judge has learned the base rate.
"""

from sgvl.common.errors import InputError
from sgvl.judges.base import Judge, Judgement
from sgvl.text.verdict import SAFE, UNSAFE


class RuleJudge(Judge):
    """Applies the policy exactly to the tags of a drawn scene: the ceiling.

    The rationale is the text of the rule that fired. Raises InputError for a picture without
    tags, which is every real picture.
    """

    reads_tags = True

    def __init__(self, name: str = "rule"):
        self.name = name

    def identity(self) -> dict:
        return {"kind": "rule"}

    def judge(self, image, policies, tags=frozenset()):
        if not tags:
            raise InputError(f"judge {self.name!r} applies rules to tags; this picture has no tags")
        rulings = [policy.label(tags) for policy in policies]
        return [Judgement(r.label, float(r.label == UNSAFE), r.rule) for r in rulings]


class ConstantJudge(Judge):
    """Gives one verdict ("safe" or "unsafe") whatever it is shown."""

    reads_policy = False

    def __init__(self, verdict: str, name: str | None = None):
        if verdict not in (SAFE, UNSAFE):
            raise InputError(f"a constant judge says safe or unsafe, not {verdict!r}")
        self.verdict, self.name = verdict, name or f"always_{verdict}"

    def identity(self) -> dict:
        return {"kind": "constant", "verdict": self.verdict}

    def judge(self, image, policies, tags=frozenset()):
        return [Judgement(self.verdict, float(self.verdict == UNSAFE))] * len(policies)


def always_safe(name: str = "always_safe") -> ConstantJudge:
    return ConstantJudge(SAFE, name)


def always_unsafe(name: str = "always_unsafe") -> ConstantJudge:
    return ConstantJudge(UNSAFE, name)
