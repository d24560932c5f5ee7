"""Stand-ins for the models of a GPU profile: a model of the same class, small and on this disk.

Each has the shipped weights of the nano model, a real Qwen2.5-VL, with a little noise of its own:
random weights would never write a verdict, so no reward and no table could be rehearsed. What a
program meets beside the weights is that of the full-size model: the chat template with its system
message, pictures of any size within the processor's default limits, and the length of the context.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from zlib import crc32

from sgvl.common.errors import InputError
from sgvl.common.paths import NANO_MODEL

CONTEXT = 128_000  # positions of Qwen2.5-VL
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}  # the class's own defaults
NOISE = 0.01  # of each weight; the models of a run are told apart by it
# The released models of this architecture, by the beginning of their names.
QWEN2_5_VL = ("Qwen/Qwen2.5-VL-", "tyodd/SafeGuard-VL-", "AIML-TUDA/QwenGuard-")


def stand_in(model: str, folder: Path) -> Path:
    """Make the stand-in of a model of the hub below ``folder``, once, and return its folder.

    Raises InputError for a model of an architecture that has none.
    """
    if not model.startswith(QWEN2_5_VL):
        known = ", ".join(f"{name}*" for name in QWEN2_5_VL)
        raise InputError(f"model {model}: no stand-in to rehearse with; there are those of {known}")
    place = folder / model.replace("/", "--")
    if not place.is_dir():
        fresh = place.with_name(f"{place.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(NANO_MODEL, fresh, ignore=shutil.ignore_patterns("README.md", "card.json"))
        _resize(fresh)
        _disturb(fresh / "model.safetensors", seed=crc32(model.encode()))
        fresh.rename(place)
    return place


def _resize(folder: Path) -> None:
    """Give a copy of the nano model the context, pictures and template of the full-size one."""
    _edit(folder / "config.json", "text_config", max_position_embeddings=CONTEXT)
    _edit(folder / "tokenizer_config.json", model_max_length=CONTEXT)
    _edit(folder / "processor_config.json", "image_processor", size=PIXELS)
    template = files("trl") / "chat_templates" / "qwen2_5_vl.jinja"
    (folder / "chat_template.jinja").write_text(template.read_text("utf-8"), encoding="utf-8")


def _edit(file: Path, *keys: str, **values) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    part = content
    for key in keys:
        part = part[key]
    part.update(values)
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _disturb(file: Path, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(seed)
    weights = load_file(file)
    noisy = {
        name: (weight * (1 + NOISE * rng.standard_normal(weight.shape))).astype(weight.dtype)
        for name, weight in weights.items()
    }
    save_file(noisy, file, metadata={"format": "pt"})
