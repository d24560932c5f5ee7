"""Running the units of a plan: in order, several at a time, and only those that must."""

import os
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from sgvl.run import receipts
from sgvl.run.unit_process import Execution
from sgvl.run.units import Unit, with_needs

HOLDS = {"ok", "fresh", "old-code"}  # states in which a unit need not run


class Row(NamedTuple):
    """How one unit of a run went."""

    unit: str
    status: str
    seconds: float = 0.0
    note: str = ""


def run(plan: list[str], units: dict[str, Unit], forced: set[str], jobs: int = 1) -> list[Row]:
    """Run the planned units that do not hold, and return a row for each that was reached.

    A unit starts once all that it needs has ended and fewer than ``jobs`` are at work, on its share
    of the cores; one that nothing can run beside has them all. Of several that could start, the one
    with the longest chain of units waiting for it goes first, unless they run one by one. A failure
    stops only the units that need the failed one; an interrupt ends the run.
    """
    order = plan if jobs == 1 else _longest_chain_first(plan, units)
    share = max(1, os.cpu_count() // jobs)  # with more, units would wait for each other's threads
    rows: dict[str, Row] = {}
    going: dict[Connection, Execution] = {}
    try:
        while len(rows) < len(plan):
            begun = rows.keys() | {execution.unit.name for execution in going.values()}
            left = [units[name] for name in order if name not in begun]
            for unit in left:
                if len(going) == jobs or not rows.keys() >= set(unit.needs):
                    continue
                if row := _settled(unit, units, forced):
                    rows[unit.name] = row
                    continue
                print(f"{unit.name} ...", flush=True)
                others = [other for other in left if other.name not in rows]
                alone = not going and all(_builds_on(other, unit, units) for other in others)
                execution = Execution(unit, units, None if alone or jobs == 1 else share)
                going[execution.ending] = execution
            for ending in wait(going) if going else ():
                execution = going.pop(ending)
                rows[execution.unit.name] = Row(execution.unit.name, *execution.end())
    except KeyboardInterrupt:
        for execution in going.values():
            rows[execution.unit.name] = Row(execution.unit.name, *execution.stop())
    return [rows[name] for name in plan if name in rows]


def _longest_chain_first(plan: list[str], units: dict[str, Unit]) -> list[str]:
    """The plan, by how many units must follow one another from each; ties stay as planned."""
    chain = dict.fromkeys(plan, 1)
    for name in reversed(plan):
        for need in units[name].needs:
            chain[need] = max(chain[need], chain[name] + 1)
    return sorted(plan, key=chain.get, reverse=True)


def _builds_on(unit: Unit, other: Unit, units: dict[str, Unit]) -> bool:
    """Whether a unit is the other, or needs it, if only through what it needs."""
    return other.name in with_needs({unit.name}, units)


def _settled(unit: Unit, units: dict[str, Unit], forced: set[str]) -> Row | None:
    """The row of a unit that need not or cannot run."""
    lacking = [n for n in unit.needs if receipts.state(units[n], units)[0] not in HOLDS]
    if lacking:
        return Row(unit.name, "skipped", note=f"needs {', '.join(lacking)}")
    status, note = receipts.state(unit, units)
    if status in HOLDS and unit.name not in forced:
        return Row(unit.name, status, note=note)
    return None
