"""Judges by name: ``make_judge("rule").judge(image, policies, tags)`` -> judgements."""

import inspect
from pkgutil import resolve_name

from sgvl.errors import InputError, nearest
from sgvl.judges.base import Judge, Judgement, Sample

__all__ = ["KINDS", "Judge", "Judgement", "Sample", "make_judge"]

# Named by string: a model's libraries load when such a judge is made, not before.
KINDS = {
    "rule": "sgvl.judges.rule:RuleJudge",
    "always_safe": "sgvl.judges.rule:always_safe",
    "always_unsafe": "sgvl.judges.rule:always_unsafe",
    "opennsfw": "sgvl.judges.fixed_head:OpenNsfwJudge",
    "chat": "sgvl.judges.chat:ChatJudge",
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
    options = dict(spec) if isinstance(spec, dict) else {"kind": spec}
    kind = str(options.pop("kind", None))
    if kind not in KINDS:
        raise InputError(f"judge kind {kind!r} is unknown; {nearest(kind, KINDS)}")
    build = resolve_name(KINDS[kind])
    wanted = inspect.signature(build).parameters
    unknown = [option for option in options if option not in wanted]
    missing = [o for o, p in wanted.items() if p.default is p.empty and o not in options]
    problems = [f"judge {kind!r} has no option {o!r}; {nearest(str(o), wanted)}" for o in unknown]
    problems += [f"judge {kind!r} needs the option {o!r}" for o in missing]
    if problems:
        raise InputError(problems)
    return build(**options)
