"""Units of work: which ones a profile has, in which order they run, and what identifies each.

A unit is one notebook with one parameter file: ``params/nano/03_sft.recap.yaml`` runs
``notebooks/03_sft.ipynb`` (what follows the first dot names the variant). The notebook's metadata
declare the units it needs, the files it gives and the package files it reads:

    "sgvl": {"needs": ["01_data", "03_sft.*"], "gives": ["scores/{unit}.csv"],  # or {variant}
             "reads": ["policies/*.md"], "checks": {"sgvl.judges:check_judges": ["judges"]}}

A path in ``gives`` may be a pattern, as ``data/*.parquet``, that at least one file matches.
``checks`` are functions that take the named parameters and raise InputError for values that the
notebook cannot use, such as a misspelt option of a judge; see ``check_values``.
``"draws": true`` marks a lesson, which may draw scenes in a profile that has no drawn data.
A unit also needs those whose results its parameters name, such as the weights that it starts from.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from sgvl.common.errors import InputError, nearest, need_known, raise_any
from sgvl.common.files import sha256
from sgvl.common.paths import NOTEBOOKS, PACKAGE, PARAMS, ROOT, need_checkout, own_policies, runs
from sgvl.run import warm
from sgvl.run.parameters import load_yaml, read_notebook, validate, value_problems

# Kinds of judges and captioners whose model is that of a server.
SERVED = ("served", "moderations", "decisions")
SERVERS = "servers.yaml"  # declares servers, no unit: see ``sgvl.run.servers``

ALL_POLICIES = "policies/*.md"  # what a notebook reads that takes any policy
SHIPPED = ("policies/L[1-5].md", "policies/llavaguard.md", "policies/openai_content.md")

# Parameters that name another profile, and the files of its run whose change matters: a manifest
# holds the digests of data sets.
ELSEWHERE = {"data_profile": "*/manifest.json", "benchmark_profile": "benchmark/**/*.csv"}


@dataclass(frozen=True)
class Unit:
    """One notebook with one parameter file."""

    name: str
    profile: str
    parameters: dict
    source: dict  # the notebook as it was checked; a later edit on disk does not reach this run
    code: str  # digest of its code cells
    reads: dict  # digest of each file that it reads, besides those that its needs give
    needs: tuple[str, ...]  # names of units
    gives: tuple[str, ...]  # files in the profile's run folder
    key: str  # digest of everything that decides the result: code, parameters, files, needs

    @property
    def notebook(self) -> Path:
        return _notebook(self.name)

    @property
    def parameter_file(self) -> Path:
        return parameters_of(self.profile) / f"{self.name}.yaml"

    @property
    def executed(self) -> Path:
        return runs(self.profile) / f"{self.name}.ipynb"

    @property
    def receipt(self) -> Path:
        return runs(self.profile) / f"{self.name}.json"


def load_units(profile: str) -> dict[str, Unit]:
    """Load and check the units of a profile, in running order (the order of their names).

    Raises InputError with every problem of every unit.
    """
    need_checkout()
    files = sorted(file for file in parameters_of(profile).glob("*") if _is_yaml(file))
    if not files:
        known = {file.parent.name for file in PARAMS.glob("*/*") if _is_yaml(file)}
        need_known(f"{PARAMS}: no profile", profile, sorted(known))
    names = [file.stem for file in files if file.suffix == ".yaml"]
    problems = [
        f"{os.path.relpath(file, ROOT)} would not be run; rename it to {file.stem}.yaml"
        for file in files
        if file.suffix != ".yaml"
    ]
    units, givers = {}, {}
    for name in names:
        try:
            units[name] = unit = _load_unit(name, profile, names, units)
        except InputError as error:
            problems += error.problems
            continue
        for path in unit.gives:
            if givers.setdefault(path, name) != name:
                problems.append(f"{name}: gives {path}, as {givers[path]} does; use {{unit}} in it")
    if problems:
        raise InputError(problems)
    return units


def parameters_of(profile: str) -> Path:
    """Return the folder of a profile's parameter files; a rehearsal has them in its run folder."""
    own = PARAMS / profile
    return own if own.is_dir() else runs(profile) / "params"


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml") and file.name != SERVERS


def check_values(units: list[Unit], to_run: bool = False) -> None:
    """Call the ``checks`` of units. Raises InputError with every problem of every unit.

    The checks import the libraries of models, so they run in a process of their own, which frees
    the memory that these take. Several units ``to_run`` start from the process that has them.
    """
    if any(unit.source["metadata"]["sgvl"].get("checks") for unit in units):
        if to_run and len(units) > 1:
            warm.start()
        with warm.context().Pool(1) as process:
            raise_any(sum(process.map(_value_problems, units), []))


