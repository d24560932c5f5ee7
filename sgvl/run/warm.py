"""Start units from a process that has imported the libraries of models, as forks of it.

Importing them takes five seconds of a core, once for each notebook. On Linux without a GPU alone:
elsewhere, and where these libraries have started threads, every unit imports for itself; so it does
when ``sgvl`` has changed since, as its receipt names the code that is on the disk when it starts.
"""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

from sgvl.common.files import package_digest

# The first keeps papermill from importing what it does not need.
LIBRARIES = [
    *("sgvl.run.unit_process", "sgvl.run.forked_kernel", "papermill", "seaborn", "trl"),
    *("trl.trainer.sft_trainer", "trl.trainer.grpo_trainer"),
    *("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.pipelines"),
]
DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of CUDA and ROCm, which no fork survives
# Keep freed memory in the process: returning it costs about 10 % of training. Set both thresholds;
# setting one turns off glibc's automatic tuning of the other.
MEMORY = {f"MALLOC_{threshold}_THRESHOLD_": str(2**30) for threshold in ("TRIM", "MMAP")}
# What libraries read when they are imported. A kernel sets its number of threads again.
AT_IMPORT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
HARMLESS = {"jemalloc_bg_thd"}  # a thread of pyarrow's allocator, which prepares for forks

_code: str | None = None  # digest of sgvl as forks have it; None if units are not forked


def context(code: str = "") -> BaseContext:
    """Return the context of multiprocessing in which the next unit starts.

    ``code`` is the ``package_digest`` that its receipt names, by default that of now.
    """
    global _code
    if _code and not (_code == (code or package_digest()) and _can_fork()):
        _code = None
    return multiprocessing.get_context("forkserver" if _code else "spawn")


def start() -> None:
    """Let units be forks, if they can be, of a process that ends with this one."""
    global _code
    if sys.platform == "linux" and not any(map(os.path.exists, DEVICES)):
        _code = package_digest()


def _can_fork() -> bool:
    """Try a fork of the process that has imported the libraries; start that if it is not there."""
    warm, before = multiprocessing.get_context("forkserver"), dict(os.environ)
    warm.set_forkserver_preload(LIBRARIES)
    os.environ |= MEMORY | before | AT_IMPORT
    try:
        forkserver.ensure_running()
        first = warm.Process(target=_prove)
        first.start()
        first.join()
        return first.exitcode == 0
    except (OSError, EOFError):  # it could not import them; the units will say why
        return False
    finally:
        os.environ.clear()
        os.environ.update(before)


def _prove() -> None:
    """Fail if the process that this one is a fork of has further threads: a fork lacks them."""
    tasks = Path(f"/proc/{os.getppid()}/task").glob("*/comm")
    names = [task.read_text().strip() for task in tasks]
    sys.exit(len([name for name in names if name not in HARMLESS]) != 1)
