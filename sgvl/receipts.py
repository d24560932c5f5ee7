"""What was run, and whether it still holds.

A unit of work is one notebook with one parameter file: ``params/nano/03_sft.recap.yaml`` runs
``notebooks/03_sft.ipynb`` (what follows the first dot names the variant). What it needs and gives
stands in the notebook's metadata, so that a notebook tells its own place in the series:

    "sgvl": {"needs": ["01_data", "03_sft.*"], "gives": ["scores/{unit}.csv"],
             "reads": ["policies/*.md"]}

A finished unit leaves a receipt, ``runs/<profile>/<unit>.json``. Done is the receipt and the
outputs that it lists, never the notebook: papermill marks a killed notebook's cells as completed.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from sgvl.errors import InputError, nearest, need_known
from sgvl.parameters import load_yaml, read_notebook, validate
from sgvl.paths import NOTEBOOKS, PACKAGE, PARAMS, ROOT, runs

# The versions that a result depends on.
PACKAGES = (
    *("jupyterlab", "papermill", "transformers", "trl", "peft", "accelerate"),
    *("datasets", "matplotlib", "seaborn", "ipywidgets", "torch"),
)


@dataclass(frozen=True)
class Unit:
    """One notebook with one parameter file; ``key`` identifies the work, whatever its results."""

    name: str
    profile: str
    parameters: dict
    source: dict  # the notebook as it was checked; a later edit on disk does not reach this run
    code: str  # digest of its code cells
    reads: dict  # digest of each file that it reads, besides what its needs give
    needs: tuple[str, ...]  # names of units
    gives: tuple[str, ...]  # files in the profile's run folder
    key: str

    @property
    def notebook(self) -> Path:
        return _notebook(self.name)

    @property
    def parameter_file(self) -> Path:
        return PARAMS / self.profile / f"{self.name}.yaml"

    @property
    def executed(self) -> Path:
        return runs(self.profile) / f"{self.name}.ipynb"

    @property
    def receipt(self) -> Path:
        return runs(self.profile) / f"{self.name}.json"


def load_units(profile: str) -> dict[str, Unit]:
    """The checked units of a profile in running order, the order of their names.

    Raises InputError that lists every problem of every unit.
    """
    known = sorted({file.parent.name for file in PARAMS.glob("*/*.yaml")})
    need_known(f"{PARAMS}: no profile", profile, known)
    names = sorted(file.stem for file in (PARAMS / profile).glob("*.yaml"))
    units, problems, giver = {}, [], {}
    for name in names:
        try:
            units[name] = unit = _load_unit(name, profile, names, units)
        except InputError as error:
            problems += error.problems
            continue
        for path in unit.gives:
            if giver.setdefault(path, name) != name:
                problems.append(f"{name}: gives {path}, as {giver[path]} does; use {{unit}} in it")
    if problems:
        raise InputError(problems)
    return units


def match_units(pattern: str, names: list[str]) -> list[str]:
    """The unit names that a name or glob matches. Raises InputError if there are none."""
    if found := [name for name in names if fnmatchcase(name, pattern)]:
        return found
    raise InputError(f"no unit {pattern!r}; {nearest(pattern, names)}")


def with_needs(chosen: set[str], units: dict[str, Unit]) -> list[str]:
    """The chosen units and all that they build on, in running order."""
    wanted = set(chosen)
    for name in reversed(units):  # needs run earlier, so one pass from the end finds them all
        if name in wanted:
            wanted.update(units[name].needs)
    return [name for name in units if name in wanted]


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
        "outputs": {path: _fingerprint(runs(unit.profile) / path) for path in unit.gives}
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


def _load_unit(name: str, profile: str, names: list[str], earlier: dict[str, Unit]) -> Unit:
    notebook = _notebook(name)
    source = read_notebook(notebook)
    problems, parameters, needs = [], {}, []
    reads = source["metadata"].get("sgvl", {}).get("reads", [])  # globs in the package
    try:
        file = PARAMS / profile / f"{name}.yaml"
        parameters = validate(notebook, load_yaml(file), f"params/{profile}/{file.name}")
    except InputError as error:
        problems += error.problems

    match source["metadata"].get("sgvl"):
        case {"needs": [*patterns], "gives": [*gives]} if _all_text(patterns + gives):
            gives = [path.replace("{unit}", name) for path in gives]
        case other:
            patterns, gives = [], []
            example = '"sgvl": {"needs": [...], "gives": [...]}'
            problems.append(f"{notebook.name}: expected metadata {example}, got {other!r}")
    for pattern in patterns:
        try:
            needs += match_units(pattern, names)
        except InputError as error:
            problems.append(f"{notebook.name}: needs: {error}")
    if late := [need for need in needs if need >= name]:
        problems.append(f"{notebook.name}: needs {late[0]}, which does not run before {name}")
    for path in gives:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            problems.append(f"{notebook.name}: gives {path}, which is outside the run folder")
    if problems:
        raise InputError(problems)

    code = _digest(
        ["".join(cell["source"]) for cell in source["cells"] if cell["cell_type"] == "code"]
    )
    # A need with a problem of its own is not among the earlier ones; load_units raises that one.
    upstream = {need: earlier[need].key for need in needs if need in earlier}
    files = _digests(reads, parameters)
    key = _digest([code, parameters, files, upstream])
    needs = tuple(sorted(set(needs)))
    return Unit(name, profile, parameters, source, code, files, needs, tuple(gives), key)


def _digests(globs: list[str], parameters: dict) -> dict[str, str]:
    """Digests of what a unit reads: files of the package that its notebook declares, and files and
    folders of pictures that its parameters name, such as a reader's own."""
    files = [file for pattern in globs for file in sorted(PACKAGE.glob(pattern))]
    folders = []
    for part in _parts(parameters):
        match part:
            case str() if (ROOT / part).is_file():
                files.append(ROOT / part)
            case {"kind": "folder", "path": str(path)}:
                folders.append(path)
    digests = {os.path.relpath(file, ROOT): _fingerprint(file)["sha256"] for file in files}
    return digests | {f"{path}/": _listing(ROOT / path) for path in folders}


