"""Things that a parameter file names by their kind: judges, captioners, sources of data."""

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name

from sgvl.common.errors import InputError, nearest, need_known


def make(noun: str, kinds: Mapping[str, str], spec: str | dict):
    """What a spec names, made: ``kinds`` maps each kind to its class or function, "module:name".

    A spec is a kind, or a dict of its ``kind`` and options. Raises InputError with the nearest
    valid name for an unknown kind or option, and for a missing option, all problems at once;
    ``noun`` says in it what was to be made.
    """
    options = dict(spec) if isinstance(spec, dict) else {"kind": spec}
    kind = str(options.pop("kind", None))
    need_known(f"unknown {noun} kind", kind, kinds)
    make = resolve_name(kinds[kind])
    wanted = inspect.signature(make).parameters
    unknown = [option for option in options if option not in wanted]
    missing = [o for o, p in wanted.items() if p.default is p.empty and o not in options]
    problems = [f"{noun} {kind!r} has no option {o!r}; {nearest(str(o), wanted)}" for o in unknown]
    problems += [f"{noun} {kind!r} needs the option {o!r}" for o in missing]
    if problems:
        raise InputError(problems)
    return make(**options)
