"""Objects that a parameter file names by their kind: judges, captioners, sources of data."""

import inspect
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import get_args, get_type_hints

from sgvl.common.errors import nearest, need_known, raise_any
from sgvl.common.types import type_problems


def options_of(spec: str | dict) -> dict:
    """Return a spec as a dict of its own: a kind alone is one without options."""
    return dict(spec) if isinstance(spec, dict) else {"kind": spec}


def id_of(spec: str | dict) -> str | None:
    """Return the id of what a spec describes: its own, else its kind; None if it has neither.

    >>> id_of("rule"), id_of({"kind": "chat", "id": "base"}), id_of({"kind": "chat"})
    ('rule', 'base', 'chat')
    """
    options = options_of(spec)
    return options.get("id", options.get("kind"))


def make(what: str, registry: Mapping[str, str], spec: str | dict):
    """Build the object described by ``spec``.

    Parameters
    ----------
    what : "judge", "captioner" or "source", for error messages
    registry : class or function of each kind, as "module:name"; the module is imported here
    spec : a kind, or a dict of ``kind`` and the arguments of its class or function

    Raises
    ------
    InputError
        As ``check`` does.
    """
    build, options = check(what, registry, spec)
    return build(**options)


def check(what: str, registry: Mapping[str, str], spec: str | dict) -> tuple[Callable, dict]:
    """Check ``spec``, and return its class or function and the arguments, without building it.

    Raises InputError for an unknown kind or option, with the nearest valid name, for a missing
    option, and for a value of another type than its annotation; all problems at once.
    """
    options = options_of(spec)
    kind = str(options.pop("kind", None))
    need_known(f"unknown {what} kind", kind, registry)
    build = resolve_name(registry[kind])
    known = parameters(build)
    unknown = [option for option in options if option not in known]
    missing = [o for o, (_, needed) in known.items() if needed and o not in options]
    problems = [f"{what} {kind!r} has no option {o!r}; {nearest(str(o), known)}" for o in unknown]
    problems += [f"{what} {kind!r} needs the option {o!r}" for o in missing]
    types = {option: type for option, (type, _) in known.items()}
    raise_any(problems + type_problems(f"{what} {kind!r}:", types, options))
    return build, options


def parameters(build: Callable) -> dict[str, tuple[object, bool]]:
    """Return the options of a class or function: the type of each, and whether it must be given.

    Options that several share are the keys of a TypedDict: ``**settings: Unpack[Settings]``.
    """
    call = build.__init__ if isinstance(build, type) else build
    types, options = get_type_hints(call, include_extras=True), {}
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            (shared,) = get_args(types[name])
            shared = get_type_hints(shared, include_extras=True)
            options |= {option: (type, False) for option, type in shared.items()}
        else:
            options[name] = types.get(name, object), parameter.default is parameter.empty
    return options
