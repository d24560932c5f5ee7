"""Run a command in a process group of its own, which ends with the process that started it.

It ends too if that process is killed: a keeper beside the command, this file run as a script, reads
a pipe that the system closes then. A server so started never keeps a GPU that nobody uses.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

GRACE = 20.0  # seconds from the first signal to the second, which cannot be handled
POLL = 0.05
NOT_FOUND = 127  # exit code of a command that is not there, as in a shell


def start(
    command: Sequence[str], log: IO | int, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start a command whose output goes to ``log``, or to ``subprocess.PIPE``; return its keeper.

    ``end`` ends the command and all processes of its group. The keeper ends when the command does,
    with its exit code. Raises InputError where the system has no process groups.
    """
    if not hasattr(os, "killpg"):
        from sgvl.common.errors import InputError  # the keeper, which runs alone, has no sgvl

        raise InputError(
            "servers, trainings in several processes and Snakemake need process groups, which this "
            "system lacks; on Windows, run this in WSL"
        )
    keeper = [sys.executable, "-P", __file__, *command]  # -P: no module of this folder is in reach
    return subprocess.Popen(
        keeper,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # a Ctrl-C at a terminal reaches the starter only
    )


def end(keeper: subprocess.Popen) -> int:
    """End the command of a keeper, wait until its group is gone, and return the exit code."""
    keeper.stdin.close()
    return keeper.wait()


def _keep(command: list[str]) -> int:
    """Run a command; end its group when standard input is closed, and when it has ended itself."""
    signal.signal(signal.SIGTERM, lambda *_: _end_group(child.pid))
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        return NOT_FOUND
    threading.Thread(target=_end_with_input, args=[child.pid], daemon=True).start()
    code = child.wait()
    _end_group(child.pid)  # what the command has left behind
    return code if code >= 0 else 128 - code


def _end_with_input(group: int) -> None:
    os.read(0, 1)  # not sys.stdin, which would be locked when the interpreter ends
    _end_group(group)


def _end_group(group: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                return
            number = 0  # only asks whether the group is there
            time.sleep(POLL)


if __name__ == "__main__":
    sys.exit(_keep(sys.argv[1:]))
