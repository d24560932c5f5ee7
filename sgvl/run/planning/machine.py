"""The machine that a plan is for: its GPUs, found or named."""

import re
from typing import NamedTuple

from sgvl.common.errors import InputError
from sgvl.run.planning.costs import GPU
from sgvl.run.planning.models import read_table

FOUND = "found here"
DEFAULT = "H100"  # planned for where no GPU is found


class Machine(NamedTuple):
    """So many GPUs of one kind, and where they are known from."""

    count: int
    gpu: GPU
    origin: str

    @property
    def here(self) -> bool:
        """Return True for the GPUs of this machine."""
        return self.origin == FOUND

    def __str__(self) -> str:
        return f"{self.count} x {self.gpu.name} ({self.gpu.memory / 1e9:.0f} GB)"


def kinds() -> dict[str, GPU]:
    """Return the kinds of GPU in the table, by name."""
    scales = {"memory": 1e9, "tflops": 1e12, "bandwidth": 1e12}
    return {
        row["gpu"]: GPU(row["gpu"], *(float(row[name]) * scale for name, scale in scales.items()))
        for row in read_table("gpus.csv")
    }


def machine(text: str, needed: int) -> Machine:
    """Return the machine that is named, as ``8xH100``, or found; else as many GPUs as are needed.

    Raises InputError for a text of another form, and for an unknown GPU.
    """
    if text:
        match = re.fullmatch(r"(\d+) ?x ?(.+)", text)
        if not match or match[2] not in kinds():
            known = ", ".join(kinds())
            raise InputError(f"--gpus {text!r}: write COUNTxNAME, as in 8xH100; known: {known}")
        return Machine(int(match[1]), kinds()[match[2]], "as --gpus names them")
    import torch

    if not (count := torch.cuda.device_count()):
        none = "assumed, for none was found here; --gpus names others"
        return Machine(needed, kinds()[DEFAULT], none)
    found = [torch.cuda.get_device_properties(k) for k in range(count)]
    smallest = min(found, key=lambda device: device.total_memory)
    return Machine(count, like(smallest.name, smallest.total_memory), FOUND)


def like(name: str, memory: int) -> GPU:
    """Return a GPU that was found, with the speed of the kind in the table that it is."""
    alike = [gpu for kind, gpu in kinds().items() if kind.split("-")[0] in name]
    nearest_one = min(alike, key=lambda gpu: abs(gpu.memory - memory), default=kinds()[DEFAULT])
    return nearest_one._replace(name=name, memory=memory)
