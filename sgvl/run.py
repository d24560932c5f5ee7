"""Run a profile's notebooks in order, and only those whose last run no longer holds.

    python -m sgvl.run nano                     everything that is not fresh
    python -m sgvl.run nano --only '05_*'       some units, and what they need
    python -m sgvl.run nano --status            how each unit stands

Sequential and small on purpose: each unit is one papermill command (--dry-run prints them), which a
cluster's own scheduler can run. Exit codes, of --status too: 0 done, 2 bad input, 3 busy (another
run is at it), 4 incomplete (run again to go on), 5 internal.
"""

import argparse
import json
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from sgvl import receipts
from sgvl.errors import Busy, InputError
from sgvl.paths import PACKAGE, ROOT, runs
from sgvl.receipts import Unit

DONE, BAD_INPUT, BUSY, INCOMPLETE, INTERNAL = 0, 2, 3, 4, 5
HOLDS = {"ok", "fresh", "old-code"}  # states in which a unit need not run
MENDABLE = {"InputError", "ImageError"}  # of all errors, those that only new input can mend
PATIENCE = 30  # seconds for a stopped notebook to shut its kernel down

# jsonschema would import it, which takes papermill three more seconds; None is "not installed".
sys.modules.setdefault("rfc3987_syntax", None)


class Row(NamedTuple):
    """How one unit of a run went."""

    unit: str
    status: str
    seconds: float = 0.0
    note: str = ""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sgvl.run", description=__doc__.split("\n")[0])
    parser.add_argument("profile", help="a folder of params/, such as nano")
    parser.add_argument("--only", nargs="+", metavar="UNIT", help="these units: names or globs")
    parser.add_argument("--force", action="store_true", help="run them even if they are fresh")
    parser.add_argument("--status", action="store_true", help="show how each unit stands")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
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
    units = receipts.load_units(options.profile)
    patterns = options.only or ["*"]
    chosen = {name for text in patterns for name in receipts.match_units(text, list(units))}
    plan = receipts.with_needs(chosen, units)
    forced = chosen if options.force else set()
    if options.status:
        return _exit_code(_print_status(plan, units))
    if options.dry_run:
        _print_commands(plan, units, forced)
        return DONE
    with locked(options.profile):
        rows = run(plan, units, forced)
    _print_rows(rows, units)
    if unreached := len(plan) - len(rows):
        print(f"interrupted: {unreached} of {len(plan)} units were not reached", file=sys.stderr)
    return _exit_code([row.status for row in rows] + ["missing"] * unreached)


def _exit_code(statuses: list[str]) -> int:
    """The code of a run whose units stand so; what needs a hand is told before what needs time."""
    if "bad-input" in statuses:
        return BAD_INPUT
    if "running" in statuses:
        return BUSY
    return DONE if HOLDS.issuperset(statuses) else INCOMPLETE


def run(plan: list[str], units: dict[str, Unit], forced: set[str]) -> list[Row]:
    """Run the planned units that do not hold, in order, and return a row for each.

    A failure stops only the units that need the failed one; an interrupt ends the run.
    """
    rows = []
    for name in plan:
        unit = units[name]
        status, note = receipts.state(unit, units)
        lacking = [n for n in unit.needs if receipts.state(units[n], units)[0] not in HOLDS]
        if lacking:
            row = Row(name, "skipped", note=f"needs {', '.join(lacking)}")
        elif status in HOLDS and name not in forced:
            row = Row(name, status, note=note)
        else:
            print(f"{name} ...", flush=True)
            row = run_unit(unit, units)
        rows.append(row)
        if row.status == "interrupted":
            break
    return rows


def run_unit(unit: Unit, units: dict[str, Unit]) -> Row:
    """Execute one unit in a process of its own and leave its receipt, which is written last."""
    began = time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"started": started, **receipts.environment()}
    receipts.write_receipt(unit, units, "running", **facts)

    status, reason = _execute(unit)
    if status == "ok" and (absent := receipts.missing_outputs(unit)):
        status, reason = "no-output", f"declared but not written: {', '.join(absent)}"
    _publish(unit, status, reason)
    seconds = round(time.monotonic() - began, 1)
    receipts.write_receipt(unit, units, status, reason=reason, seconds=seconds, **facts)
    return Row(unit.name, status, seconds, reason)


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


