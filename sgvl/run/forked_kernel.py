"""The kernel of a notebook, forked from a process that has imported the libraries of models.

The fork is made before papermill starts its threads, and waits for its command.
"""

import atexit
import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import traceback
from importlib.metadata import EntryPoint

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from sgvl.common.processes import usable_cores

NAME = "sgvl-fork"
COMMAND = [sys.executable, "-m", "ipykernel_launcher"]

_waiting: "Fork | None" = None  # the fork of this process that no kernel has taken


class Fork:
    """A process that will be a kernel; to jupyter_client it looks as ``subprocess.Popen``."""

    stdin = stdout = stderr = returncode = None

    def __init__(self):
        reads, self._writes = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._writes)
            _become_kernel(reads)
        os.close(reads)

    def run(self, job: dict) -> None:
        """Start the kernel, with its arguments, environment and working directory."""
        with open(self._writes, "w") as pipe:
            json.dump(job, pipe)

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    wait = poll  # LocalProvisioner calls it when the process has ended

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkProvisioner(LocalProvisioner):
    """Starts a kernel in the waiting fork; any other one as jupyter_client does."""

    async def launch_kernel(self, cmd: list[str], **options) -> dict:
        """Start the kernel of a command, and return how to connect to it."""
        global _waiting
        fork, _waiting = _waiting, None
        if cmd[:3] != COMMAND or not fork or fork.poll() is not None:
            return await super().launch_kernel(cmd, **options)
        own = [*cmd[3:], f"--IPKernelApp.parent_handle={os.getpid()}"]  # it ends with this process
        fork.run({"arguments": own, "env": options["env"], "cwd": options.get("cwd")})
        self.process, self.pid, self.pgid = fork, fork.pid, fork.pid
        return self.connection_info


def prepare() -> None:
    """Fork the kernel of this process, which must have no other thread."""
    global _waiting
    _waiting = Fork()
    entry = EntryPoint(NAME, f"{__name__}:ForkProvisioner", KernelProvisionerFactory.GROUP_NAME)
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME], factory.default_provisioner_name = entry, NAME


def _become_kernel(reads: int) -> None:
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a cell's commands must not read the runner's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(reads) as pipe:
            text = pipe.read()
        if text:  # else papermill has ended
            _run_kernel(json.loads(text))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_kernel(job: dict) -> None:
    import datasets.fingerprint
    import numpy as np
    import pandas as pd
    import torch
    from ipykernel import kernelapp

    gc.freeze()  # what is imported is no garbage
    multiprocessing.current_process().daemon = False  # it may start processes
    multiprocessing.set_start_method(None, force=True)  # and chooses how
    datasets.fingerprint.fingerprint_rng.seed()  # other forks would draw the same
    random.seed()
    np.random.seed()
    torch.seed()
    pd.set_option("display.max_columns", 20)  # what it sets when a kernel imports it
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"] or os.getcwd())
    threads = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(threads) if threads.isdigit() else usable_cores())
    sys.argv, terminal = [kernelapp.__file__, *job["arguments"]], sys.stderr
    app = kernelapp.IPKernelApp.instance()
    app.initialize()
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", ()):
            if getattr(handler, "stream", None) is terminal:  # of a library: into the notebook
                handler.setStream(sys.stderr)
    app.start()
