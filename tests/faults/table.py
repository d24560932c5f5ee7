"""The table of faults: what each one does here, the tests that show it, and what others do."""

from pathlib import Path
from typing import NamedTuple

import yaml

FAULTS = yaml.safe_load(Path(__file__).with_name("faults.yaml").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"

HEAD = """\
# What happens when something goes wrong

Written by `make test-faults`, from the outcomes of the tests that it names; edit
`tests/faults/faults.yaml` instead. A fault *held* if every test of it passed in that run.

Beside it stands what other software does, where this project has looked: *measured* on its
installed version (transformers 5.23, datasets 5.2, Pillow 13, pandas 3.1, SciPy 1.17,
papermill 2.7, scikit-learn 1.9) or on a small model of it, or *read* in its source and not run
(lm-evaluation-harness 4e7e0d4, lmms-eval 75571cf, VLMEvalKit e8e78f0, inspect_ai 499e615, all of
2026-08). An empty cell says nothing about others. *Corrected* is what this page said before and
was wrong.

| | fault | here | outcome | elsewhere |
| --- | --- | --- | --- | --- |
"""


class Outcome(NamedTuple):
    """How one case of a test went, with what it measured, or why it was skipped."""

    outcome: str  # "passed", "failed" or "skipped"
    note: str = ""


def page(went: dict[str, list[Outcome]]) -> str:
    """The whole page as Markdown; ``went`` has the outcomes of each test that was run."""
    rows = (
        f"| {number} | {fault['fault']} | {here(fault)} | {_outcome(fault, went)} "
        f"| {fault.get('elsewhere', '')} |\n"
        for number, fault in FAULTS.items()
    )
    return HEAD + "".join(rows)


def here(fault: dict) -> str:
    """What happens here, and what this page said before and was wrong."""
    corrected = f" *Corrected: {fault['corrected']}.*" if "corrected" in fault else ""
    return fault.get("here", "") + corrected


def _outcome(fault: dict, went: dict[str, list[Outcome]]) -> str:
    if "open" in fault:
        return f"**open**: {fault['open']}"
    cases = [case for test in fault["tests"] for case in went.get(test, [])]
    missing = [test for test in fault["tests"] if test not in went]
    if missing or any(case.outcome == "failed" for case in cases):
        return "**not held**" if not missing else f"**not run**: {', '.join(missing)}"
    notes = [f"not tried: {case.note}" for case in cases if case.outcome == "skipped"]
    notes += [case.note for case in cases if case.outcome == "passed" and case.note]
    files = sorted({test.partition("::")[0] for test in fault["tests"]})
    return "; ".join([f"held (`{'`, `'.join(files)}`)", *notes])
