"""Execute one unit: papermill in a process of its own, and a receipt of how it ended."""

import json
import logging
import mimetypes
import os
import platform
import re
import signal
import sys
import tempfile
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sgvl.common import files
from sgvl.common.errors import Busy, Unavailable, Unreachable
from sgvl.common.paths import PACKAGE, ROOT
from sgvl.common.processes import end_with_parent
from sgvl.run import receipts, warm
from sgvl.run.receipts import Status
from sgvl.run.units import Unit, is_share

INPUT_ERRORS = {"InputError", "ImageError"}  # errors of a notebook that only other input removes
# Imports make objects and no garbage; looking for it every 700 takes a second of the six that the
# libraries of a training take.
RARE_GARBAGE = "--IPKernelApp.exec_lines=__import__('gc').set_threshold(100_000)"
PATIENCE = 30  # seconds for a stopped notebook to shut its kernel down

# jsonschema would import it, which takes papermill three more seconds; None is "not installed".
sys.modules.setdefault("rfc3987_syntax", None)


class Execution:
    """A unit that executes in a process of its own, so that no crash in it ends this process.

    The receipt says "running" until ``end`` or ``stop`` is called; one of them must be.

    Parameters
    ----------
    units : all units of the profile
    threads : threads for arithmetic (OMP_NUM_THREADS); None leaves the number to the libraries

    Raises
    ------
    Busy
        If another run, or a job of a cluster, is executing the unit.
    """

    def __init__(self, unit: Unit, units: dict[str, Unit], threads: int | None):
        self.unit, self._units, self._began = unit, units, time.monotonic()
        self._lock = _lock(unit)  # the system frees that of a dead process
        try:
            self._lock.acquire(timeout=1)  # --status holds it for an instant, too
        except Timeout:
            raise Busy(f"{unit.name} is being run {holder(unit)}") from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        process = {"process": os.getpid(), "host": platform.node()}
        self._facts = {"started": started, "threads": threads, **process, **receipts.environment()}
        receipts.write_receipt(unit, units, Status.RUNNING, **self._facts)
        files.write(_unfinished(unit), json.dumps(_with_moved_links(unit.source)))
        context = warm.context(self._facts["sgvl"])
        self.ended, send = context.Pipe(duplex=False)  # becomes readable when the process ends
        forked = context.get_start_method() == "forkserver"
        arguments = send, unit, _environment(threads, _draws(unit, units)), forked
        self._child = context.Process(target=_child, args=arguments, daemon=True)
        self._child.start()
        send.close()

    def end(self, fault: str = "") -> tuple[Status, float, str]:
        """Wait for the end, write the receipt, and return status, seconds and reason.

        A ``fault`` beside the notebook, such as that of a server, is the reason if it has failed.
        """
        try:
            status, reason = self.ended.recv()
        except EOFError:
            self._child.join()
            status = Status.FAILED
            reason = f"the process around the notebook ended with exit code {self._child.exitcode}"
        if status == Status.OK and (missing := receipts.missing_outputs(self.unit)):
            status, reason = Status.FAILED, f"declared but not written: {', '.join(missing)}"
        if fault and not status.done:
            status, reason = Status.FAILED, f"{fault}\n{reason}"
        return self._record(status, reason)

    def stop(self) -> tuple[Status, float, str]:
        """Interrupt the notebook, write the receipt, and return status, seconds and reason."""
        self._child.terminate()
        self.ended.poll(PATIENCE)  # it ends, or dies: known even if what it was forked from is dead
        return self._record(Status.INTERRUPTED, "stopped by a signal")

    def _record(self, status: Status, reason: str) -> tuple[Status, float, str]:
        self._child.join(PATIENCE)
        self._child.kill()
        seconds = round(time.monotonic() - self._began, 1)
        try:
            _publish(self.unit, status, reason)
            facts = {"reason": reason, "seconds": seconds, **self._facts}
            receipts.write_receipt(self.unit, self._units, status, **facts)
        except files.DiskFault as fault:
            status, reason = Status.FAILED, "\n".join(filter(None, [reason, str(fault)]))
        self._lock.release()
        return status, seconds, reason


def _lock(unit: Unit) -> FileLock:
    unit.receipt.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(unit.receipt.with_name(f".{unit.name}.lock"))


def is_executing(unit: Unit) -> bool:
    """Check whether a process, on any machine that shares the folder, is executing a unit."""
    try:
        with _lock(unit).acquire(timeout=0):
            return False
    except Timeout:
        return True


def holder(unit: Unit) -> str:
    """Say which process is executing a unit, from its receipt."""
    receipt = receipts.read_receipt(unit) or {}
    host = receipt.get("host", platform.node())
    there = "" if host == platform.node() else f" on {host}"
    return f"by process {receipt.get('process', 'unknown')}{there}"


def interrupt(*_) -> None:
    """Handle a signal as Ctrl-C is handled: raise KeyboardInterrupt."""
    raise KeyboardInterrupt


