"""The first training step of the build: a vision tower that classifies drawings and places."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from sgvl.nano.architecture import TOKENS
from sgvl.nano.recipe import Checkpoint, Recipe, learn, log, optimiser_of
from sgvl.policies.concepts import PLACES, concepts
from sgvl.world.scenes import Scene


def patches(pictures: list[Image.Image], processor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn n pictures into the tower's input: patches (64 n, 1176) and grid sizes (n, 3)."""
    batch = processor.image_processor(images=pictures, return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]


def token_classes(scene: Scene) -> np.ndarray:
    """Return the class of the drawing in each of 16 image tokens; the last class is no drawing."""
    names = list(concepts())
    grid = np.full((4, 4), len(names))
    for thing in scene.things:
        row, column = divmod(thing.slot, 2)
        grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = names.index(thing.concept)
    return grid.reshape(-1)


def train_vision(model, processor, scenes, pictures, recipe: Recipe, folder: Path) -> None:
    """Train the tower with linear classifiers of drawings and places, which are then dropped."""
    tower = model.model.visual
    things, places = nn.Linear(192, len(concepts()) + 1), nn.Linear(192, len(PLACES))
    network = nn.ModuleList([tower, things, places])
    classes = torch.from_numpy(np.stack([token_classes(s) for s in scenes]))
    place_classes = torch.tensor([PLACES.index(s.place) for s in scenes])
    optimiser, schedule = optimiser_of(
        network.parameters(), recipe.vision_lr, recipe.vision_warmup, recipe.vision_steps
    )
    checkpoint = Checkpoint(folder / "vision.pt", network, optimiser, schedule)
    learnt, right = list(network.parameters()), []

    def loss(rows: np.ndarray) -> torch.Tensor:
        pixels, grid = patches([Image.fromarray(pictures[i]) for i in rows], processor)
        tokens = tower(pixels, grid_thw=grid).pooler_output
        named, drawn = things(tokens), classes[rows].reshape(-1)
        right.append((named.argmax(-1) == drawn).float().mean().item())
        placed = nn.functional.cross_entropy(
            places(tokens), place_classes[rows].repeat_interleave(TOKENS)
        )
        return (nn.functional.cross_entropy(named, drawn) + placed) / 2

    done, start = checkpoint.load(), time.time()
    for step in range(done, recipe.vision_steps):
        rng = np.random.default_rng((recipe.seed, 1, step))
        halves = np.array_split(rng.integers(len(scenes), size=recipe.vision_batch), 2)
        total = learn([partial(loss, half) for half in halves], learnt, optimiser, schedule)
        if (step + 1) % 50 == 0:
            log(folder, stage="vision", step=step + 1, loss=total, right=float(np.mean(right)),
                seconds=time.time() - start)  # fmt: skip
            right.clear()
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.vision_steps:
            checkpoint.save(step + 1)


def features(model, processor, pictures) -> torch.Tensor:
    """Return the image tokens that the finished tower makes of each picture: (n, 16, 192)."""
    tokens = []
    with torch.no_grad():
        for k in range(0, len(pictures), 100):
            pixels, grid = patches([Image.fromarray(p) for p in pictures[k : k + 100]], processor)
            tokens.append(
                model.model.visual(pixels, grid_thw=grid).pooler_output.view(-1, TOKENS, 192)
            )
    return torch.cat(tokens)


def rescale(model, image_tokens: torch.Tensor) -> torch.Tensor:
    """Scale the tower's last layer and its output, image tokens, to the size of word embeddings.

    Unscaled, an image token is about a hundred times as long as a word embedding, and what the
    language model adds to it in the residual stream, such as its position, has almost no effect.
    """
    factor = 0.25 / image_tokens.std()
    last = model.model.visual.merger.mlp[-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor)
    return image_tokens * factor
