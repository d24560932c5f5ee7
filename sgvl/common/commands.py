"""What every command shares: its options, its exit code, and one line for what ended it."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile

from sgvl.common.errors import Busy, ExitCode, InputError, nearest, one_line
from sgvl.common.files import BARRED, disk_fault


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, with the nearest option for a misspelt one."""

    def parse_known_args(self, args=None, namespace=None):
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message):
        options = [name for action in self._actions for name in action.option_strings]
        others = [a.option_strings for a in self._actions if a.nargs == argparse.REMAINDER]
        own = takewhile(lambda name: name not in sum(others, []), self._given)
        names = [name.partition("=")[0] for name in own if name.startswith("--") and name != "--"]
        unknown = [name for name in names if not any(known.startswith(name) for known in options)]
        problems = [f"unknown option {name}; {nearest(name, options)}" for name in unknown]
        text = "; ".join(problems) or f"{message} (--help lists them)"
        self.exit(ExitCode.BAD_INPUT, f"{self.prog}: {one_line(text)}\n")


def parser(module: str, description: str) -> Parser:
    """Return a parser of the command line of a module, whose help shows the description as it is.

    Parameters
    ----------
    module : that ``python -m`` runs
    """
    return Parser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(command: Callable[[], ExitCode]) -> ExitCode:
    """Run a command and return its exit code, whatever ends it.

    Bad input and faults of the disk are printed, a line each; anything else with a traceback. A
    reader that closes the pipe, such as ``head``, ends the command without a word.
    """
    code, problem = ExitCode.INCOMPLETE, None
    try:
        code = command()
        sys.stdout.flush()
    except InputError as error:
        code, problem = ExitCode.BUSY if isinstance(error, Busy) else ExitCode.BAD_INPUT, error
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception as error:
        problem = disk_fault(error, getattr(error, "filename", None) or "standard output")
        code = ExitCode.INCOMPLETE if problem else ExitCode.INTERNAL
        if not problem and getattr(error, "errno", None) in BARRED and error.filename:
            code, problem = (
                ExitCode.BAD_INPUT,
                f"{error.filename2 or error.filename}: {error.strerror}",
            )
        problem = problem or traceback.format_exc()
    if problem:
        with suppress(OSError):  # standard error may be a file on a full disk, too
            print(problem, file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # nobody takes the rest: Python would fail on it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
