"""Real data by name: ``load_source({"kind": "safeeditbench"})`` returns rows of one shape."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from datasets import Dataset

from sgvl.common.errors import InputError, raise_any
from sgvl.common.registry import check, make

# As strings, so that a source's libraries are imported when it is loaded.
SOURCES = {
    "folder": "sgvl.data.sources.folder:load",
    "safeeditbench": "sgvl.data.sources.safeeditbench:load",
    "unsafebench": "sgvl.data.sources.unsafebench:load",
    "policyshift": "sgvl.data.sources.policyshift:load",
    "llavaguard": "sgvl.data.sources.llavaguard:load",
    "general": "sgvl.data.sources.general:load",
}

# Names that the drawn sets of notebook 01 are saved under.
DRAWN = (
    *("safeeditbench", "unsafebench", "llavaguard", "llavaguard_test", "following_neutral"),
    *("following_harmful", "sft_images", "safeedit_train", "general"),
)


class Loaded(NamedTuple):
    """Real data sets by name: pictures under policies, and questions of general ability."""

    pictures: dict[str, Dataset]  # as ``sgvl.data.real_rows`` describes
    questions: dict[str, Dataset]  # as ``sgvl.data.sources.general`` describes


def check_sources(specs: Mapping[str, dict]) -> None:
    """Check sources and the names to save them under; nothing is loaded.

    Raises InputError for a name that a drawn set has, or that is no plain file name, and for what
    ``registry.check`` finds; all problems at once.
    """
    problems = [f"sources: {name}: the drawn set has this name" for name in specs if name in DRAWN]
    problems += [
        f"sources: {name!r}: a name is made of letters, digits, - and _"
        for name in specs
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    for name, spec in specs.items():
        try:
            check("source", SOURCES, spec)
        except InputError as error:
            problems += [f"sources: {name}: {problem}" for problem in error.problems]
    raise_any(problems)


def load_sources(specs: Mapping[str, dict]) -> Loaded:
    """Load several sources by the names to save them under, each as ``load_source`` does.

    Raises InputError as ``check_sources`` does.
    """
    check_sources(specs)
    loaded = Loaded({}, {})
    for name, spec in specs.items():
        rows = load_source(spec)
        (loaded.questions if "question" in rows.column_names else loaded.pictures)[name] = rows
    return loaded


def load_source(spec: str | dict) -> Dataset:
    """Load a source, given as its kind or as a dict of its kind and options.

    ``sgvl.data.real_rows`` describes the rows, ``sgvl.data.sources.general`` those of the kind
    "general". Raises InputError as ``registry.make`` does, and for data that is not as published.
    """
    return make("source", SOURCES, spec)
