"""An open editor in this process: a pipeline of diffusers that edits a picture by instruction."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from PIL import Image

from sgvl.common.errors import InputError, nearest, one_line
from sgvl.common.types import Device, Dtype
from sgvl.editing.base import Editor, Edits
from sgvl.models.loading import resolve
from sgvl.recaption.base import Item
from sgvl.world.drawn_rows import encoded

# Classes of the editors, each with a model of it and that model's licence.
PIPELINES = {
    "QwenImageEditPlusPipeline": "Qwen/Qwen-Image-Edit-2511, Apache-2.0",
    "QwenImageEditPipeline": "Qwen/Qwen-Image-Edit, Apache-2.0",
    "FluxKontextPipeline": "black-forest-labs/FLUX.1-Kontext-dev, gated, non-commercial",
    "Flux2KleinPipeline": "black-forest-labs/FLUX.2-klein-4B, Apache-2.0",
    "Flux2Pipeline": "black-forest-labs/FLUX.2-dev, gated, non-commercial",
}


SIDE = 16  # what a side has to be a multiple of: all these pipelines crop a picture to that
PIXELS = 1000**2  # a larger picture is made smaller: FLUX.2 would do it without keeping its shape


class DiffusersEditor(Editor):
    """Runs a pipeline on one picture after the other, each from the same seed.

    A picture is continued at its right and lower border until its sides are multiples of ``SIDE``,
    and the edit is cut back. An edit has the shape of its picture, unless ``settings`` have
    ``height`` and ``width``.

    Parameters
    ----------
    model : a folder or a hub id; its class is one of ``PIPELINES``
    revision : branch, tag or commit of a hub model; None is main
    dtype, device : of the weights, and where they are
    offload : keep in the device's memory only the part of the pipeline that is running
    settings : of the call, such as ``num_inference_steps`` and ``guidance_scale``, or
        ``true_cfg_scale`` and ``negative_prompt`` for Qwen-Image-Edit
    seed : of the noise
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        name: str | None = None,
        dtype: Dtype = "bfloat16",
        device: Device = "cuda",
        offload: bool = False,
        settings: dict | None = None,
        seed: int = 0,
    ):
        try:
            import diffusers
            import torch
        except ImportError:
            raise InputError(
                "editor diffusers: diffusers is not installed; pip install 'sgvl[edit]'"
            ) from None
        place, problem = resolve(model), ""
        try:
            if not Path(place).is_dir():
                index = hf_hub_download(model, "model_index.json", revision=revision)
                revision = Path(index).parent.name  # the commit
            kind = diffusers.DiffusionPipeline.load_config(place, revision=revision)["_class_name"]
            if kind in PIPELINES:
                options = {"dtype": getattr(torch, dtype), "use_safetensors": True}
                pipeline = getattr(diffusers, kind)
                self.pipeline = pipeline.from_pretrained(place, revision=revision, **options)
            else:
                problem = f"class {kind}; {nearest(kind, PIPELINES)}"
        except (OSError, ValueError, KeyError) as error:
            problem = f"cannot be loaded ({one_line(str(error))[:200]})"
        if problem:
            raise InputError(f"editor {model}: {problem}")
        self.pipeline.set_progress_bar_config(disable=True)
        if offload:
            self.pipeline.enable_model_cpu_offload(device=device)
        else:
            self.pipeline.to(device)
        self.name, self.model, self.revision = name or model, model, revision
        self.dtype, self.settings, self.seed = dtype, settings or {}, seed

    def identity(self) -> dict:
        names = ("model", "revision", "dtype", "settings", "seed")
        own = {name: getattr(self, name) for name in names}
        frame = {"side": SIDE, "pixels": PIXELS}
        return {"kind": "diffusers", "class": type(self.pipeline).__name__, **own, **frame}

    def results(self, items: Sequence[Item]) -> Edits:
        import torch

        for i, item in enumerate(items):
            seeded = torch.Generator("cpu").manual_seed(self.seed)
            framed, (width, height) = frame(item.open())
            sizes = {"width": framed.width, "height": framed.height}
            out = self.pipeline(
                image=framed, prompt=item.caption, generator=seeded, **sizes | self.settings
            ).images[0]
            edit = out.crop((0, 0, width, height)) if out.size == framed.size else out
            yield [(i, encoded(edit)["bytes"], "")]


def frame(image: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
    """Continue a picture to the sizes that pipelines take; return it with the size to cut back to.

    >>> frame(Image.new("RGB", (500, 333)))[0].size
    (512, 336)
    """
    image = image.convert("RGB")
    scale = min(1.0, (PIXELS / (image.width * image.height)) ** 0.5)
    if scale < 1:
        sizes = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(sizes, Image.Resampling.LANCZOS)
    right, below = (-side % SIDE for side in image.size)
    pixels = np.pad(np.asarray(image), ((0, below), (0, right), (0, 0)), mode="edge")
    return Image.fromarray(pixels), image.size
