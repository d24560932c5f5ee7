"""Marks the tests that ``faults/faults.yaml`` names, and writes the table of how they went."""

import gc

import pytest
import table
from hypothesis import settings

pytest_plugins = ["published", "scripted_server"]  # their fixtures serve several test files

# Imports make objects and little garbage: looking for it as often as usual takes a third of them.
gc.set_threshold(100_000, 20)

# Of the property tests: the same examples in every `make test`, and an hour of others.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.register_profile("hour", deadline=None, print_blob=True)
settings.load_profile("ci")

LONGEST = ("notebooks", "run", "training", "chat", "benchmark", "widgets", "architectures")

went: dict[str, list[table.Outcome]] = {}  # test -> one outcome a case


def name_of(nodeid: str) -> str:
    """A test as the registry names it: ``test_records::test_resume``, whatever its cases."""
    path, _, name = nodeid.partition("[")[0].partition("::")
    return f"{path.rpartition('/')[2].removesuffix('.py')}::{name}"


def pytest_addoption(parser):
    parser.addoption("--write-faults", action="store_true", help=f"write {table.PAGE.name}")
    parser.addoption("--kills", type=int, help="of each work in test_random_kills.py")
    parser.addoption("--kill-seed", type=int, default=0, help="of the instants there")


@pytest.hookimpl(tryfirst=True)  # before `-m fault` chooses
def pytest_collection_modifyitems(items):
    named = {test for fault in table.FAULTS.values() for test in fault.get("tests", [])}
    for item in items:
        if name_of(item.nodeid) in named:
            item.add_marker(pytest.mark.fault)
    # The longest files first: no process then waits for the other at the end.
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish():
    gc.freeze()  # what is imported by now stays


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        why = report.longrepr[2] if report.skipped else ""
        measured = dict(report.user_properties).get("measured", "")
        outcome = table.Outcome(report.outcome, measured or why.removeprefix("Skipped: "))
        went.setdefault(name_of(report.nodeid), []).append(outcome)


def pytest_sessionfinish(session):
    if session.config.getoption("write_faults"):
        table.PAGE.parent.mkdir(exist_ok=True)
        table.PAGE.write_text(table.page(went), encoding="utf-8")
