"""What every command shares: its options, its exit code, and one line for what ended it."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from sgvl.common.errors import Busy, ExitCode, InputError
from sgvl.common.files import BARRED, disk_fault


def parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of the command line of a module, whose help shows the description as it is.

    Parameters
    ----------
    module : that ``python -m`` runs
    """
    return argparse.ArgumentParser(
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
