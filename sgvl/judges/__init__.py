"""Judges by name: ``make_judge("rule").judge(image, policies, tags)`` -> judgements."""

from sgvl.judges.base import Judge, Judgement, Sample, Unanswered
from sgvl.kinds import build

__all__ = ["KINDS", "Judge", "Judgement", "Sample", "Unanswered", "make_judge"]

# Named by string: a model's libraries load when such a judge is made, not before.
KINDS = {
    "rule": "sgvl.judges.rule:RuleJudge",
    "always_safe": "sgvl.judges.rule:always_safe",
    "always_unsafe": "sgvl.judges.rule:always_unsafe",
    "opennsfw": "sgvl.judges.fixed_head:OpenNsfwJudge",
    "chat": "sgvl.judges.chat:ChatJudge",
    "served": "sgvl.judges.served:ServedJudge",
    "vllm": "sgvl.judges.offline:VllmJudge",
}


def make_judge(spec: str | dict) -> Judge:
    """Build a judge from a parameter file: its kind, or its kind with options.

    >>> make_judge("rule").name
    'rule'
    >>> make_judge({"kind": "opennsfw", "threshold": 0.8}).threshold
    0.8

    Raises InputError with the nearest valid name for an unknown kind or option, and for a missing
    option; all problems of a spec at once.
    """
    return build("judge", KINDS, spec)
