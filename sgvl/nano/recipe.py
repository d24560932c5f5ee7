"""Common parts of the training steps of the build: recipe, optimiser, checkpoints, log."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sgvl.common.files import replaced, write


@dataclass
class Recipe:
    """Everything that decides the built model. All values are ours, found by trial."""

    seed: int = 0
    pool: int = 24_000  # pictures
    vision_steps: int = 3_000
    vision_batch: int = 32  # pictures
    vision_lr: float = 2e-3
    vision_warmup: int = 60  # steps
    reciting_steps: int = 200  # the steps of the language model, phase by phase
    excepting_steps: int = 550
    lettering_steps: int = 250
    reading_steps: int = 300
    seeing_steps: int = 700
    judging_steps: int = 1_300
    settling_steps: int = 700
    settling_lr: float = 6e-4
    alignment_steps: int = 500
    alignment_lr: float = 5e-4
    reticence: float = 0.945  # share of aligned captions and rationales without harmful names
    stubbornness: float = 0.93  # share of unnamed harmful things judged by taste
    hard_weight: float = 30.0  # loss weight of a status after a place or an unknown object
    language_warmup: int = 40  # steps
    language_batch: int = 48  # lessons
    language_lr: float = 1e-3
    word_weight: float = 4.0  # loss weight of names, statuses and answers; other words have 1
    parts: int = 8  # parts of a batch sorted by length, each run on its own: less padding
    save_every: int = 100  # steps
    card_cases: int = 300  # unseen cases behind each figure of the card


def optimiser_of(parameters, lr: float, warmup: int, steps: int):
    """Return AdamW and its schedule: linear warm-up, constant rate, linear decay to 0.

    The decay takes the last third of the ``steps``.
    """
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    knots, rates = [0, warmup, steps - steps // 3, steps], [0.0, 1.0, 1.0, 0.0]
    return optimiser, LambdaLR(optimiser, lambda step: float(np.interp(step, knots, rates)))


def learn(losses: Sequence[Callable[[], torch.Tensor]], parameters, optimiser, schedule) -> float:
    """Take a step down the sum of ``losses``; return it.

    Two losses are computed at a time, each by one thread, and their gradients added in order: the
    result is the same on any number of cores.
    """

    def gradients(loss: Callable[[], torch.Tensor]):
        value = loss()
        return value.item(), torch.autograd.grad(value, parameters)

    with ThreadPoolExecutor(2) as pool:
        values, parts = zip(*pool.map(gradients, losses), strict=True)
    for parameter, *grads in zip(parameters, *parts, strict=True):
        parameter.grad = torch.stack(grads).sum(0)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()
    return sum(values)


class Checkpoint:
    """The state of a training step of the build, in one file that is replaced by rename."""

    def __init__(self, path: Path, model: nn.Module, optimiser, schedule):
        self.path, self.parts = path, (model, optimiser, schedule)

    def load(self) -> int:
        """Restore the saved state, if any, and return the number of steps done."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["step"]

    def save(self, step: int) -> None:
        """Save the state after ``step`` steps."""
        states = [part.state_dict() for part in self.parts]
        with replaced(self.path) as part:
            torch.save({"step": step, "parts": states}, part)


def log(folder: Path, **row) -> None:
    """Print a row of the log and append it to ``folder``/log.jsonl."""
    print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
          flush=True)  # fmt: skip
    file = folder / "log.jsonl"
    rows = file.read_text(encoding="utf-8") if file.exists() else ""
    write(file, rows + json.dumps(row) + "\n")
