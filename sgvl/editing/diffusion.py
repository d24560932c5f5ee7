"""An open editor in this process: a pipeline of diffusers that edits a picture by instruction."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download

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


class DiffusersEditor(Editor):
    """Runs a pipeline on one picture after the other, each from the same seed.

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
        return {"kind": "diffusers", "class": type(self.pipeline).__name__, **own}

    def results(self, items: Sequence[Item]) -> Edits:
        import torch

        for i, item in enumerate(items):
            seeded = torch.Generator("cpu").manual_seed(self.seed)
            out = self.pipeline(
                image=item.open(), prompt=item.caption, generator=seeded, **self.settings
            )
            yield [(i, encoded(out.images[0])["bytes"], "")]
