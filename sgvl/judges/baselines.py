"""Judges without a model: the ceiling, which reads exact tags, and two constant answers.

Every table shows them beside the models. A model above the ceiling means wrong labels; a model near
a constant judge has learned the base rate.
"""

from sgvl.common.errors import InputError
from sgvl.judges.base import Judge, Judgement
from sgvl.text.verdict import SAFE, UNSAFE


class RuleJudge(Judge):
    """Applies the policy exactly to the tags of a drawn scene: the ceiling.

    The rationale is the text of the rule that fired. ``judge`` raises InputError for a picture
    without tags, which is every real picture.
    """

    reads_tags = True

    def __init__(self, id: str = "rule"):
        self.id = id

    def identity(self) -> dict:
        return {"kind": "rule", "version": 1}  # raise it when a policy labels or explains anew

    def judge(self, cases) -> list[Judgement]:
        return [self._judgement(sample, policy) for sample, policy in cases]

    def _judgement(self, sample, policy) -> Judgement:
        if not sample.tags:
            raise InputError(
                f"{sample.id}: judge {self.id!r} applies rules to tags; this picture has no tags"
            )
        ruling = policy.label(sample.tags)
        return Judgement(ruling.label, float(ruling.label == UNSAFE), ruling.rule)


class ConstantJudge(Judge):
    """Gives one verdict, "safe" or "unsafe", to everything."""

    reads_policy = False

    def __init__(self, verdict: str, id: str | None = None):
        if verdict not in (SAFE, UNSAFE):
            raise InputError(f"a constant judge says safe or unsafe, not {verdict!r}")
        self.verdict, self.id = verdict, id or f"always_{verdict}"

    def identity(self) -> dict:
        return {"kind": "constant", "verdict": self.verdict}

    def judge(self, cases) -> list[Judgement]:
        return [Judgement(self.verdict, float(self.verdict == UNSAFE)) for _ in cases]


def always_safe(id: str = "always_safe") -> ConstantJudge:
    """Build the judge that calls everything safe."""
    return ConstantJudge(SAFE, id)


def always_unsafe(id: str = "always_unsafe") -> ConstantJudge:
    """Build the judge that calls everything unsafe."""
    return ConstantJudge(UNSAFE, id)
