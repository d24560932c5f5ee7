"""docs/GPU.md: its tables are computed from the parameter files of the GPU profiles.

    python tests/test_gpu.py

writes them into the document.
"""

import re
from pathlib import Path

import yaml
from test_plan import anchors

from sgvl.common.paths import PARAMS
from sgvl.data.sources import general, llavaguard, safeeditbench, unsafebench
from sgvl.report import reference
from sgvl.run import servers
from sgvl.run.planning import Plan
from sgvl.run.planning.gates import GATED
from sgvl.run.planning.machine import kinds
from sgvl.run.planning.models import published
from sgvl.run.units import load_units

DOCUMENT = Path(__file__).parents[1] / "docs" / "GPU.md"
PROFILES = ("single", "paper")
BASES = ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct")
TRAINED = ("no_recap", "sft", "full")  # judges that are trained here on other captions


def parameters(profile: str) -> dict[str, dict]:
    """Read the parameter files of a profile, by unit."""
    files = sorted((PARAMS / profile).glob("0*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def texts(value):
    """Yield every text in parameters, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def gates() -> str:
    """List the gated repositories that a profile names, or that its sources read."""
    everything = set(texts([parameters(profile) for profile in PROFILES]))
    data = [repo for repo, role in GATED.items() if role.startswith("data")]
    named = [repo for repo in GATED if repo in everything]
    lines = [f"| `{repo}` | {GATED[repo]} |" for repo in [*data, *named]]
    return "\n".join(["| repository | what it is |", "| --- | --- |", *lines])


def plan_of(profile: str) -> Plan:
    units = load_units(profile)
    return Plan(units, servers.declared(profile, units), kinds()["H100"], 8, measured=False)


def training(plan: Plan, unit: str) -> list[str]:
    """Plan rows, steps, bytes on each GPU, GPU-hours and bytes on disk of a training."""
    values, line = plan.units[unit].parameters, plan.line(plan.units[unit])
    rows, steps = plan.training_rows(values), plan.steps(values)
    counts = [f"{rows:,}" if rows else "SafeEditTrain", f"{steps:,}" if steps else "by your set"]
    states = sum(plan.training(values).states().values())
    hours = f"{line.hours:.1f}" if line.hours else "by your set"
    return [*counts, giga(states), giga(line.total), hours, giga(line.disk)]


def giga(number: float) -> str:
    return f"{number / 1e9:.0f} GB" if number >= 1e10 else f"{number / 1e9:.1f} GB"


def units() -> str:
    """Make the table of trainings, those alike in one row."""
    alike: dict[tuple, list[str]] = {}
    for profile in PROFILES:
        plan = plan_of(profile)
        for unit in plan.units:
            if unit.startswith(("03_", "04_")):
                alike.setdefault((profile, *training(plan, unit)), []).append(unit)
    head = "| profile | training | rows | steps | states | at most | GPU-hours | disk |"
    lines = [
        f"| {profile} | {', '.join(f'`{name}`' for name in names)} | {' | '.join(numbers)} |"
        for (profile, *numbers), names in alike.items()
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- | --- |", *lines])


def requests() -> str:
    """Count the questions to one judge of everything, set by set."""
    sets = {
        "SafeEditBench": sum(safeeditbench.ROWS.values()),
        "UnsafeBench (test)": unsafebench.ROWS["test"],
        "LlavaGuard (test, at most)": llavaguard.ROWS["test"],
        "general ability": sum(general.ROWS.values()),
    }
    counts = ", ".join(f"{name} {n:,}" for name, n in sets.items())
    weights = ", ".join(
        f"{giga(2 * published()[name].parameters)} for {name.split('/')[1]}" for name in BASES
    )
    return f"{counts}; {sum(sets.values()):,} in all. Weights in bfloat16: {weights} (*computed*)."


def rows() -> str:
    """Say of every row of Tables 2 to 6 what this kit can do about it."""
    lines = []
    asked = {spec.get("id") for p in PROFILES for spec in judges(parameters(p))}
    for name in ("table2", "table3", "table4", "table5", "table6"):
        table = reference.table(name)
        for row in table[table.columns[0]]:
            lines.append((f"Table {name[-1]}", row, can_do(row, asked)))
    alike: dict[tuple, list[str]] = {}
    for table, row, what in lines:
        alike.setdefault((table, what), []).append(row)
    body = [f"| {table} | {', '.join(names)} | {what} |" for (table, what), names in alike.items()]
    return "\n".join(["| | rows | |", "| --- | --- | --- |", *body])


def judges(profile: dict[str, dict]) -> list[dict]:
    """Return the judges of all panels of a profile."""
    panels = [values for unit, values in profile.items() if unit.startswith("05_")]
    return [
        spec
        for values in panels
        for spec in [*values.get("judges", []), *values.get("level_judges", [])]
    ]


def can_do(row: str, asked: set) -> str:
    """Say what this kit can do about a row of the paper."""
    (judge,) = (judge for judge, names in reference.ROWS.items() if row in names)
    if judge not in asked:
        return "not asked in these profiles"
    if re.fullmatch(r"(sft|rl)_L\d|rl_safeedit", judge):
        return "needs SafeEditTrain: not rebuilt without a set of your own"
    if judge in TRAINED:
        return "trained here on other pictures: not the paper's model"
    if judge == "rl":
        return "the released weights are asked, in a row of their own; this row is trained here"
    return "asked"


def measured() -> str:
    """Compare with what others have measured: what the plan computes for the same work."""
    lines = [
        f"| {setting} | {source} | {low:g}{f' to {high:g}' * (low < high)} {unit} | "
        f"{computed:.3g} {unit} |"
        for setting, source, low, high, unit, computed in anchors()
    ]
    head = "| setting | source | measured | computed |"
    return "\n".join([head, "| --- | --- | --- | --- |", *lines])


TABLES = {"gates": gates, "units": units, "requests": requests, "rows": rows, "measured": measured}


def filled(text: str) -> str:
    """Put every computed part into its place in the document."""
    for name, make in TABLES.items():
        inline = name == "requests"
        part = make() if inline else f"\n{make()}\n"
        mark, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = re.sub(
            f"{mark}(.*?{end})?", lambda _, p=(mark, part, end): "".join(p), text, flags=re.S
        )
    return text


def write() -> None:
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def test_the_computed_parts_are_those_of_the_parameter_files():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == filled(text), "write it anew: python tests/test_gpu.py"
    assert all(f"<!-- end of {name} -->" in text for name in TABLES)


def test_the_commands_and_variables_of_the_document_exist():
    text = DOCUMENT.read_text(encoding="utf-8")
    units = parameters("paper")
    for pattern in re.findall(r"--only (.*?)(?:#|\n)", text):
        for glob in re.findall(r"'([^']+)'", pattern):
            assert any(Path(name).match(glob) for name in units), glob
    assert "params/paper/servers.yaml" in text and servers.declared("paper", load_units("paper"))


if __name__ == "__main__":
    write()
