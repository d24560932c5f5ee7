"""Print the plan of a profile, and say what does not fit."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from pkgutil import resolve_name

from sgvl.common.paths import ROOT
from sgvl.run.planning import Line, Plan, base_of, gates, maker
from sgvl.run.planning.costs import EDITORS
from sgvl.run.planning.machine import Machine, machine
from sgvl.run.planning.models import cached, size_of
from sgvl.run.servers import Server, asked_by
from sgvl.run.units import SERVED, Unit, parts

PARTS = ("weights", "gradients", "optimiser", "activations", "rollout", "cache")
MARKS = "c computed, m measured, + with a note below the table"
# Roles of 05 whose sets are in the tables; tests/test_plan.py compares with the printed columns.
ROLES_OF = {
    "table2": ("content",),
    "table3": ("bench",),
    "table4": ("bench", "content", "own", "questions"),
    "table5": ("content", "questions"),
    "table6": ("bench",),
}
# Bytes of data sets as far as we know: UnsafeBench's card, MMT-Bench's list of files.
DATA = {"unsafebench": 0.94e9, "mmt": 0.631e9}


def show(
    units: dict[str, Unit], names: list[str], servers: dict[str, Server], gpus: str = ""
) -> list[str]:
    """Print the plan of units, and return what does not fit, with the parameter to change.

    Parameters
    ----------
    units : all of the profile
    names : of those that are planned
    servers : that the profile declares
    gpus : as ``8xH100``; empty for those of this machine, or as many as are needed of one kind
    """
    here = machine(gpus, needed(units, servers))
    plan = Plan(units, servers, here.gpu, here.count)
    lines = plan.lines(names)
    print(*head(here, lines), sep="\n")
    print(*table(lines), sep="\n")
    if here.count:
        print("\nGPU-hours of each table: judging, and the trainings and captions that it needs")
        for name, (judging, training, more) in hours_of_tables(plan, lines).items():
            print(f"{name}  {judging:8.1f} + {training:.1f} c{more}")
    chosen = [units[name] for name in names]
    to_download, models = downloads(plan, chosen)
    print("\ndownloads", *to_download, sep="\n")
    print("\nterms to accept", *terms(chosen), sep="\n")
    calls, cost = sum(line.calls for line in lines), sum(line.cost for line in lines)
    price = f"{cost:,.2f}" if cost >= 0.01 else f"{cost:.1g}"  # 0.004, not 0.00
    priced = f"{calls:,}; cost of those whose unit names prices (computed): {price}"
    print(f"\nAPI calls (computed): {priced if calls else 'none'}")
    return [*problems(lines), *disk(lines, models, here)]


def needed(units: dict[str, Unit], servers: dict[str, Server]) -> int:
    """Return the number of GPUs that a profile asks for; 0 where all runs on the CPU."""
    dicts = [d for unit in units.values() for d in parts(unit.parameters) if isinstance(d, dict)]
    counts = [max(server.gpus, default=-1) + 1 for server in servers.values()]
    counts += [1 for d in dicts if d.get("device") == "cuda"]
    counts += [d["processes"] for d in dicts if "processes" in d and _on_gpus(d, units)]
    return max(counts, default=0)


def _on_gpus(values: dict, units: dict[str, Unit]) -> bool:
    """Return True if processes train a model other than nano, or ask a judge on a GPU."""
    if "model" in values:
        return base_of(units, values["model"]) != "nano"
    return any(isinstance(part, dict) and part.get("device") == "cuda" for part in parts(values))


def head(here: Machine, lines: list[Line]) -> list[str]:
    """Return the lines above the table."""
    if not any(line.gpus for line in lines):
        return ["no GPU is needed", f"{MARKS}; bytes in GB"]
    return [
        f"plan for {here}, {here.origin}",
        f"{MARKS}; memory in GB on the fullest GPU, of the step that needs most",
    ]


def table(lines: list[Line]) -> list[str]:
    """Return the table of units, and their sum."""
    rows = [["unit", "GPUs", *PARTS, "in all", "GPU-hours", "disk GB", "calls"]]
    for line in lines:
        memory = [_giga(line.memory[part]) if part in line.memory else "" for part in PARTS]
        total = f"{_giga(line.total)} c" if line.memory else ""
        hours = f"{line.hours:.1f} {_mark(line, 'hours')}" if line.hours else ""
        hours += " +" if line.notes else ""
        disk = f"{_giga(line.disk)} {_mark(line, 'disk')}" if line.disk else ""
        calls = f"{line.calls:,} c" if line.calls else ""
        rows.append([line.unit, str(line.gpus or ""), *memory, total, hours, disk, calls])
    sums = [sum(line.hours for line in lines), sum(line.disk for line in lines)]
    rows.append(["in all", *[""] * 8, f"{sums[0]:.1f}", _giga(sums[1]), ""])
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    texts = [
        " ".join(f"{cell:<{w}}" if not k else f"{cell:>{w}}" for k, (cell, w) in pairs)
        for row in rows
        for pairs in [enumerate(zip(row, wide, strict=True))]
    ]
    return [text.rstrip() for text in texts] + [f"+ {t}" for t in _grouped(lines, "notes")]


def problems(lines: list[Line]) -> list[str]:
    """Return what does not fit, those alike in one line."""
    return _grouped(lines, "problems")


def _grouped(lines: list[Line], name: str) -> list[str]:
    units: dict[str, list[str]] = {}
    for line in lines:
        for text in getattr(line, name):
            units.setdefault(text, []).append(line.unit)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in units.items()]


def _mark(line: Line, name: str) -> str:
    return "m" if name in line.measured else "c"


def _giga(number: float) -> str:
    return f"{number / 1e9:.0f}" if number >= 1e10 else f"{number / 1e9:.1f}"


def hours_of_tables(plan: Plan, lines: list[Line]) -> dict[str, tuple[float, float, str]]:
    """Return the GPU-hours of each table: of judging, of what it needs, and what is not known.

    A training that several tables need counts in each.
    """
    table_of = resolve_name("sgvl.report.reference:table")
    rows_of = resolve_name("sgvl.report.reference:ROWS")
    by_name, found = {line.unit: line for line in lines}, {}
    specs = [
        spec
        for line in lines
        for group in ("judges", "level_judges")
        for spec in plan.units[line.unit].parameters.get(group, [])
        if isinstance(spec, dict)
    ]
    for name, roles in ROLES_OF.items():
        printed = table_of(name)
        rows = set(printed[printed.columns[0]])
        judges = {judge for judge, names in rows_of.items() if rows & set(names)}
        judging = sum(line.judged.get((j, r), 0) for line in lines for j in judges for r in roles)
        needs = {
            unit
            for spec in specs
            if spec.get("id") in judges
            for unit in before(plan, spec.get("model", ""))
        }
        trained = [by_name[unit] for unit in sorted(needs) if unit in by_name]
        open_ = [line.unit for line in trained if line.notes]
        more = f", and {', '.join(open_)} by your set" if open_ else ""
        found[name] = judging, sum(line.hours for line in trained), more
    return found


def before(plan: Plan, model: str) -> Iterable[str]:
    """Yield the units that make a model, and what these are made from."""
    while unit := maker(plan.units, model):
        yield unit.name
        if unit.parameters.get("variant") in ("recap", "no_recap"):
            yield "02_recaption"
        model = unit.parameters["model"]


def downloads(plan: Plan, units: list[Unit]) -> tuple[list[str], float]:
    """Return a line for each model and data set that is not at hand, and the models' bytes."""
    models: dict[str, None] = {}
    for unit in units:
        local = {plan.servers[name].url for name in asked_by(unit, plan.servers)}
        for part in parts(unit.parameters):
            if isinstance(part, dict) and isinstance(model := part.get("model"), str):
                hosted = part.get("kind") in SERVED and part.get("url") not in local
                if model.count("/") == 1 and not hosted and not (ROOT / model).is_dir():
                    models[model] = None
    rows, total = [], 0.0
    for model in models:
        if cached(model):
            rows.append(f"{model}: in the cache m")
            continue
        size, editor = size_of(model), EDITORS.get(model)
        known = size.parameters * size.file_bytes if size else 0
        known = editor.weights(offload=False) if editor else known
        total += known
        rows.append(f"{model}: {f'{_giga(known)} GB c' if known else 'size not known'}")
    sources = [unit.parameters["sources"] for unit in units if "sources" in unit.parameters]
    for name, spec in (pair for each in sources for pair in each.items()):
        known = DATA.get(spec.get("benchmark") or spec.get("kind"))
        n = plan.rows(name)
        rows.append(
            f"{name}: {f'{n:,} rows' if n else 'rows not known'}, "
            f"{f'{known / 1e9:.2f} GB in all its splits' if known else 'size not known'}"
        )
    return [*rows, f"models in all: {_giga(total)} GB c"] if rows else ["none"], total


