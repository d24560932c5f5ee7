"""Judges by name: ``make_judge("rule").judge(image, policies, tags)`` -> judgements."""

from sgvl.common.registry import make
from sgvl.judges.base import Judge, Judgement, Sample, Unanswered

__all__ = ["KINDS", "Judge", "Judgement", "Sample", "Unanswered", "make_judge"]

# Named by string: a model's libraries load when such a judge is made, not before.
KINDS = {
    "rule": "sgvl.judges.baselines:RuleJudge",
    "always_safe": "sgvl.judges.baselines:always_safe",
    "always_unsafe": "sgvl.judges.baselines:always_unsafe",
    "opennsfw": "sgvl.judges.fixed_head:OpenNsfwJudge",
    "chat": "sgvl.judges.chat.judge:ChatJudge",
    "served": "sgvl.judges.served:ServedJudge",
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
    return make("judge", KINDS, spec)
