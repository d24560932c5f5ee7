"""Several processes of one machine: its cores, and calls of a function that they share."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def usable_cores() -> int:
    """Count the cores that this process may run on; all, where the system sets no affinity."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it; macOS and Windows do not
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def mapping(processes: int) -> Iterator[Callable]:
    """Yield ``map`` itself, or for several processes one that makes its calls in them, in order.

    The function, its arguments and its results travel between processes, so they must pickle. Each
    process computes with its share of the cores, and ends with this one.
    """
    if processes == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, [processes]) as pool:
        yield pool.map


def _begin(processes: int) -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(max(1, usable_cores() // processes))


def end_with_parent() -> None:
    """End this process when the one that started it ends, even by SIGKILL."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
