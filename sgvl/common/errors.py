"""Errors that a user can fix, and hints on how."""

import difflib
import re
import warnings
from collections.abc import Iterable
from enum import IntEnum

MOST = 10  # problems of one input that are listed


class ExitCode(IntEnum):
    """Exit codes of every command of the kit."""

    DONE = 0
    DIFFERS = 1  # two things were compared, and they do not agree; as diff and cmp
    BAD_INPUT = 2
    BUSY = 3  # another run holds the folder
    INCOMPLETE = 4  # run again to go on
    INTERNAL = 5


class InputError(ValueError):
    """Bad input from a user: one message or a list of problems, printed one per line.

    Notebooks and the command line print it without a traceback; the latter exits with code 2.
    """

    def __init__(self, problems: str | Iterable[str]):
        problems = [problems] if isinstance(problems, str) else problems
        self.problems = list(map(one_line, problems))
        super().__init__("\n".join(self.problems))

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in the place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class Unavailable(InputError):
    """Data or a model that cannot be had, such as a set that was never released.

    A unit that ends with it counts as done: what needs the unit runs, and says what is left out.
    """


class Unreachable(InputError):
    """No server answers at a URL."""


def one_line(text: str) -> str:
    """Return a text on one line that any terminal can print; what it cannot, as an escape."""
    text = re.sub(r"\s*[\r\n]\s*", " ", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_warnings() -> None:
    """Print warnings as their text alone, without the file and line of the code that gave them."""
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"


class Busy(InputError):
    """Another run is writing the same results; wait for it. The exit code is 3."""


def raise_any(problems: Iterable[str]) -> None:
    """Raise InputError if there are problems: the first ten, and the number of the others."""
    problems = list(problems)
    if problems:
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise InputError(problems[:MOST] + more)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the closest known one, those that hold it, or all.

    >>> nearest("tset", ["train", "test"]), nearest("05", ["05_benchmark", "06_ablations"])
    ('did you mean test?', 'did you mean 05_benchmark?')
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    close = close or [one for one in known if name.strip() and name.lower() in one.lower()]
    return (
        f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    )


def need_known(what: str, name: object, known: Iterable[str]) -> None:
    """Raise InputError with the nearest known name, unless ``name`` is known.

    >>> need_known("split", "tset", ["train", "test"])
    Traceback (most recent call last):
    sgvl.common.errors.InputError: split 'tset'; did you mean test?
    """
    known = list(known)
    if name not in known:
        raise InputError(f"{what} {name!r}; {nearest(str(name), known)}")
