"""Real data by name: ``load_source({"kind": "safeeditbench"})`` -> rows in the record shape."""

from datasets import Dataset

from sgvl.kinds import build

# Named by string: what a source needs loads when it is asked for, not before.
KINDS = {
    "folder": "sgvl.data.folder:load",
    "safeeditbench": "sgvl.data.safeeditbench:load",
    "unsafebench": "sgvl.data.unsafebench:load",
    "policyshift": "sgvl.data.policyshift:load",
    "llavaguard": "sgvl.data.llavaguard:load",
}


def load_source(spec: str | dict) -> Dataset:
    """The rows of a source, from a parameter file: its kind, or its kind with options.

    ``sgvl.data.labelled`` describes the rows. Raises InputError with the nearest valid name for an
    unknown kind or option, for a missing option, and for data that is not as published.
    """
    return build("source", KINDS, spec)
