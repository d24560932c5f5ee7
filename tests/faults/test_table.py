"""The registry of faults names tests that exist, and the page says what the registry says."""

import ast
from pathlib import Path

import pytest
import table
from table import FAULTS, Outcome

TESTS = Path(__file__).parents[1]


def defined() -> set[str]:
    return {
        f"{path.stem}::{node.name}"
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_fault_has_tests_that_exist_or_says_why_not():
    assert list(FAULTS) == [f"F{n:02}" for n in range(1, len(FAULTS) + 1)]
    named = {test for fault in FAULTS.values() for test in fault.get("tests", [])}
    assert named <= defined(), f"not there any more: {sorted(named - defined())}"
    for number, fault in FAULTS.items():
        assert set(fault) <= {"fault", "here", "tests", "open", "elsewhere", "corrected"}, number
        assert ("open" in fault) != ("tests" in fault) == ("here" in fault), number


def test_the_page_has_a_row_of_every_fault_as_the_registry_tells_it():
    written = table.PAGE.read_text(encoding="utf-8")
    assert written.startswith(table.HEAD)
    rows = written.removeprefix(table.HEAD).splitlines()
    for (number, fault), row in zip(FAULTS.items(), rows, strict=True):
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[1:4] == [number, fault["fault"], table.here(fault)], "make test-faults"
        assert cells[5] == fault.get("elsewhere", ""), "make test-faults"
        assert cells[4].startswith("**open**" if "open" in fault else "held"), cells[4]


@pytest.mark.parametrize(
    ("went", "told"),
    [
        ([Outcome("passed")], "held (`test_a`)"),
        ([Outcome("passed", "3 kills"), Outcome("skipped", "no disk")],
         "held (`test_a`); not tried: no disk; 3 kills"),
        ([Outcome("passed"), Outcome("failed")], "**not held**"),
        ([], "**not run**: test_a::test_it"),
    ],
)  # fmt: skip
def test_outcomes_by_hand(went, told, monkeypatch):
    fault = {"fault": "a fault", "here": "nothing", "tests": ["test_a::test_it"]}
    monkeypatch.setattr(table, "FAULTS", {"F01": fault})
    outcomes = {"test_a::test_it": went} if went else {}
    assert table.page(outcomes).endswith(f"| F01 | a fault | nothing | {told} |  |\n")
