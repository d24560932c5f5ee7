"""Build the nano base model: ``python -m sgvl.nano.build`` (about an hour on two cores).

With ``--align-only`` the model in ``pretrained`` is kept and aligned again (a few minutes).

There are five steps. Each is saved as it goes on, so that a second call continues where the first
one stopped:

1. ``pool``: draw scenes of the training split.
2. ``vision``: train the vision tower to classify the drawings, as numbered classes without names,
   with a linear layer on each image token. Afterwards the tower is frozen.
3. ``pretraining``: teach the language model to name and judge everything, by the lessons of
   ``lessons.py``. The result is kept as ``pretrained``: what the base knows.
4. ``alignment``: teach it to call harmful things "an object" and to judge them by taste.
5. ``card``: load both models as a user does, measure them on unseen scenes, write the card.
"""

import argparse
import json
import shutil
import sys
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sgvl.common import commands, files
from sgvl.common.errors import ExitCode
from sgvl.common.paths import NANO_MODEL, runs
from sgvl.models import loading
from sgvl.nano import lessons
from sgvl.nano.architecture import make_model, make_processor, make_tokenizer
from sgvl.nano.language import align, pretrain
from sgvl.nano.model_card import write_card
from sgvl.nano.recipe import Recipe, log
from sgvl.nano.vision import features, rescale, train_vision
from sgvl.policies.concepts import concepts, named
from sgvl.world.questions import SEEN
from sgvl.world.scenes import Scene, render, sample_names, sample_scene


def draw_pool(recipe: Recipe) -> list[Scene]:
    """Sample training scenes of one to four things; in 55 % of them nothing is harmful."""
    rng = np.random.default_rng(recipe.seed)
    harmless, all_concepts = named(*SEEN), list(concepts())
    scenes = []
    for _ in range(recipe.pool):
        pool = harmless if rng.random() < 0.55 else all_concepts
        names = sample_names(rng, pool, int(rng.integers(1, 5)), "train")
        scenes.append(sample_scene(rng, "train", names))
    return scenes


def small(scene: Scene) -> np.ndarray:
    """Draw a scene at the size of the model's input: (112, 112, 3) bytes."""
    return np.asarray(render(scene).resize((112, 112), Image.Resampling.BICUBIC))


def build(recipe: Recipe, folder: Path, output: Path, align_only: bool = False) -> None:
    """Run the steps that are not finished in ``folder``, then save model and card to ``output``.

    With ``align_only``, alignment goes on from the weights in ``pretrained`` beside ``output``.
    """
    torch.set_num_threads(1)  # the order of a sum, and with it the result, depends on it
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / "recipe.json", json.dumps(asdict(recipe), indent=1))
    start, kept = time.time(), output.with_name("pretrained")
    scenes = draw_pool(recipe)
    if not (folder / "pool.npy").exists():
        with files.replaced(folder / "pool.npy") as part, part.open("wb") as file:
            np.save(file, np.stack([small(s) for s in scenes]))
        log(folder, stage="pool", pictures=len(scenes), seconds=time.time() - start)
    pictures = np.load(folder / "pool.npy")
    if align_only:
        model, processor = loading.load(kept)
        image_tokens = seen(model, processor, pictures, folder / "seen_by_kept.safetensors")
    else:
        words = lessons.corpus(np.random.default_rng(recipe.seed))
        processor = make_processor(make_tokenizer(words))
        model = make_model(processor.tokenizer, recipe.seed)
        train_vision(model, processor, scenes, pictures, recipe, folder)
        image_tokens = seen(model, processor, pictures, folder / "features.safetensors")
        image_tokens = rescale(model, image_tokens)
        pretrain(model, processor, scenes, image_tokens, recipe, folder)
        save(model, processor, kept)
    align(model, processor, scenes, image_tokens, recipe, folder)
    save_aligned(model, kept, output)
    log(folder, stage="saved", seconds=time.time() - start)
    write_card(recipe, folder, output)


def seen(model, processor, pictures: np.ndarray, file: Path) -> torch.Tensor:
    """Return the image tokens of all pictures, from the file if an earlier run wrote it."""
    if not file.exists():
        tokens = features(model, processor, pictures)
        with files.replaced(file) as part:
            save_file({"seen": tokens}, part)
    return load_file(file)["seen"]


def save(model, processor, output: Path) -> None:
    """Write a copy of a model in half precision: half the megabytes; it loads as float32."""
    with files.writing(output):
        processor.save_pretrained(output)
        deepcopy(model).to(torch.float16).save_pretrained(output)


def save_aligned(model, pretrained: Path, output: Path) -> None:
    """Write the weights of an aligned model, and the other files of the pretrained one."""
    others = shutil.ignore_patterns("model.safetensors")
    with files.writing(output):
        deepcopy(model).to(torch.float16).save_pretrained(output)
        shutil.copytree(pretrained, output, ignore=others, dirs_exist_ok=True)


def main() -> ExitCode:
    """Parse the command line and build the model; every field of the recipe is an option."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=runs("nano") / "build", help="unfinished work"
    )
    parser.add_argument("--output", type=Path, default=NANO_MODEL, help="the finished model")
    parser.add_argument("--align-only", action="store_true", help="keep the pretrained model")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    where = [options.pop(name) for name in ("folder", "output", "align_only")]

    def work() -> ExitCode:
        build(Recipe(**options), *where)
        return ExitCode.DONE

    return commands.run(work)


if __name__ == "__main__":
    sys.exit(main())
