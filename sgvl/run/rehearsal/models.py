"""Stand-ins for the models of a GPU profile: a model of the same class, small and on this disk.

That of a Qwen2.5-VL has the shipped weights of the nano model, which is one, with a little noise of
its own: random weights would never write a verdict, so no reward and no table could be rehearsed.
What a program meets beside the weights is that of the full-size model: the chat template with its
system message, pictures of any size within the processor's default limits, and the length of the
context. Models of other architectures, which only judge, are those of ``sgvl.models.tiny``.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from zlib import crc32

from sgvl.common.errors import raise_any
from sgvl.common.files import writing
from sgvl.common.paths import NANO_MODEL
from sgvl.run.planning.costs import PIXELS_PER_TOKEN

CONTEXT = 128_000  # positions of Qwen2.5-VL
PIXELS = {
    "shortest_edge": 56 * 56,
    "longest_edge": 1280 * PIXELS_PER_TOKEN,
}  # the class's own defaults
NOISE = 0.01  # of each weight; the models of a run are told apart by it
# Architectures of the released models, by the beginning of their names.
ARCHITECTURES = {
    "Qwen/Qwen2.5-VL-": "qwen2_5_vl",
    "tyodd/SafeGuard-VL-": "qwen2_5_vl",
    "AIML-TUDA/QwenGuard-": "qwen2_5_vl",
    "AIML-TUDA/LlavaGuard-": "llava_onevision",
    "Qwen/Qwen2-VL-": "qwen2_vl",
    "Qwen/Qwen3-VL-": "qwen3_vl",
    "llava-hf/llava-onevision-": "llava_onevision",
    "llava-hf/llava-v1.6-": "llava_next",
    "meta-llama/Llama-Guard-3-11B-Vision": "mllama",
    "meta-llama/Llama-Guard-4-": "llama4",
    "google/gemma-3-": "gemma3",
    "google/shieldgemma-2-": "shieldgemma2",
    "Salesforce/instructblip-": "instructblip",
    "zai-org/GLM-4": "glm4v",
    "openai/clip-vit-": "clip",
    "yiting/NSFWDetector": "nsfw_detector",
    "yiting/MultiHeaded": "multiheaded",
    "yiting/Q16": "q16",
    "CompVis/stable-diffusion-safety-checker": "safety_checker",
    "weights/nudenet": "nudenet",
    "PolicyShiftGuard/PolicyShiftGuard-": "qwen2_5_vl",
    "yueliu1999/GuardReasoner-VL-": "qwen2_5_vl",
    "inclusionAI/SingGuard-": "singguard",
    "nvidia/Nemotron-3.5-Content-Safety": "nemotron",
    "mistralai/Shieldstral-": "mistral3",
    "black-forest-labs/FLUX.2-klein-": "editor",
}


def stand_ins(models: Iterable[str], folder: Path) -> dict[str, Path]:
    """Make the stand-ins of models of the hub below ``folder``, each once; return their folders.

    Raises InputError for models of architectures that have none.
    """
    kinds = {model: architecture(model) for model in sorted(models)}
    raise_any(f"model {m}: no stand-in to rehearse with" for m, kind in kinds.items() if not kind)
    places = {model: folder / model.replace("/", "--") for model in kinds}
    others = []
    for model, place in places.items():
        fresh, seed = place.with_name(f"{place.name}.new"), crc32(model.encode())
        shutil.rmtree(fresh, ignore_errors=True)
        if place.is_dir():
            continue
        with writing(place):
            if kinds[model] == "qwen2_5_vl":
                _like_nano(fresh, seed)
                fresh.rename(place)
            else:
                others.append((kinds[model], str(fresh), seed))
    if others:  # in a process of its own, which frees the memory that torch takes
        quiet = "from transformers.utils import logging; logging.disable_progress_bar(); "
        code = f"from sgvl.models import tiny; [tiny.save(*each) for each in {others}]"
        subprocess.run([sys.executable, "-c", quiet + code], check=True)
        for _, fresh, _ in others:
            Path(fresh).rename(fresh.removesuffix(".new"))
    return places


def architecture(model: str) -> str:
    """Return transformers' name of a model's architecture; "" for one that has no stand-in."""
    return next((kind for name, kind in ARCHITECTURES.items() if model.startswith(name)), "")


def _like_nano(folder: Path, seed: int) -> None:
    shutil.copytree(NANO_MODEL, folder, ignore=shutil.ignore_patterns("README.md", "card.json"))
    _resize(folder)
    _disturb(folder / "model.safetensors", seed)


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