def _execute(unit: Unit) -> tuple[str, str]:
    """Run the notebook in a child, so that nothing in it takes this process down."""
    _growing(unit).write_text(json.dumps(_moved(unit.source)), encoding="utf-8")
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, unit), daemon=True)
    child.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        child.join()
        return "failed", f"the process around the notebook ended with exit code {child.exitcode}"
    except KeyboardInterrupt:
        child.terminate()
        return "interrupted", "stopped by a signal"
    finally:
        child.join(PATIENCE)
        child.kill()


def _moved(notebook: dict) -> dict:
    """The notebook with the links of its prose as they lead from ``runs/<profile>/``."""
    cells = [
        cell | {"source": "".join(cell["source"]).replace("](../", "](../../")}
        if cell["cell_type"] == "markdown"
        else cell
        for cell in notebook["cells"]
    ]
    return notebook | {"cells": cells}


def _child(send, unit: Unit) -> None:
    """The child's side: prepare the process, run papermill, send back how it went."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C at a terminal then reaches the parent alone, which passes it on
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would report the cell we stopped
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.chdir(ROOT)
    # The kernel must find the same folders and the same sgvl as this process.
    os.environ["SGVL_ROOT"] = str(ROOT)
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    send.send(_papermill(unit))


def _papermill(unit: Unit) -> tuple[str, str]:
    """Status and reason; from exceptions, for in its file papermill calls a killed run complete."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Relative, because papermill takes a path for a format string: a brace in ROOT would break it.
    path = str(_growing(unit).relative_to(ROOT))
    with tempfile.TemporaryDirectory(prefix="sgvl-") as sockets:
        # Over Unix sockets, kernels that start together cannot take each other's ports.
        unix = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
        try:
            notebook = papermill.execute_notebook(
                path, path, unit.parameters, progress_bar=False, config=Config(KernelManager=unix)
            )
        except PapermillExecutionError as error:
            if error.ename in MENDABLE:
                return "bad-input", error.evalue
            return "failed", f"{error.ename}: {error.evalue}"
        except DeadKernelError:
            return "kernel-died", "the kernel was killed, perhaps for want of memory"
        except KeyboardInterrupt:
            return "interrupted", "stopped by a signal"
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}"
    if notebook.metadata.papermill.exception:
        return "failed", "a cell called sys.exit"
    return "ok", ""


def _publish(unit: Unit, status: str, reason: str) -> None:
    """Give the executed notebook its name; an unfinished one says so in its first cell."""
    if status != "ok":
        import nbformat

        with suppress(ValueError):  # killed while it was saved: half a notebook
            notebook = nbformat.read(_growing(unit), as_version=4)
            banner = f"**This run did not finish: {status}**\n\n```\n{reason}\n```"
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell(banner))
            nbformat.write(notebook, _growing(unit))
    _growing(unit).replace(unit.executed)


def _growing(unit: Unit) -> Path:
    """The executed notebook while it runs."""
    return unit.executed.with_suffix(".running.ipynb")


def _die_with_parent() -> None:
    """Stop this child, and with it the kernel, when the parent is gone, even if it was killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


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


def _print_rows(rows: list[Row], units: dict[str, Unit]) -> None:
    print("\nwhere the time went")
    for row in rows:
        print(f"{row.unit:<24} {row.status:<12} {row.seconds:>9.1f} s")
    print(f"{'total':<37} {sum(row.seconds for row in rows):>9.1f} s")
    for row in rows:
        if row.status not in HOLDS:
            print(f"\n{row.unit} {row.status}: {row.note}", file=sys.stderr)
            if row.status != "skipped":
                print(f"see {units[row.unit].executed.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
