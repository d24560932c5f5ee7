"""Real data by name: ``load_source({"kind": "safeeditbench"})`` -> rows in the record shape."""

import re
from collections.abc import Mapping

from datasets import Dataset

from sgvl.errors import InputError
from sgvl.kinds import build

# Named by string: what a source needs loads when it is asked for, not before.
KINDS = {
    "folder": "sgvl.data.folder:load",
    "safeeditbench": "sgvl.data.safeeditbench:load",
    "unsafebench": "sgvl.data.unsafebench:load",
    "policyshift": "sgvl.data.policyshift:load",
    "llavaguard": "sgvl.data.llavaguard:load",
}

# Names that the drawn sets of notebook 01 are saved under.
DRAWN = (
    *("safeeditbench", "unsafebench", "llavaguard", "llavaguard_test", "following_neutral"),
    *("following_harmful", "sft_images", "safeedit_train", "general"),
)


def load_sources(specs: Mapping[str, dict]) -> dict[str, Dataset]:
    """Several sources by the names that they are to be saved under, as ``load_source`` loads them.

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
    return {name: load_source(spec) for name, spec in specs.items()}


def load_source(spec: str | dict) -> Dataset:
    """The rows of a source, from a parameter file: its kind, or its kind with options.

    ``sgvl.data.labelled`` describes the rows. Raises InputError with the nearest valid name for an
    unknown kind or option, for a missing option, and for data that is not as published.
    """
    return build("source", KINDS, spec)
