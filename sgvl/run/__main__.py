"""Run a profile's notebooks in order, and only those whose last run no longer holds.

    python -m sgvl.run nano                     everything that is not fresh
    python -m sgvl.run nano --only '05_*'       some units, and what they need
    python -m sgvl.run nano --status            how each unit stands
    python -m sgvl.run nano --jobs 2            two units at a time, on their share of cores

Small on purpose: each unit is one papermill command (--dry-run prints them), which a cluster's own
scheduler can run. Exit codes, of --status too: 0 done, 2 bad input, 3 busy (another run is at it),
4 incomplete (run again to go on), 5 internal.
"""

import argparse
import os
import shlex
import signal
import sys
import time
import traceback
from contextlib import contextmanager

from filelock import FileLock, Timeout

from sgvl.common.errors import Busy, InputError
from sgvl.common.paths import ROOT, runs
from sgvl.run import receipts
from sgvl.run.scheduler import HOLDS, Row, run
from sgvl.run.unit_process import interrupt
from sgvl.run.units import Unit, load_units, match_units, with_needs

DONE, BAD_INPUT, BUSY, INCOMPLETE, INTERNAL = 0, 2, 3, 4, 5


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sgvl.run", description=__doc__.split("\n")[0])
    parser.add_argument("profile", help="a folder of params/, such as nano")
    parser.add_argument("--only", nargs="+", metavar="UNIT", help="these units: names or globs")
    parser.add_argument("--force", action="store_true", help="run them even if they are fresh")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="units at a time")
    parser.add_argument("--status", action="store_true", help="show how each unit stands")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return _main(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return BUSY if isinstance(error, Busy) else BAD_INPUT
    except KeyboardInterrupt:
        return INCOMPLETE
    except Exception:
        traceback.print_exc()
        return INTERNAL


def _main(options: argparse.Namespace) -> int:
    units = load_units(options.profile)
    patterns = options.only or ["*"]
    chosen = {name for text in patterns for name in match_units(text, list(units))}
    plan = with_needs(chosen, units)
    forced = chosen if options.force else set()
    if options.status:
        return _exit_code(_print_status(plan, units))
    if options.dry_run:
        _print_commands(plan, units, forced)
        return DONE
    with locked(options.profile):
        began = time.monotonic()
        rows = run(plan, units, forced, options.jobs)
    _print_rows(rows, units, time.monotonic() - began)
    if unreached := len(plan) - len(rows):
        print(f"interrupted: {unreached} of {len(plan)} units were not reached", file=sys.stderr)
    return _exit_code([row.status for row in rows] + ["missing"] * unreached)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def _exit_code(statuses: list[str]) -> int:
    """The code of a run whose units stand so; what needs a hand is told before what needs time."""
    if "bad-input" in statuses:
        return BAD_INPUT
    if "running" in statuses:
        return BUSY
    return DONE if HOLDS.issuperset(statuses) else INCOMPLETE


@contextmanager
def locked(profile: str):
    """Hold the profile's run folder; the system lets go of a dead run's hold.

    Raises Busy if another run has it, InputError if the folder cannot be written.
    """
    folder = runs(profile)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=1)  # --status holds it, too, but only to look
        lock.acquire()
        (folder / ".pid").write_text(str(os.getpid()))
    except Timeout:
        raise Busy(f"profile {profile} is being run by {_holder(profile)}") from None
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _holder(profile: str) -> str:
    return f"process {(runs(profile) / '.pid').read_text()}"


def _is_locked(profile: str) -> bool:
    try:
        with FileLock(runs(profile) / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def _print_status(plan: list[str], units: dict[str, Unit]) -> list[str]:
    """Print how each planned unit stands, and return it."""
    statuses = []
    for name in plan:
        status, note = receipts.state(units[name], units)
        if status == "running":
            profile = units[name].profile
            locked = _is_locked(profile)
            status = "running" if locked else "interrupted"
            note = f"by {_holder(profile)}" if locked else "its run was killed"
        first_line = note.partition("\n")[0]
        print(f"{name:<24} {status:<12} {first_line}".rstrip())
        statuses.append(status)
    return statuses


def _print_commands(plan: list[str], units: dict[str, Unit], forced: set[str]) -> None:
    for name in plan:
        unit = units[name]
        status, note = receipts.state(unit, units)
        if status not in HOLDS or name in forced:
            files = unit.notebook, unit.executed, unit.parameter_file
            notebook, executed, parameters = (str(file.relative_to(ROOT)) for file in files)
            command = shlex.join(["papermill", notebook, executed, "-f", parameters])
            after = f"after {', '.join(unit.needs)}" if unit.needs else ""
            print(f"{command}  # {'; '.join(filter(None, [status, note, after]))}")


def _print_rows(rows: list[Row], units: dict[str, Unit], elapsed: float) -> None:
    print("\nwhere the time went")
    for row in rows:
        print(f"{row.unit:<24} {row.status:<12} {row.seconds:>9.1f} s")
    print(f"{'total':<37} {sum(row.seconds for row in rows):>9.1f} s")
    print(f"{'by the clock':<37} {elapsed:>9.1f} s")
    for row in rows:
        if row.status not in HOLDS:
            print(f"\n{row.unit} {row.status}: {row.note}", file=sys.stderr)
            if row.status != "skipped":
                print(f"see {units[row.unit].executed.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
