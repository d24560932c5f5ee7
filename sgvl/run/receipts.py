"""How units went, and whether that still holds.

A finished unit leaves a receipt, ``runs/<profile>/<unit>.json``. Done is the receipt and the
outputs that it lists, never the notebook: papermill marks a killed notebook's cells as completed.
"""

import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sgvl.common.paths import PACKAGE, ROOT, runs
from sgvl.run.units import Unit, digest, fingerprint

# The versions that a result depends on.
PACKAGES = (
    *("jupyterlab", "papermill", "transformers", "trl", "peft", "accelerate"),
    *("datasets", "matplotlib", "seaborn", "ipywidgets", "torch"),
)


def read_receipt(unit: Unit) -> dict | None:
    """The unit's receipt; None if there is none that can be read."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads(unit.receipt.read_text(encoding="utf-8"))


def write_receipt(unit: Unit, units: dict[str, Unit], status: str, **facts) -> None:
    """Write the unit's receipt, whole or not at all, even through a power cut."""
    record = {
        "unit": unit.name,
        "status": status,
        **facts,
        "key": unit.key,
        "code": unit.code,
        "parameters": unit.parameters,
        "reads": unit.reads,
        "needs": _upstream(unit, units),
        "outputs": {path: fingerprint(runs(unit.profile) / path) for path in unit.gives}
        if status == "ok"
        else {},
    }
    partial = unit.receipt.with_suffix(".json.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(unit.receipt)
    if os.name == "posix":  # the new name is on the disk when its folder is
        folder = os.open(unit.receipt.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def environment() -> dict:
    """What else a result depends on, for whoever compares two of them."""
    packages = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    commit = None
    with suppress(OSError, subprocess.CalledProcessError):
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        answer = subprocess.run(describe, cwd=ROOT, check=True, capture_output=True, text=True)
        commit = answer.stdout.strip()
    return {
        "sgvl": _package_digest(),
        "commit": commit,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }


def missing_outputs(unit: Unit) -> list[str]:
    """The declared outputs that are not there."""
    return [path for path in unit.gives if not (runs(unit.profile) / path).is_file()]


def state(unit: Unit, units: dict[str, Unit]) -> tuple[str, str]:
    """How a unit stands, and why: fresh, old-code, stale, missing, or what its receipt says.

    old-code: fresh, but ``sgvl`` itself has changed since. A mended figure must not restart a
    training, so such a unit counts as done.
    """
    receipt = read_receipt(unit)
    if receipt is None:
        return "missing", ""
    if receipt["status"] != "ok":
        return receipt["status"], receipt.get("reason", "")
    if changed := _changes(unit, units, receipt):
        return "stale", ", ".join(changed)
    if receipt["sgvl"] != _package_digest():
        return "old-code", "sgvl has changed since; --force reruns"
    return "fresh", ""


def _changes(unit: Unit, units: dict[str, Unit], receipt: dict) -> list[str]:
    changed = ["code"] if receipt["code"] != unit.code else []
    before, now = receipt["parameters"], unit.parameters
    if names := [n for n in sorted(before | now) if before.get(n) != now.get(n)]:
        changed.append(f"parameters ({', '.join(names)})")
    before, now = receipt["reads"], unit.reads
    if names := [n for n in sorted(before | now) if before.get(n) != now.get(n)]:
        changed.append(f"files ({', '.join(names)})")
    before, now = receipt["needs"], _upstream(unit, units)
    if names := [n for n in sorted(before | now) if before.get(n) != now.get(n)]:
        changed.append(f"upstream ({', '.join(names)})")
    before, folder = receipt["outputs"], runs(unit.profile)
    if names := [p for p in unit.gives if not _intact(folder / p, before.get(p))]:
        changed.append(f"outputs ({', '.join(names)})")
    return changed


def _upstream(unit: Unit, units: dict[str, Unit]) -> dict[str, str | None]:
    """What the unit builds on: the key of each unit it needs, with what that one last gave."""
    found = {}
    for name in unit.needs:
        receipt = read_receipt(units[name]) or {"status": "missing"}
        outputs = {path: file["sha256"] for path, file in receipt.get("outputs", {}).items()}
        done = receipt["status"] == "ok"
        found[name] = digest([units[name].key, outputs]) if done else None
    return found


def _intact(path: Path, before: dict | None) -> bool:
    """Whether a file is as recorded. Weights are big: as in git, an untouched one is not read."""
    if before is None or not path.is_file() or path.stat().st_size != before["bytes"]:
        return False
    untouched = path.stat().st_mtime_ns == before["mtime_ns"]
    return untouched or fingerprint(path)["sha256"] == before["sha256"]


def _package_digest() -> str:
    return digest(
        {str(p.relative_to(PACKAGE)): p.read_text("utf-8") for p in PACKAGE.rglob("*.py")}
    )
