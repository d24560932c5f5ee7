"""One unit at work: papermill in a process of its own, and the receipt of how that went."""

import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sgvl.common.paths import PACKAGE, ROOT
from sgvl.run import receipts
from sgvl.run.units import Unit

MENDABLE = {"InputError", "ImageError"}  # of all errors, those that only new input can mend
PATIENCE = 30  # seconds for a stopped notebook to shut its kernel down

# jsonschema would import it, which takes papermill three more seconds; None is "not installed".
sys.modules.setdefault("rfc3987_syntax", None)


class Execution:
    """A unit at work in a process of its own, so that nothing in it takes this process down.

    ``threads`` are those of its arithmetic; None leaves them to the libraries. ``end`` or ``stop``
    must follow: they write the receipt, which until then says "running".
    """

    def __init__(self, unit: Unit, units: dict[str, Unit], threads: int | None):
        self.unit, self._units, self._began = unit, units, time.monotonic()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self._facts = {"started": started, "threads": threads, **receipts.environment()}
        receipts.write_receipt(unit, units, "running", **self._facts)
        _growing(unit).write_text(json.dumps(_moved(unit.source)), encoding="utf-8")
        context = multiprocessing.get_context("spawn")
        self.ending, send = context.Pipe(duplex=False)  # can be read when the work has ended
        self._child = context.Process(target=_child, args=(send, unit, threads), daemon=True)
        self._child.start()
        send.close()

    def end(self) -> tuple[str, float, str]:
        """Wait for the end: how it went, its seconds, and why it went so."""
        try:
            status, reason = self.ending.recv()
        except EOFError:
            self._child.join()
            status = "failed"
            reason = f"the process around the notebook ended with exit code {self._child.exitcode}"
        if status == "ok" and (absent := receipts.missing_outputs(self.unit)):
            status, reason = "no-output", f"declared but not written: {', '.join(absent)}"
        return self._recorded(status, reason)

    def stop(self) -> tuple[str, float, str]:
        """Interrupt the notebook; returns what ``end`` does."""
        self._child.terminate()
        return self._recorded("interrupted", "stopped by a signal")

    def _recorded(self, status: str, reason: str) -> tuple[str, float, str]:
        self._child.join(PATIENCE)
        self._child.kill()
        _publish(self.unit, status, reason)
        seconds = round(time.monotonic() - self._began, 1)
        facts = {"reason": reason, "seconds": seconds, **self._facts}
        receipts.write_receipt(self.unit, self._units, status, **facts)
        return status, seconds, reason


def interrupt(*_) -> None:
    """What a signal does here: the same as Ctrl-C."""
    raise KeyboardInterrupt


def _moved(notebook: dict) -> dict:
    """The notebook with the links of its prose as they lead from ``runs/<profile>/``."""
    cells = [
        cell | {"source": "".join(cell["source"]).replace("](../", "](../../")}
        if cell["cell_type"] == "markdown"
        else cell
        for cell in notebook["cells"]
    ]
    return notebook | {"cells": cells}


def _child(send, unit: Unit, threads: int | None) -> None:
    """The child's side: prepare the process, run papermill, send back how it went."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C at a terminal then reaches the parent alone, which passes it on
    signal.signal(signal.SIGTERM, interrupt)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would report the cell we stopped
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.chdir(ROOT)
    # The kernel must find the same folders and the same sgvl as this process.
    os.environ["SGVL_ROOT"] = str(ROOT)
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    # Else glibc returns memory after each step and fetches it for the next: a tenth of a training.
    # Both, for once one is set it no longer moves the other, which is slower by far.
    for threshold in ("TRIM", "MMAP"):
        os.environ.setdefault(f"MALLOC_{threshold}_THRESHOLD_", str(2**30))
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
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
        # A kernel is interrupted before it is shut down, and would log that as an error of its own.
        quiet = {"extra_arguments": ["--log-level=CRITICAL"]}
        config = Config(KernelManager=unix, NotebookClient=quiet)
        try:
            notebook = papermill.execute_notebook(
                path, path, unit.parameters, progress_bar=False, config=config
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