def terms(units: list[Unit]) -> list[str]:
    """Return a line for each gated repository that units read, and whether it is accepted."""
    everything = [part for unit in units for part in parts(unit.parameters)]
    named = {part for part in everything if isinstance(part, str)}
    kinds = [str(part.get("kind")) for part in everything if isinstance(part, dict)]
    named |= {repo for kind in kinds for repo in gates.OF_KIND.get(kind, [])}
    answers: dict[str, str] = {}
    for repo in (repo for repo in gates.GATED if repo in named):
        before = next(reversed(answers.values()), "")
        # A hub that does not answer is not asked once more for each.
        answers[repo] = before if before.startswith(gates.UNKNOWN) else gates.accepted(repo)
    return [f"{repo}: {answer}" for repo, answer in answers.items()] or ["none"]


def disk(lines: list[Line], models: float, here: Machine) -> list[str]:
    """Print the bytes on disk; return the problem if they are more than this disk has free.

    Parameters
    ----------
    models : bytes to download, which count where the hub's cache is on the disk of ``runs/``
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    own = sum(line.disk for line in lines if "disk" not in line.measured)
    own += max((line.extra for line in lines), default=0)
    folder, cache = _existing(ROOT / "runs"), _existing(Path(HF_HUB_CACHE))
    beside = models if folder.stat().st_dev == cache.stat().st_dev else 0
    free = shutil.disk_usage(folder).free
    compared = here.here or not any(line.gpus for line in lines)
    more = f"; downloads come on top, in the hub's cache: {_giga(models)} GB c of models"
    more = f"{more}, and data sets" if models else ""
    note = "" if compared else "; not compared, for the plan is for another machine"
    print(f"disk of runs/: {_giga(own)} GB c at most{more}; {_giga(free)} GB m free here{note}")
    if not compared or own + beside <= free:
        return []
    texts = [f"{(own + beside) / 1e9:.0f} GB of disk, and {free / 1e9:.0f} are free"]
    if beside:
        texts.append(f"{_giga(beside)} are models: set HF_HOME to a folder of another disk")
    if own:
        most = max(lines, key=lambda line: line.disk + line.extra)
        texts.append(f"most of runs/ is of {most.unit}")
        texts.append(
            "lower `save_total_limit`, or set `save_only_model: true`, which cannot be resumed"
        )
    return ["; ".join(texts)]


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())
