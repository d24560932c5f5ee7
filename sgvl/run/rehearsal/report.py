"""The report of a rehearsal: which unit broke, how long each took, and what it cannot show."""

import re
from collections import defaultdict
from pathlib import Path

from sgvl.common import files
from sgvl.common.errors import ExitCode
from sgvl.common.paths import figures_of, runs
from sgvl.run import receipts
from sgvl.run.rehearsal.parameters import differences
from sgvl.run.units import load_units

ARTEFACTS = [f"table{k}" for k in range(1, 7)] + [f"figure{k}" for k in range(1, 8)]

CANNOT_SHOW = """\
## What a rehearsal cannot show

- memory: whether a model, its gradients and its rollouts fit the GPUs
- speed: the seconds above are of models of three million weights on a CPU
- ZeRO-3 and other layouts of accelerate: processes share the work by DDP over gloo here
- bfloat16, and what CUDA kernels round
- real weights: the stand-ins are the nano model with noise, in the architecture, chat template and
  picture sizes of the full-size one. Their answers mean nothing, and neither do the numbers in the
  tables
- people: 01c and 01d have the pairs of SafeEditBench's stand-in, and votes by rule, for no edit by
  random weights passes the gate
- vLLM and hosted servers: small processes answer for them, by rule
- gates of the real hub, whether your token has accepted each, dead links of the real sets, and
  data that is not as published
- training for more than a few steps: schedules, checkpoints, and what a model learns"""


def write(profile: str, name: str, code: ExitCode, seconds: float) -> Path:
    """Write REHEARSAL.md into the run folder of the rehearsal ``name`` of ``profile``."""
    real, units = load_units(profile), load_units(name)
    rows, changed = [], defaultdict(list)
    for unit in units.values():
        status, note = receipts.state(unit, units)
        took = (receipts.read_receipt(unit) or {}).get("seconds", "")
        rows.append(f"| {unit.name} | {status} | {took} | {_cell(note)} |")
        for path in differences(real[unit.name].parameters, unit.parameters):
            changed[re.sub(r"\.\d+\.", "[].", path)].append(unit.name)
    lacking = missing(name)
    lacking = "all" if lacking == ARTEFACTS else ", ".join(lacking) or "none"
    ended = code.name.lower().replace("_", " ")
    text = [
        f"# Rehearsal of {profile}",
        f"Exit code {code} ({ended}) after {seconds:.0f} s.",
        f"Tables and figures not made: {lacking}.",
        "Nothing here is a result: models, data sets and servers were stand-ins.",
        "\n".join(["| unit | status | seconds | note |", "| --- | --- | ---: | --- |", *rows]),
        CANNOT_SHOW,
        "## Keys that differ from the parameter files",
        "\n".join(f"- `{key}`: {_listed(names, units)}" for key, names in changed.items()),
    ]
    file = runs(name) / "REHEARSAL.md"
    files.write(file, "\n\n".join(text) + "\n")
    return file


def missing(name: str) -> list[str]:
    """List the paper's tables and figures that a run has not made."""
    folder = figures_of(name)
    made = {path.stem for path in folder.glob("*")}
    if (folder / "REPORT.md").exists():
        made.add("table1")  # which is printed in the report alone
    return [artefact for artefact in ARTEFACTS if artefact not in made]


def _listed(names: list[str], units: dict) -> str:
    return "every unit" if len(names) == len(units) else ", ".join(dict.fromkeys(names))


def _cell(note: str) -> str:
    return note.partition("\n")[0].replace("|", "\\|")