def _value_problems(unit: Unit) -> list[str]:
    where = str(unit.parameter_file.relative_to(ROOT))
    return value_problems(unit.source, unit.parameters, where)


def match_units(pattern: str, names: list[str]) -> list[str]:
    """List the unit names that a name or glob matches. Raises InputError if there are none."""
    if matches := [name for name in names if fnmatchcase(name, pattern)]:
        return matches
    raise InputError(f"no unit {pattern!r}; {nearest(pattern, names)}")


def with_needs(chosen: set[str], units: dict[str, Unit]) -> list[str]:
    """List the chosen units and all that they build on, in running order."""
    wanted = set(chosen)
    for name in reversed(units):  # needs stand earlier, so one pass from the end reaches them all
        if name in wanted:
            wanted.update(units[name].needs)
    return [name for name in units if name in wanted]


def unit_or_share(name: str, units: dict[str, Unit]) -> Unit:
    """Return a unit, or a worker's share of it: ``05_benchmark.base.0-of-4`` is the first of four.

    A share has a receipt of its own and gives nothing: the unit itself reads what all have stored.

    Raises InputError for an unknown name, and for a share of a unit that takes no ``workers``.
    """
    share = re.fullmatch(r"(.+)\.(\d+)-of-(\d+)", name)
    if name in units or not share:
        need_known("no unit", name, units)
        return units[name]
    need_known("no unit", share[1], units)
    unit = units[share[1]]
    if "workers" not in unit.parameters:
        raise InputError(f"{name}: {unit.notebook.name} takes no `workers`, so it has no shares")
    own = {"worker": int(share[2]), "workers": int(share[3])}
    key = digest([unit.key, own])
    return replace(unit, name=name, parameters=unit.parameters | own, gives=(), key=key)


def shares_begun(unit: Unit, units: dict[str, Unit]) -> list[Unit]:
    """List the shares of a unit that have a receipt, in the order of their workers."""
    if "workers" not in unit.parameters:
        return []
    share = re.compile(rf"{re.escape(unit.name)}\.(\d+)-of-(\d+)\.json")
    names = (file.name for file in unit.receipt.parent.glob(f"{unit.name}.*"))
    found = sorted((int(m[2]), int(m[1])) for m in map(share.fullmatch, names) if m)
    return [unit_or_share(f"{unit.name}.{k}-of-{n}", units) for n, k in found]


def is_share(unit: Unit) -> bool:
    """Return True for one of several workers, whose notebook ends before it makes a table."""
    return unit.parameters.get("workers", 1) > 1


def _load_unit(name: str, profile: str, names: list[str], earlier: dict[str, Unit]) -> Unit:
    notebook = _notebook(name)
    source = read_notebook(notebook)
    problems, parameters, needs = [], {}, []
    reads = source["metadata"].get("sgvl", {}).get("reads", [])  # globs in the package
    try:
        file = parameters_of(profile) / f"{name}.yaml"
        where = os.path.relpath(file, ROOT)
        parameters = validate(notebook, load_yaml(file), where)
        if (own := parameters.get("profile", profile)) != profile:
            problems.append(f"{where}: profile: got {own!r}, expected {profile!r}, as its folder")
    except InputError as error:
        problems += error.problems

    match source["metadata"].get("sgvl"):
        case {"needs": [*patterns], "gives": [*gives]} if _all_text(patterns + gives):
            gives = [_filled(path, name) for path in gives]
        case other:
            patterns, gives = [], []
            example = '"sgvl": {"needs": [...], "gives": [...]}'
            problems.append(f"{notebook.name}: expected metadata {example}, got {other!r}")
    for pattern in patterns:
        try:
            needs += match_units(pattern, names)
        except InputError as error:
            problems.append(f"{notebook.name}: needs: {error}")
    needs += _named_units(parameters, profile, earlier)
    if late := [need for need in needs if need >= name]:
        problems.append(f"{notebook.name}: needs {late[0]}, which does not run before {name}")
    for path in gives:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            problems.append(f"{notebook.name}: gives {path}, which is outside the run folder")
    if problems:
        raise InputError(problems)

    code = digest(
        ["".join(cell["source"]) for cell in source["cells"] if cell["cell_type"] == "code"]
    )
    # A need that failed to load is not in ``earlier``; load_units raises its problem.
    upstream = {need: earlier[need].key for need in needs if need in earlier}
    data = earlier["01_data"].parameters if "01_data" in needs and "01_data" in earlier else {}
    files = _digests(reads, parameters, runs(profile), data.get("drawn", True))
    key = digest([code, parameters, files, upstream])
    needs = tuple(sorted(set(needs)))
    return Unit(name, profile, parameters, source, code, files, needs, tuple(gives), key)


