"""Run the units of a plan in order, several at a time, skipping those that are done."""

from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from sgvl.common.errors import Busy
from sgvl.common.files import DiskFault
from sgvl.common.processes import usable_cores
from sgvl.run import receipts
from sgvl.run.receipts import Status
from sgvl.run.servers import ServerFault, Servers
from sgvl.run.unit_process import Execution
from sgvl.run.units import Unit, with_needs


class Row(NamedTuple):
    """End of one unit of a run."""

    unit: str
    status: Status
    seconds: float = 0.0  # 0 if it was not started
    note: str = ""


def run(
    plan: list[str], units: dict[str, Unit], forced: set[str], servers: Servers, jobs: int = 1
) -> list[Row]:
    """Run the planned units that are not done.

    A unit starts when everything that it needs has ended and fewer than ``jobs`` units are
    executing. It gets its share of the cores; a unit that nothing can run beside gets all of them.
    Of several that could start, the one with the longest chain of units waiting for it goes first
    (with one job: the order of the plan). A failure stops only the units that need the failed one;
    an interrupt ends the run. Servers that a unit asks are started before it, and those that no
    executing unit asks are stopped.

    Parameters
    ----------
    plan : names of units; each stands after those of them that it needs
    forced : names of units that run even if they are done
    servers : of the profile; all that are started have ended at the return
    jobs : the largest number of units at a time

    Returns
    -------
    A row for each unit that ran, was done, or was skipped; after an interrupt, the others have none
    """
    order = plan if jobs == 1 else _longest_chain_first(plan, units)
    share = max(1, usable_cores() // jobs)  # with more threads, units would wait for each other's
    rows: dict[str, Row] = {}
    executing: dict[Connection, Execution] = {}
    try:
        while len(rows) < len(plan):
            started = rows.keys() | {execution.unit.name for execution in executing.values()}
            waiting = [units[name] for name in order if name not in started]
            for unit in waiting:
                if len(executing) == jobs or not rows.keys() >= set(unit.needs) & set(plan):
                    continue
                if row := _row_without_running(unit, units, forced):
                    rows[unit.name] = row
                    continue
                print(f"{unit.name} ...", flush=True)
                others = [other for other in waiting if other.name not in rows]
                alone = not executing and all(_builds_on(other, unit, units) for other in others)
                try:
                    servers.keep([unit, *(execution.unit for execution in executing.values())])
                    servers.start(unit)
                    execution = Execution(unit, units, None if alone or jobs == 1 else share)
                except ServerFault as fault:
                    reason = str(fault)
                    facts = {"reason": reason, **receipts.environment()}
                    receipts.write_receipt(unit, units, Status.FAILED, **facts)
                    rows[unit.name] = Row(unit.name, Status.FAILED, note=reason)
                    continue
                except Busy as busy:
                    rows[unit.name] = Row(unit.name, Status.RUNNING, note=str(busy))
                    continue
                except DiskFault as fault:
                    rows[unit.name] = Row(unit.name, Status.FAILED, note=str(fault))
                    continue
                executing[execution.ended] = execution
            for ended in wait(executing) if executing else ():
                execution = executing.pop(ended)
                rows[execution.unit.name] = _ended(execution, servers)
    except (KeyboardInterrupt, OSError) as error:  # OSError: nobody reads what is printed
        for execution in executing.values():
            rows[execution.unit.name] = Row(execution.unit.name, *execution.stop())
        if not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        servers.keep([])
    return [rows[name] for name in plan if name in rows]


def _ended(execution: Execution, servers: Servers) -> Row:
    return Row(execution.unit.name, *execution.end(servers.faults(execution.unit)))


def _longest_chain_first(plan: list[str], units: dict[str, Unit]) -> list[str]:
    """Sort the plan by the length of the chain of units that wait for each.

    Of equal ones the last comes first: in the profiles here that is the longest training, and a
    long one that starts last would leave the other cores idle.
    """
    length = dict.fromkeys(plan, 1)
    for name in reversed(plan):
        for need in units[name].needs:
            length[need] = max(length[need], length[name] + 1)
    return sorted(reversed(plan), key=length.get, reverse=True)


def _builds_on(unit: Unit, other: Unit, units: dict[str, Unit]) -> bool:
    """Return True if ``unit`` is ``other``, or needs it directly or through others."""
    return other.name in with_needs({unit.name}, units)


def _row_without_running(unit: Unit, units: dict[str, Unit], forced: set[str]) -> Row | None:
    """Return the row of a unit that is done, or that cannot run because a need is not done."""
    lacking = [name for name in unit.needs if not receipts.state(units[name], units)[0].done]
    if lacking:
        return Row(unit.name, Status.SKIPPED, note=f"needs {', '.join(lacking)}")
    status, note = receipts.state(unit, units)
    if unit.receipt.is_dir():
        return Row(unit.name, Status.BAD_INPUT, note=note)
    if status.done and unit.name not in forced:
        return Row(unit.name, status, note=note)
    return None
