"""What each unit produced, and whether it is up to date.

A unit that has ended leaves a receipt, ``runs/<profile>/<unit>.json``. It is done when the receipt
says so and the outputs listed there are unchanged. The executed notebook proves nothing: papermill
marks the cells of a killed notebook as completed.
"""

import json
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from sgvl.common.files import package_digest, write
from sgvl.common.paths import ROOT, runs
from sgvl.common.types import fits
from sgvl.run.units import Unit, digest, fingerprint

# Packages whose version is recorded, because results depend on it.
PACKAGES = (
    *("jupyterlab", "papermill", "transformers", "trl", "peft", "accelerate"),
    *("datasets", "matplotlib", "seaborn", "ipywidgets", "torch"),
)


class Status(StrEnum):
    """State of a unit: in its receipt, under ``--status`` and at the end of a run.

    Done, so it is not run again:

    - ok: it finished, and nothing that it depends on has changed since
    - old-code: as ok, but ``sgvl`` itself has changed since; only ``--force`` runs it again
    - unavailable: it stopped because its data or model cannot be had; what needs it runs without it

    Not done; the next run starts it:

    - not-run: it was never run
    - stale: it finished, but its code, parameters, input files, needs or outputs have changed since
    - interrupted: a signal stopped it, or it was killed together with its run
    - failed: a cell raised an error, the kernel died, or a declared output was not written
    - skipped: it was not started, because a unit that it needs is not done

    Not done; somebody must act first:

    - bad-input: it stopped at an error that only other input can remove
    - running: another run is executing it
    """

    OK = "ok"
    OLD_CODE = "old-code"
    UNAVAILABLE = "unavailable"
    NOT_RUN = "not-run"
    STALE = "stale"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    SKIPPED = "skipped"
    BAD_INPUT = "bad-input"
    RUNNING = "running"

    @property
    def done(self) -> bool:
        """Return True for the statuses in which a unit need not run."""
        return self in (Status.OK, Status.OLD_CODE, Status.UNAVAILABLE)


@dataclass
class _Output:
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass
class _Receipt:
    """The entries of a receipt that are read again."""

    status: Status
    sgvl: str
    code: str
    parameters: dict
    reads: dict
    needs: dict
    outputs: dict[str, _Output]


def read_receipt(unit: Unit) -> dict | None:
    """Read the unit's receipt; return None if there is none.

    Whatever else is in its place makes the unit stale, and is named in the reason.
    """
    with suppress(ValueError, OSError, RecursionError):
        receipt = json.loads(unit.receipt.read_text(encoding="utf-8"))
        if fits(receipt, _Receipt):
            return receipt | {"status": Status(receipt["status"])}
    if not unit.receipt.exists():
        return None
    todo = "a folder; remove it" if unit.receipt.is_dir() else "no receipt; the next run writes one"
    return {"status": Status.STALE, "reason": f"{unit.receipt.relative_to(ROOT)} is {todo}"}


def why_unavailable(path: str) -> str:
    """Return why a path in a run folder will not be there; "" if it may be.

    The reason is that of a unit that is unavailable and after which a part of the path is named, as
    in ``runs/single/training/04_grpo.full/model``.
    """
    match PurePosixPath(path).parts:
        case ("runs", profile, *parts):
            for part in parts:
                with suppress(ValueError, OSError, RecursionError, KeyError, TypeError):
                    file = runs(profile) / f"{part}.json"
                    receipt = json.loads(file.read_text(encoding="utf-8"))
                    if receipt["status"] == Status.UNAVAILABLE:
                        return f"{part}: {receipt['reason']}"
    return ""


def write_receipt(unit: Unit, units: dict[str, Unit], status: Status, **facts) -> None:
    """Write the unit's receipt: a crash leaves the old one or the new one, whole.

    Parameters
    ----------
    units : all units of the profile; the receipts of those that ``unit`` needs are read
    facts : further entries, such as ``reason``, ``seconds`` and what ``environment`` returned
    """
    receipt = {
        "unit": unit.name,
        "status": status,
        **facts,
        "key": unit.key,
        "code": unit.code,
        "parameters": unit.parameters,
        "reads": unit.reads,
        "needs": _upstream(unit, units),
        "outputs": {path: fingerprint(runs(unit.profile) / path) for path in _given(unit)}
        if status == Status.OK
        else {},
    }
    write(unit.receipt, json.dumps(receipt, indent=1))


