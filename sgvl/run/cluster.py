"""The units of a profile as jobs of Snakemake, which knows several GPUs, Slurm and other clusters.

``Snakefile`` beside this file makes a rule of each job:

    python -m sgvl.run PROFILE --snakemake --cores 16 --resources gpu=8

or, with the same effect, ``snakemake -s sgvl/run/Snakefile --config profile=PROFILE ...``. Which
units run is decided as without it, from their receipts: once for all, and by each job for its unit.
"""

import math
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from sgvl.common import process_group
from sgvl.common.errors import Busy, InputError
from sgvl.common.paths import PACKAGE, ROOT
from sgvl.run import receipts, servers
from sgvl.run.units import Unit, load_units, match_units, with_needs

SNAKEFILE = Path(__file__).with_name("Snakefile")
# What a job asks for beside the plan's figures; ours. The plan's hours are within a factor of 2.5
# of what others have measured (tests/test_plan.py).
SLACK, START = 2.5, 0.5  # times the hours of the plan, and hours more: a download, a model's load
UNKNOWN = 24  # hours where the plan has none
HOST = 8e9  # bytes of memory of a process, without a model
CORES = 4  # of a GPU, to decode pictures
STDOUT = 1  # its descriptor


class Job(NamedTuple):
    """A unit, or a worker's share of one, with what it needs of a machine."""

    name: str
    after: list[str]  # names of jobs
    command: str
    to_do: bool  # at the moment; the command looks again
    gpus: int
    mem_mb: int  # of the machine, not of its GPUs
    minutes: int
    threads: int

    @property
    def rule(self) -> str:
        """The name as Snakemake wants it."""
        return "unit_" + "".join(c if c.isalnum() else "_" for c in self.name)


def marker(name: str) -> str:
    """Return the file that says that a job has ended well, in this run of Snakemake."""
    return f"jobs/{name}"


def jobs(profile: str, only: str = "*", workers: int = 1, gpus: str = "") -> list[Job]:
    """List the jobs of a profile, each after those that it needs.

    Parameters
    ----------
    only : names or globs of units, with spaces between them
    workers : shares of each unit that takes ``workers``, besides the unit itself, which follows
    gpus : that the plan counts with, as ``8xH100``
    """
    from sgvl.run.planning import Plan
    from sgvl.run.planning.machine import DEFAULT, machine
    from sgvl.run.planning.show import needed

    units = load_units(profile)
    known = servers.declared(profile, units)
    patterns = str(only).split()
    chosen = with_needs({n for p in patterns for n in match_units(p, list(units))}, units)
    to_do = unfinished(chosen, units)
    here = machine(gpus or f"{needed(units, known)}x{DEFAULT}", 0)
    plan, found = Plan(units, known, here.gpu, here.count), []
    for name in chosen:
        unit, after = units[name], [need for need in units[name].needs if need in to_do]
        line, open_ = plan.line(unit), name in to_do
        hours = line.hours / max(1, line.gpus)
        host = HOST * max(1, line.gpus) + line.total * line.gpus
        shared = workers > 1 and "workers" in unit.parameters
        shares = [f"{name}.{k}-of-{workers}" for k in range(workers)] if shared else []
        for part, before in [*((share, after) for share in shares), (name, after + shares)]:
            own = hours / workers if shared else hours
            minutes = 60 * (SLACK * own + START if own else UNKNOWN)
            command = shlex.join([sys.executable, "-m", "sgvl.run", profile, "--job", part])
            sizes = line.gpus, math.ceil(host / 1e6), math.ceil(minutes), CORES * line.gpus or 1
            found.append(Job(part, before, command, open_, *sizes))
    return found


def unfinished(names: list[str], units: dict[str, Unit]) -> set[str]:
    """Return the units that are not done, and those that need one, directly or through others."""
    found: set[str] = set()
    for name in names:  # in running order
        if found & set(units[name].needs) or not receipts.state(units[name], units)[0].done:
            found.add(name)
    return found


def run(profile: str, patterns: list[str], workers: int, gpus: str, arguments: list[str]) -> None:
    """Have Snakemake run the units, with further arguments of its own, until it ends.

    It ends with this process, and its jobs on this machine with it. Raises InputError if it is not
    installed.
    """
    if not find_spec("snakemake"):
        raise InputError("snakemake is not installed; pip install -e '.[cluster]'")
    config = {"profile": profile, "only": " ".join(patterns), "workers": workers, "gpus": gpus}
    settings = [f"{name}={value}" for name, value in config.items() if value]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *arguments]
    path = filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])
    own = {"SGVL_ROOT": str(ROOT), "PYTHONPATH": os.pathsep.join(path)}  # of jobs, too
    keeper = process_group.start([*command, "--config", *settings], STDOUT, os.environ | own)
    try:
        keeper.wait()
    finally:
        process_group.end(keeper)


@contextmanager
def taken_gpus(count: int) -> Iterator[None]:
    """Take GPUs of this machine that no other job has taken; processes started inside see these.

    Where a scheduler has chosen some (CUDA_VISIBLE_DEVICES is set), there is nothing to take. The
    system frees those of a process that dies.

    Raises
    ------
    Busy
        If fewer are free.
    """
    if not count or servers.VISIBLE in os.environ:
        yield
        return
    import torch

    folder = Path(tempfile.gettempdir(), f"sgvl-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: list[str] = []
    with ExitStack() as locks:
        for number in range(torch.cuda.device_count()):
            try:
                if len(taken) < count:
                    locks.enter_context(FileLock(folder / f"{number}", timeout=0))
                    taken.append(f"{number}")
            except Timeout:
                continue
        if len(taken) < count:
            raise Busy(f"{len(taken)} GPUs of this machine are free, and {count} are needed")
        os.environ[servers.VISIBLE] = ",".join(taken)
        try:
            yield
        finally:
            del os.environ[servers.VISIBLE]
