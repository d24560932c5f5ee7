"""Real data by name: ``load_source({"kind": "safeeditbench"})`` returns rows of one shape."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from datasets import Dataset

from sgvl.common.errors import InputError, Unavailable, raise_any
from sgvl.common.registry import check, make

# As strings, so that a source's libraries are imported when it is loaded.
SOURCES = {
    "folder": "sgvl.data.sources.folder:load",
    "pictures": "sgvl.data.sources.pictures:load",
    "safeeditbench": "sgvl.data.sources.safeeditbench:load",
    "unsafebench": "sgvl.data.sources.unsafebench:load",
    "policyshift": "sgvl.data.sources.policyshift:load",
    "llavaguard": "sgvl.data.sources.llavaguard:load",
    "general": "sgvl.data.sources.general:load",
}

# Names that the drawn sets of notebook 01 are saved under.
DRAWN = (
    *("safeeditbench", "level_pairs", "unsafebench", "llavaguard", "llavaguard_test"),
    *("following_neutral", "following_harmful", "sft_images", "safeedit_train", "general"),
)


class Loaded(NamedTuple):
    """Real data sets by name: pictures, most of them under policies, and questions."""

    pictures: dict[str, Dataset]  # as ``sgvl.data.real_rows`` describes
    questions: dict[str, Dataset]  # as ``sgvl.data.sources.general`` describes
    absent: dict[str, str]  # optional sets that cannot be had, with the reason


def check_sources(specs: Mapping[str, dict], drawn: bool = True) -> None:
    """Check sources and the names to save them under; nothing is loaded.

    Parameters
    ----------
    specs : by name; each with a kind, its options and, if the run can do without it,
        ``optional: true``
    drawn : whether the drawn sets are made, whose names are taken then

    Raises
    ------
    InputError
        For a name that a drawn set has, or that is no plain file name, and for what
        ``registry.check`` finds; all problems at once.
    """
    taken = [name for name in specs if drawn and name.casefold() in DRAWN]
    problems = [f"sources: {name}: the drawn set has this name" for name in taken]
    folded = [name.casefold() for name in specs]  # some file systems do not tell case apart
    problems += [
        f"sources: {name}: two sets have this name"
        for name in specs
        if folded.count(name.casefold()) > 1
    ]
    problems += [
        f"sources: {name!r}: a name is made of letters, digits, - and _"
        for name in specs
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    for name, spec in specs.items():
        own, optional = _split(spec)
        if not isinstance(optional, bool):
            problems.append(f"sources: {name}: optional: got {optional!r}, expected true or false")
        try:
            check("source", SOURCES, own)
        except InputError as error:
            problems += [f"sources: {name}: {problem}" for problem in error.problems]
    raise_any(problems)


def load_sources(specs: Mapping[str, dict], drawn: bool = True) -> Loaded:
    """Load several sources by the names to save them under, each as ``load_source`` does.

    An optional one that cannot be had is left out, with the reason. Raises InputError as
    ``check_sources`` does.
    """
    check_sources(specs, drawn)
    loaded = Loaded({}, {}, {})
    for name, spec in specs.items():
        own, optional = _split(spec)
        try:
            rows = load_source(own)
        except Unavailable as error:
            if not optional:
                raise InputError(
                    f"sources: {name}: {problem}" for problem in error.problems
                ) from None
            loaded.absent[name] = str(error)
            continue
        (loaded.questions if "question" in rows.column_names else loaded.pictures)[name] = rows
    return loaded


def _split(spec: dict) -> tuple[dict, object]:
    """Return the options of a source, and whether the run can do without it."""
    own = dict(spec)
    optional = own.pop("optional", False)
    return own, optional


def load_source(spec: str | dict) -> Dataset:
    """Load a source, given as its kind or as a dict of its kind and options.

    ``sgvl.data.real_rows`` describes the rows, ``sgvl.data.sources.general`` those of the kind
    "general". Raises InputError as ``registry.make`` does, and for data that is not as published;
    Unavailable for a folder or a data set that is not there.
    """
    return make("source", SOURCES, spec)