def environment() -> dict:
    """Return the versions that a result depends on: packages, Python, platform, commit, sgvl."""
    packages = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    commit = None
    with suppress(OSError, subprocess.CalledProcessError):
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        git = subprocess.run(describe, cwd=ROOT, check=True, capture_output=True, text=True)
        commit = git.stdout.strip()
    return {
        "sgvl": package_digest(),
        "commit": commit,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }


def missing_outputs(unit: Unit) -> list[str]:
    """List the outputs that the unit declares and that do not exist."""
    return [path for path in unit.gives if not _files(unit, path)]


def _given(unit: Unit) -> list[str]:
    """List the files that the unit has given."""
    return [file for path in unit.gives for file in _files(unit, path)]


def _files(unit: Unit, path: str) -> list[str]:
    """List the files of one declared output, which may be a pattern such as ``data/*.parquet``."""
    folder = runs(unit.profile)
    files = sorted(folder.glob(path)) if "*" in path else [folder / path]
    return [file.relative_to(folder).as_posix() for file in files if file.is_file()]


def state(unit: Unit, units: dict[str, Unit]) -> tuple[Status, str]:
    """Return how a unit stands, and why.

    A change of ``sgvl`` alone gives old-code, which counts as done: a repaired figure must not
    restart a training.
    """
    receipt = read_receipt(unit)
    if receipt is None:
        return Status.NOT_RUN, ""
    if receipt["status"] not in (Status.OK, Status.UNAVAILABLE):
        return receipt["status"], receipt.get("reason", "")
    if changes := _changes(unit, units, receipt):
        return Status.STALE, ", ".join(changes)
    if receipt["status"] == Status.UNAVAILABLE:
        return Status.UNAVAILABLE, receipt.get("reason", "")
    if receipt["sgvl"] != package_digest():
        return Status.OLD_CODE, "sgvl has changed since; --force reruns"
    return Status.OK, ""


def _changes(unit: Unit, units: dict[str, Unit], receipt: dict) -> list[str]:
    """List what differs between a receipt and the unit as it is now."""
    changes = ["code"] if receipt["code"] != unit.code else []
    compared = {
        "parameters": (receipt["parameters"], unit.parameters),
        "files": (receipt["reads"], unit.reads),
        "upstream": (receipt["needs"], _upstream(unit, units)),
    }
    for what, (before, now) in compared.items():
        if names := [n for n in sorted(before | now) if before.get(n) != now.get(n)]:
            changes.append(f"{what} ({', '.join(names)})")
    before, folder = receipt["outputs"], runs(unit.profile)
    declared = [path for path in unit.gives if "*" not in path]
    gives = sorted({*declared, *before}) if receipt["status"] == Status.OK else ()
    if names := [p for p in gives if not _unchanged(folder / p, before.get(p))]:
        changes.append(f"outputs ({', '.join(names)})")
    return changes


def _upstream(unit: Unit, units: dict[str, Unit]) -> dict[str, str | None]:
    """Return a digest of each needed unit's key and outputs; None for one that has not finished."""
    digests = dict.fromkeys(unit.needs)
    for name in unit.needs:
        receipt = read_receipt(units[name])
        if receipt and receipt["status"] == Status.OK:
            outputs = {path: file["sha256"] for path, file in receipt["outputs"].items()}
            digests[name] = digest([units[name].key, outputs])
    return digests


def _unchanged(path: Path, before: dict | None) -> bool:
    """Return True if a file is as recorded. One of the same size and time is not read again."""
    if before is None or not path.is_file() or path.stat().st_size != before["bytes"]:
        return False
    untouched = path.stat().st_mtime_ns == before["mtime_ns"]
    return untouched or fingerprint(path)["sha256"] == before["sha256"]