def _parts(value: object) -> Iterator[object]:
    """A parameter value and everything in it, however deep."""
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)


def _listing(folder: Path) -> str:
    """Digest of the names, sizes and times of all files below a folder.

    Pictures come by the thousand: to read them for each --status would take minutes. As in git,
    whoever writes a file changes its time; one that was only touched counts as changed, too.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    return _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _all_text(values: list) -> bool:
    return all(isinstance(value, str) for value in values)


def _notebook(unit: str) -> Path:
    return NOTEBOOKS / f"{unit.partition('.')[0]}.ipynb"


def _upstream(unit: Unit, units: dict[str, Unit]) -> dict[str, str | None]:
    """What the unit builds on: the key of each unit it needs, with what that one last gave."""
    found = {}
    for name in unit.needs:
        receipt = read_receipt(units[name]) or {"status": "missing"}
        outputs = {path: file["sha256"] for path, file in receipt.get("outputs", {}).items()}
        done = receipt["status"] == "ok"
        found[name] = _digest([units[name].key, outputs]) if done else None
    return found


def _fingerprint(path: Path) -> dict:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    stat = path.stat()
    return {"sha256": sha256, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _intact(path: Path, before: dict | None) -> bool:
    """Whether a file is as recorded. Weights are big: as in git, an untouched one is not read."""
    if before is None or not path.is_file() or path.stat().st_size != before["bytes"]:
        return False
    untouched = path.stat().st_mtime_ns == before["mtime_ns"]
    return untouched or _fingerprint(path)["sha256"] == before["sha256"]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _package_digest() -> str:
    return _digest(
        {str(p.relative_to(PACKAGE)): p.read_text("utf-8") for p in PACKAGE.rglob("*.py")}
    )
