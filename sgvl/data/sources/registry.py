"""Real data by name: ``load_source({"kind": "safeeditbench"})`` -> rows in the record shape."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.common.registry import make

# Named by string: what a source needs loads when it is asked for, not before.
KINDS = {
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
    """Real data by the names that it is to be saved under."""

    labelled: dict[str, Dataset]  # pictures under policies, see ``sgvl.data.real_rows``
    questions: dict[str, Dataset]  # of general ability, see ``sgvl.data.sources.general``


def load_sources(specs: Mapping[str, dict]) -> Loaded:
    """Several sources, as ``load_source`` loads them, by name.

    Raises InputError for a name that a drawn set has already, or that is no plain file name.
    """
    problems = [f"sources: {name}: the drawn set has this name" for name in specs if name in DRAWN]
    problems += [
        f"sources: {name!r}: a name is made of letters, digits, - and _"
        for name in specs
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    if problems:
        raise InputError(problems)
    loaded = Loaded({}, {})
    for name, spec in specs.items():
        rows = load_source(spec)
        (loaded.questions if "question" in rows.column_names else loaded.labelled)[name] = rows
    return loaded


def load_source(spec: str | dict) -> Dataset:
    """The rows of a source, from a parameter file: its kind, or its kind with options.

    ``sgvl.data.real_rows`` describes the rows, ``sgvl.data.sources.general`` those of the kind
    "general". Raises InputError with the nearest valid name for an unknown kind or option, for a
    missing option, and for data that is not as published.
    """
    return make("source", KINDS, spec)
