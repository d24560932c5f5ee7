"""Judges by name: ``make_judge("rule").judge(image, policies, tags)`` -> judgements."""

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name

from sgvl.errors import InputError, nearest
from sgvl.judges.base import Judge, Judgement, Sample

__all__ = ["KINDS", "Judge", "Judgement", "Sample", "build", "make_judge"]

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
    return build("judge", KINDS, spec)


def build(noun: str, kinds: Mapping[str, str], spec: str | dict):
    """What a spec names, made: ``kinds`` maps each kind to its class, as ``"module:name"``.

    Raises InputError as ``make_judge`` does; ``noun`` says in it what was to be made.
    """
    options = dict(spec) if isinstance(spec, dict) else {"kind": spec}
    kind = str(options.pop("kind", None))
    if kind not in kinds:
        raise InputError(f"{noun} kind {kind!r} is unknown; {nearest(kind, kinds)}")
    make = resolve_name(kinds[kind])
    wanted = inspect.signature(make).parameters
    unknown = [option for option in options if option not in wanted]
    missing = [o for o, p in wanted.items() if p.default is p.empty and o not in options]
    problems = [f"{noun} {kind!r} has no option {o!r}; {nearest(str(o), wanted)}" for o in unknown]
    problems += [f"{noun} {kind!r} needs the option {o!r}" for o in missing]
    if problems:
        raise InputError(problems)
    return make(**options)
