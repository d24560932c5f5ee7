"""Run a profile's notebooks in order, skipping those that are up to date.

    python -m sgvl.run nano                     every unit that is not up to date
    python -m sgvl.run nano --only '05_*'       some units, and those that they need
    python -m sgvl.run nano --status            how each unit stands
    python -m sgvl.run nano --jobs 2            two units at a time, each on half of the cores
    python -m sgvl.run paper --plan             memory, GPU-hours, disk, downloads: what fits
    python -m sgvl.run paper --rehearse         every unit in minutes, with stand-ins, on this CPU
    python -m sgvl.run paper --snakemake --cores 8 --resources gpu=8    units as jobs of Snakemake

Each unit is one papermill command (--dry-run prints them). Exit codes, of --status too: 0 done, 2
bad input, 3 busy (another run holds the profile, or the unit), 4 incomplete (run again to go on), 5
internal.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from contextlib import contextmanager

from filelock import FileLock, Timeout

from sgvl.common import commands, files
from sgvl.common.errors import Busy, ExitCode, InputError, raise_any
from sgvl.common.paths import ROOT, figures_of, runs
from sgvl.run import cluster, receipts, servers
from sgvl.run.receipts import Status
from sgvl.run.scheduler import Row, run
from sgvl.run.unit_process import holder, interrupt, is_executing
from sgvl.run.units import (
    Unit,
    check_values,
    load_units,
    match_units,
    shares_begun,
    unit_or_share,
    with_needs,
)


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.run", __doc__)
    parser.add_argument("profile", help="a folder of params/, such as nano")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="UNIT",
        help="these units, by name or glob, and those that they need",
    )
    parser.add_argument("--force", action="store_true", help="run them even if they are up to date")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="units at a time")
    parser.add_argument("--status", action="store_true", help="show how each unit stands")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--plan", action="store_true", help="say what each unit takes, run nothing")
    parser.add_argument("--gpus", default="", metavar="8xH100", help="GPUs to plan for")
    parser.add_argument("--rehearse", action="store_true", help="with small stand-ins, on the CPU")
    parser.add_argument("--job", metavar="UNIT", help="this unit alone, beside other jobs")
    parser.add_argument("--take-gpus", type=int, default=0, metavar="N", help="of --job: how many")
    parser.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="of --snakemake: shares of a unit"
    )
    parser.add_argument(
        "--snakemake", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="which runs the units"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    work = _job if options.job else _rehearse if options.rehearse else _main
    return commands.run(lambda: work(options))


def _main(options: argparse.Namespace) -> ExitCode:
    units = load_units(options.profile)
    patterns = options.only or ["*"]
    known = servers.declared(options.profile, units)
    chosen = {name for pattern in patterns for name in match_units(pattern, list(units))}
    plan = with_needs(chosen, units)
    forced = chosen if options.force else set()
    if options.plan:
        from sgvl.run.planning.show import show

        raise_any(show(units, plan, known, options.gpus))
        return ExitCode.DONE
    if options.status:
        return _exit_code(_print_status(plan, units))
    to_run = [n for n in plan if n in forced or not receipts.state(units[n], units)[0].done]
    check_values([units[name] for name in to_run], not options.dry_run)
    if options.dry_run:
        _print_commands(plan, units, forced, known)
        return ExitCode.DONE
    servers.need_commands([units[name] for name in to_run], known)
    if needs := [name for name in to_run if name not in chosen]:
        n = f"{len(needs)} unit{'s' * (len(needs) > 1)}"
        print(f"also runs {n} that {' '.join(patterns)} needs: {', '.join(needs)}", flush=True)
    if options.snakemake is not None:
        cluster.run(options.profile, patterns, options.workers, options.gpus, options.snakemake)
        return _exit_code(_print_status(plan, units))
    with locked(options.profile):
        began = time.monotonic()
        rows = run(plan, units, forced, servers.Servers(options.profile, known), options.jobs)
    _print_rows(rows, units, time.monotonic() - began)
    if unreached := len(plan) - len(rows):
        print(f"interrupted: {unreached} of {len(plan)} units were not reached", file=sys.stderr)
    code = _exit_code([row.status for row in rows] + [Status.NOT_RUN] * unreached)
    if code == ExitCode.DONE:
        _print_results(options.profile, [units[row.unit] for row in rows])
    return code


def _job(options: argparse.Namespace) -> ExitCode:
    """Run a unit, or a share of one, whose needs are done, beside other jobs of the profile."""
    units = load_units(options.profile)
    unit = unit_or_share(options.job, units)
    known = servers.declared(options.profile, units)
    servers.need_commands([unit], known)
    began = time.monotonic()
    with cluster.taken_gpus(options.take_gpus):
        own = servers.Servers(options.profile, known)
        rows = run([unit.name], units | {unit.name: unit}, set(), own)
    _print_rows(rows, {unit.name: unit}, time.monotonic() - began)
    return _exit_code([row.status for row in rows] or [Status.NOT_RUN])


def _rehearse(options: argparse.Namespace) -> ExitCode:
    """Run the profile that rehearses the chosen one, and write its report."""
    from sgvl.run import rehearsal
    from sgvl.run.rehearsal import report

    profile = options.profile
    real = load_units(profile)
    name = rehearsal.write(profile, real)
    options = argparse.Namespace(**vars(options) | {"profile": name})
    if options.status or options.dry_run or options.plan:
        return _main(options)
    began = time.monotonic()
    with rehearsal.stage(name, real):
        code = _main(options)
        file = report.write(profile, name, code, time.monotonic() - began)
        print(f"what was rehearsed, and what that cannot show: {file.relative_to(ROOT)}")
        print("The numbers of a rehearsal mean nothing: stand-ins made them.")
    return code


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def _exit_code(statuses: list[Status]) -> ExitCode:
    """Return the exit code; errors that a user must fix take precedence over "run again"."""
    if Status.BAD_INPUT in statuses:
        return ExitCode.BAD_INPUT
    if Status.RUNNING in statuses:
        return ExitCode.BUSY
    return ExitCode.DONE if all(status.done for status in statuses) else ExitCode.INCOMPLETE


@contextmanager
def locked(profile: str):
    """Hold the lock on the profile's run folder; the system frees that of a dead process.

    Raises
    ------
    Busy : another run holds the lock
    InputError : the folder cannot be written
    """
    folder = runs(profile)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
        files.write(folder / ".pid", str(os.getpid()))
    except Timeout:
        raise Busy(f"profile {profile} is being run by {_holder(profile)}") from None
    except OSError as error:
        if fault := files.disk_fault(error, error.filename or folder):
            raise fault from None
        raise InputError(f"{folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _holder(profile: str) -> str:
    return f"process {(runs(profile) / '.pid').read_text('utf-8')}"


def _print_status(plan: list[str], units: dict[str, Unit]) -> list[Status]:
    """Print and return how each planned unit stands, and the shares of one that is not done."""
    statuses = []

    def print_one(unit: Unit, indent: str = "") -> None:
        status, note = receipts.state(unit, units)
        if status == Status.RUNNING:
            if is_executing(unit):
                note = holder(unit)
            else:
                status, note = Status.INTERRUPTED, "its run was killed"
        first_line = note.partition("\n")[0]
        print(f"{indent + unit.name:<24} {status:<12} {first_line}".rstrip())
        statuses.append(status)

    for unit in map(units.get, plan):
        print_one(unit)
        if not statuses[-1].done:
            for share in shares_begun(unit, units):
                print_one(share, "  ")
    return statuses


def _print_commands(
    plan: list[str], units: dict[str, Unit], forced: set[str], known: dict[str, servers.Server]
) -> None:
    for name in plan:
        unit = units[name]
        status, note = receipts.state(unit, units)
        if not status.done or name in forced:
            named = unit.notebook, unit.executed, unit.parameter_file
            notebook, executed, parameters = (str(file.relative_to(ROOT)) for file in named)
            command = shlex.join(["papermill", notebook, executed, "-f", parameters])
            after = f"after {', '.join(unit.needs)}" if unit.needs else ""
            asked = servers.asked_by(unit, known)
            for server in asked:
                print(f"{known[server].shown()}  # server {server}, while {name} runs")
            asks = f"asks {', '.join(asked)}" if asked else ""
            match unit.parameters:  # of a training; 05 asks several judges at the same time
                case {"processes": int(starts), "layout": layout} if starts > 1:
                    ranks = f"{starts} processes by {layout}"
                case _:
                    ranks = ""
            print(f"{command}  # {'; '.join(filter(None, [status, note, after, asks, ranks]))}")


def _print_rows(rows: list[Row], units: dict[str, Unit], elapsed: float) -> None:
    print(f"\n{'unit':<24} {'status':<12} {'seconds':>9}")
    for row in rows:
        why = row.note if row.status == Status.OLD_CODE else "not run again" * row.status.done
        took = f"{row.seconds:>9.1f}" if row.seconds else f"  {why}"
        print(f"{row.unit:<24} {row.status:<12} {took}".rstrip())
    if len(rows) > 1:
        print(f"{'sum of the units':<37} {sum(row.seconds for row in rows):>9.1f}")
        print(f"{'from start to end':<37} {elapsed:>9.1f}")
    for row in rows:
        if not row.status.done or row.status == Status.UNAVAILABLE:
            print(f"\n{row.unit} {row.status}: {row.note}", file=sys.stderr)
            if row.status != Status.SKIPPED and units[row.unit].executed.exists():
                print(f"see {units[row.unit].executed.relative_to(ROOT)}", file=sys.stderr)


def _print_results(profile: str, units: list[Unit]) -> None:
    """Print where the results of a finished run are."""
    several = len(units) > 1
    place = runs(profile) if several else units[0].executed
    print(f"\nexecuted notebook{'s' * several}: {place.relative_to(ROOT)}{'/' * several}")
    report = figures_of(profile) / "REPORT.html"
    if report.exists():
        print(f"report: {report.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