def _filled(path: str, name: str) -> str:
    """Return a path with ``{unit}`` filled in, and ``{variant}``, a part that may be empty."""
    variant = name.partition(".")[2]
    path = path.replace("{variant}/", f"{variant}/" if variant else "")
    return path.replace("{unit}", name).replace("{variant}", variant)


def _named_units(parameters: dict, profile: str, units: dict[str, Unit]) -> list[str]:
    """List the units whose files, or folders of files, the parameters name in the run folder.

    A set is named without its ending: it stands beside the manifest of its unit.
    """
    run = PurePosixPath("runs", profile)
    texts = [text for text in parts(parameters) if isinstance(text, str)]
    paths = [path for path in map(PurePosixPath, texts) if run in path.parents]
    writers = {run / file: name for name, unit in units.items() for file in unit.gives}
    beside = {path.parent / "manifest.json" for path in paths}
    return [
        name
        for file, name in writers.items()
        if file in beside or any(map(file.is_relative_to, paths))
    ]


def _digests(globs: list[str], parameters: dict, run: Path, drawn: bool = True) -> dict[str, str]:
    """Return digests of a unit's input files, by path.

    These are files of the package that its notebook declares (``globs``), files, folders of
    pictures and folders of models that its parameters name, and what it reads of another profile's
    run. Models in the folder of the run itself are left out: the units that train
    them are needs. Where data sets are published ones alone, not ``drawn``, their rows bring their
    policies.
    """
    added = []
    if ALL_POLICIES in globs:
        globs = [*SHIPPED, *(pattern for pattern in globs if pattern != ALL_POLICIES)]
        added = _added_policies(parameters, drawn)
    files = added + [file for pattern in globs for file in sorted(PACKAGE.glob(pattern))]
    for name, pattern in ELSEWHERE.items():
        if (other := runs(str(parameters.get(name, run.name)))) != run:
            files += sorted(other.glob(pattern))
    folders = []
    for part in parts(parameters):
        match part:
            case str() if os.path.isfile(ROOT / part):
                files.append(ROOT / part)
            case str() if _is_model(ROOT / part) and not (ROOT / part).is_relative_to(run):
                folders.append(part)
            case {"kind": "folder" | "pictures" | "safeeditbench", "path": str(path)} if path:
                folders.append(path)
    digests = {os.path.relpath(file, ROOT): fingerprint(file)["sha256"] for file in files}
    return digests | {f"{path}/": _listing(ROOT / path) for path in folders}


def _added_policies(parameters: dict, drawn: bool) -> list[Path]:
    """List the policies beside those of the kit that a unit reads: those it names, or all levels.

    05 asks about its ``content`` under all levels, whichever it names for ``bench``.
    """
    shipped = {file for pattern in SHIPPED for file in PACKAGE.glob(pattern)}
    added = sorted({*PACKAGE.glob(ALL_POLICIES)} - shipped) + own_policies()
    names = parameters.get("policies") or []
    if drawn and (not names or parameters.get("content")):
        return [file for file in added if b"\ndefault:" in file.read_bytes()]  # no text alone
    return [file for file in added if file.stem in names]


def _is_model(folder: Path) -> bool:
    return os.path.isfile(folder / "config.json")


def parts(value: object) -> Iterator[object]:
    """Yield a parameter value and everything nested in it."""
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from parts(part)


def _listing(folder: Path) -> str:
    """Return a digest of the names, sizes and times of all files below a folder.

    Reading thousands of pictures for each --status would take minutes. As in git, a file whose time
    has changed counts as changed.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _all_text(values: list) -> bool:
    return all(isinstance(value, str) for value in values)


def _notebook(unit: str) -> Path:
    return NOTEBOOKS / f"{unit.partition('.')[0]}.ipynb"


def fingerprint(path: Path) -> dict:
    """Return a file's sha256 and, because they are quicker to compare, its size and time."""
    stat = path.stat()
    return {"sha256": sha256(path), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def digest(content: object) -> str:
    """Return the sha256 of any value that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
