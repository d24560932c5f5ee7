"""What both steps of the build share: the recipe, the optimiser, checkpoints, the log."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class Recipe:
    """All that decides the built model. Sources: ours, found by trial."""

    seed: int = 0
    pool: int = 16_000  # pictures
    vision_steps: int = 1_200
    vision_batch: int = 32  # pictures
    vision_lr: float = 2e-3
    vision_warmup: int = 60  # steps
    reciting_steps: int = 200  # the steps of the language model, phase by phase
    lettering_steps: int = 300
    reading_steps: int = 200
    seeing_steps: int = 900
    judging_steps: int = 500
    polishing_steps: int = 500
    language_warmup: int = 40  # steps
    language_batch: int = 48  # lessons
    language_lr: float = 1e-3
    word_weight: float = 4.0  # of a name, a status, an answer, among the other words of a reply
    parts: int = 4  # a batch is sorted by length and run in so many parts: less padding
    save_every: int = 100  # steps
    card_cases: int = 300  # unseen cases behind each figure of the card


def optimiser_of(parameters, lr: float, warmup: int, steps: int, polishing: int = 0):
    """AdamW with a linear warm-up, a constant rate, and a linear decay over the last quarter.

    ``polishing``: more steps, from 0.6 of the rate down to nothing.
    """
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    turns, rates = [0, warmup, steps - steps // 4, steps], [0.0, 1.0, 1.0, 0.0]
    if polishing:
        turns, rates = [*turns, steps + 1, steps + 1 + polishing], [*rates, 0.6, 0.0]
    return optimiser, LambdaLR(optimiser, lambda step: float(np.interp(step, turns, rates)))


class Checkpoint:
    """State of one training step, saved whole and by rename, so that a kill loses little."""

    def __init__(self, path: Path, model: nn.Module, optimiser, schedule):
        self.path, self.parts = path, (model, optimiser, schedule)

    def load(self) -> int:
        """Restore the newest state and return the number of steps done."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["step"]

    def save(self, step: int) -> None:
        fresh = self.path.with_suffix(".new")
        torch.save({"step": step, "parts": [part.state_dict() for part in self.parts]}, fresh)
        fresh.replace(self.path)


def log(folder: Path, **row) -> None:
    print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
          flush=True)  # fmt: skip
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