def _with_moved_links(notebook: dict) -> dict:
    """Return the notebook with the pictures of its prose attached and other links corrected.

    An attached picture shows wherever the executed notebook is moved or converted. Links to other
    files, and to pictures that are missing, are corrected for ``runs/<profile>/``.
    """
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source, attachments = "".join(cell["source"]), {}
            for link in re.findall(r"!\[[^]]*\]\(\.\./([^)\s]+)\)", source):
                if (path := ROOT / link).is_file():
                    name, (kind, _) = link.replace("/", "-"), mimetypes.guess_type(link)
                    attachments[name] = {kind: b64encode(path.read_bytes()).decode()}
                    source = source.replace(f"](../{link})", f"](attachment:{name})")
            cell = cell | {"source": source.replace("](../", "](../../")}
            cell |= {"attachments": attachments} if attachments else {}
        cells.append(cell)
    return notebook | {"cells": cells}


def _draws(unit: Unit, units: dict[str, Unit]) -> bool:
    """Return False in a profile of published data alone, whose 01_data says ``drawn: false``.

    A notebook whose metadata say ``"draws": true`` is a lesson of its own that no table reads.
    """
    lesson = unit.source["metadata"]["sgvl"].get("draws", False)
    return lesson or "01_data" not in units or units["01_data"].parameters.get("drawn", True)


def _environment(threads: int | None, draws: bool) -> dict[str, str]:
    """Return the environment of a kernel: it must find the folders and the sgvl of this process."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    own = {"SGVL_ROOT": str(ROOT), "PYTHONPATH": path}
    own |= {} if draws else {"SGVL_DRAWN": "0"}  # ``sgvl.world`` then refuses to draw a row
    own |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return warm.MEMORY | os.environ | own


def _child(send, unit: Unit, environment: dict[str, str], forked: bool) -> None:
    """Prepare the child process, run papermill, and send status and reason to the parent."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C at a terminal then reaches the parent only, which passes it on
    signal.signal(signal.SIGTERM, interrupt)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    send.send(_run_quietly(unit, forked))


def _run_quietly(unit: Unit, forked: bool) -> tuple[Status, str]:
    """Run papermill; pass on what processes print past the notebook unless the unit ends well.

    A kernel that crashes says why there. One that ends well may still complain of its sockets:
    ipykernel closes them in its last moment, sometimes before the library under them is done.
    """
    status, terminal = None, os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            if forked:
                from sgvl.run import forked_kernel

                forked_kernel.prepare()
            # It would report the cell that we stopped.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            end_with_parent()
            status, reason = _run_papermill(unit)
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if status != Status.OK:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
    return status, reason


def _run_papermill(unit: Unit) -> tuple[Status, str]:
    """Execute the notebook and return status and reason.

    Both come from exceptions, because papermill's file calls a killed run complete.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Relative, because papermill treats a path as a format string: a brace in ROOT would break it.
    path = str(_unfinished(unit).relative_to(ROOT))
    # A kernel is interrupted before it is shut down, and would log that as an error of its own.
    quiet = {"extra_arguments": ["--log-level=CRITICAL", RARE_GARBAGE]}
    # A widget leaves a still picture in its output; nothing would read its stored state.
    stateless = {"store_widget_state": False}
    try:
        with tempfile.TemporaryDirectory(prefix="sgvl-") as sockets:
            # With Unix sockets, kernels that start together cannot take each other's ports.
            unix = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
            config = Config(KernelManager=unix, NotebookClient=quiet | stateless)
            notebook = papermill.execute_notebook(
                path, path, unit.parameters, progress_bar=False, config=config
            )
    except PapermillExecutionError as error:
        if error.ename in INPUT_ERRORS:
            return Status.BAD_INPUT, error.evalue
        if error.ename == Unavailable.__name__:
            return Status.UNAVAILABLE, error.evalue
        if error.ename in (files.DiskFault.__name__, Unreachable.__name__):
            return Status.FAILED, error.evalue
        full = f"; the disk of {path} is full" if files.is_full(path) else ""
        return Status.FAILED, f"{error.ename}: {error.evalue}{full}"
    except DeadKernelError:
        return Status.FAILED, "the kernel was killed, perhaps because memory ran out"
    except KeyboardInterrupt:
        return Status.INTERRUPTED, "stopped by a signal"
    except Exception as error:
        fault = files.disk_fault(error, path)
        return Status.FAILED, str(fault or f"{type(error).__name__}: {error}")
    if notebook.metadata.papermill.exception and not is_share(unit):
        return Status.FAILED, "a cell called sys.exit"
    return Status.OK, ""


def _publish(unit: Unit, status: Status, reason: str) -> None:
    """Move the executed notebook to its final name; mark an unfinished one in a cell on top."""
    if status != Status.OK:
        import nbformat

        try:
            notebook = nbformat.read(_unfinished(unit), as_version=4)
        except ValueError:  # half a file: it was being saved when it was killed, or the disk full
            _unfinished(unit).unlink()
            text = json.dumps(_with_moved_links(unit.source))
            notebook = nbformat.reads(text, as_version=4)
        # A fence longer than any in the reason: no text of a server ends it and is markup.
        fence = "`" * (1 + max(map(len, re.findall("`+", f"{reason} ``"))))
        banner = f"**This run did not finish: {status}**\n\n{fence}\n{reason}\n{fence}"
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(banner))
        files.write(_unfinished(unit), nbformat.writes(notebook) + "\n")
    _unfinished(unit).replace(unit.executed)


def _unfinished(unit: Unit) -> Path:
    """Return the path of the executed notebook while it runs."""
    return unit.executed.with_suffix(".running.ipynb")
