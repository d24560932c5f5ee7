"""Why a cell of a table that the paper prints has no score: one list for all tables."""

from enum import StrEnum


class Reason(StrEnum):
    """The reasons; ``UNAVAILABLE`` is followed by what could not be had."""

    NOT_PRINTED = "not printed"  # the paper leaves the cell out, and so does this run
    NOT_ASKED = "not asked in this profile"
    UNAVAILABLE = "unavailable"  # its training, its weights or its data set
    NO_QUESTIONS = "asked no questions"  # of a judge that takes none, or by its panel
    NO_ROWS = "no such rows in this profile"  # a set or a category that no judge was asked about
    UNDEFINED = "not defined on these rows"  # such as F1 without an unsafe picture


def unavailable(reason: str) -> str:
    """Return the text of a cell for what cannot be had: the first clause of the reason."""
    clause = " ".join(reason.split()).partition(";")[0].partition(" (")[0]
    return f"{Reason.UNAVAILABLE}: {clause.removeprefix('unavailable: ')}"
