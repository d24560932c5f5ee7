"""Fixed classifiers of pictures: CLIP with a head, and networks in ONNX, as they are published.

Their files are read without running anything in them: safetensors, tensors alone from files of
torch, and NumPy arrays alone from pickles.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch.nn import functional as F

from sgvl.common.errors import InputError
from sgvl.common.files import sha256
from sgvl.models import loading

BICUBIC = Resampling.BICUBIC
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Files:
    """The files of a model, read by name; ``digests`` holds the sha256 of each that was read.

    Parameters
    ----------
    model : a folder or a hub id
    revision : branch, tag or commit of a hub model; None is main

    Raises
    ------
    InputError
        In every method, for a file that is missing, damaged, or holds anything but finite numbers.
    """

    def __init__(self, model: str, revision: str | None = None):
        self.model, self.revision, self.digests = model, revision, {}

    def identity(self) -> dict:
        """Return what decides an answer: the model and the digests of the files that were read."""
        return {"model": self.model, "revision": self.revision, "weights": dict(self.digests)}

    def path(self, *names: str) -> Path:
        """Return the path of the first of these files that is there."""
        path = loading.file_of(self.model, *names, revision=self.revision)
        self.digests[path.name] = sha256(path)
        return path

    def weights(self, *names: str) -> dict[str, torch.Tensor]:
        """Read a file of tensors by name: safetensors, or one that ``torch.save`` has written."""
        from safetensors.torch import load_file

        path = self.path(*names)
        try:
            if path.suffix == ".safetensors":
                weights = load_file(path)
            else:
                weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise whatever there is
            raise loading.not_whole(self.model, f"{path.name}: {_line(error)}") from None
        if not (
            isinstance(weights, Mapping)
            and all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
        ):
            raise loading.not_whole(self.model, f"{path.name} holds more than tensors")
        loading.check_finite(self.model, weights)
        return {name: tensor.float() for name, tensor in weights.items()}

    def array(self, name: str) -> torch.Tensor:
        """Read a pickled NumPy array of numbers."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                array = _ArraysOnly(file).load()
            tensor = torch.from_numpy(array.astype(np.float32))
        except Exception as error:  # as above
            raise loading.not_whole(self.model, f"{name}: {_line(error)}") from None
        loading.check_finite(self.model, {name: tensor})
        return tensor


class _ArraysOnly(pickle.Unpickler):
    """Reads NumPy arrays from a pickle, and refuses every other class and function."""

    PARTS = ("ndarray", "dtype", "_reconstruct")

    def find_class(self, module: str, name: str):
        module = module.replace("numpy.core.", "numpy._core.")  # as NumPy 1 wrote it
        if module in ("numpy", "numpy._core.multiarray") and name in self.PARTS:
            return getattr(import_module(module), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array, and never loaded")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# -- CLIP ------------------------------------------------------------------------------------------


def vision_tower(files: Files, device: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Load the vision tower of a CLIP model with its projection, in float32.

    Returns
    -------
    tuple
        The tower, whose ``image_embeds`` are (pictures, ``config.projection_dim``); and what else
        the file holds beside the tower of texts, by name.

    Raises
    ------
    InputError
        For a model that is not there, is no CLIP or not whole, and for an unknown device.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    loading.check_device(device)
    try:
        config = CLIPConfig.from_json_file(files.path("config.json"))
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise loading.not_whole(files.model, f"config.json: {_line(error)}") from None
    vision = config.vision_config
    vision.projection_dim = config.projection_dim  # the tower's own may be a default
    if vision.hidden_act != "quick_gelu":
        raise InputError(
            f"model {files.model!r} has the activation {vision.hidden_act!r}; the heads were "
            "trained on a tower with quick_gelu"
        )
    weights = files.weights("model.safetensors", "pytorch_model.bin")
    own, rest = {}, {}
    for name, tensor in weights.items():
        name = name.replace("vision_model.vision_model.", "vision_model.")
        if name.startswith(("text_", "logit_scale")) or name.endswith("position_ids"):
            continue  # the tower of texts, and what older files hold beside the weights
        ours = name.startswith(("vision_model.", "visual_projection."))
        (own if ours else rest)[name] = tensor.clone()  # a mapped file could change
    network, report = CLIPVisionModelWithProjection.from_pretrained(
        None, config=vision, state_dict=own, ignore_mismatched_sizes=True, dtype="float32",
        output_loading_info=True,
    )  # fmt: skip
    loading.check_report(files.model, report)
    return network.to(device).eval(), rest


def embed(tower: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of prepared pictures, (pictures, width), on the CPU."""
    with torch.inference_mode():
        return tower(pixels.to(tower.device)).image_embeds.cpu()


def image_processor(files: Files):
    """Load the processor that comes with a CLIP model. Raises InputError for one that is none."""
    from transformers import CLIPImageProcessorPil

    path = files.path("preprocessor_config.json")
    try:
        return CLIPImageProcessorPil.from_json_file(path)
    except (ValueError, TypeError) as error:
        raise loading.not_whole(files.model, f"{path.name}: {_line(error)}") from None


def clip_pixels(image, size: int) -> torch.Tensor:
    """Return a picture as open_clip prepares it for an evaluation, (3, size, size).

    The shorter side is brought to ``size`` (bicubic), the middle is cut out and normalised.
    """
    scale = min(image.size)
    image = image.resize([int(size * side / scale) for side in image.size], BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    image = image.crop((left, top, left + size, top + size))
    pixels = (np.asarray(image, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(pixels).permute(2, 0, 1)


# Tensors of the published files and their sizes; equal letters are equal sizes, d that of CLIP.
LAYERS = {"1": "a d", "2": "b a", "3": "c b", "4": "1 c"}
NSFW_DETECTOR = {"norm.mean": "d", "norm.variance": "d"}
for _k, _sizes in LAYERS.items():
    NSFW_DETECTOR |= {f"linear_{_k}.weight": _sizes, f"linear_{_k}.bias": _sizes.split()[0]}
MULTIHEADED = {
    "0.weight": "a d", "0.bias": "a", "3.weight": "a", "3.bias": "a", "3.running_mean": "a",
    "3.running_var": "a", "3.num_batches_tracked": "", "4.weight": "1 a", "4.bias": "1",
}  # fmt: skip
SAFETY_CHECKER = {
    "concept_embeds": "17 d", "concept_embeds_weights": "17",
    "special_care_embeds": "3 d", "special_care_embeds_weights": "3",
}  # fmt: skip
CATEGORIES = ("sexual", "violent", "disturbing", "hateful", "political")  # of MultiHeaded


def check_layout(
    model: str, weights: Mapping[str, torch.Tensor], layout: Mapping[str, str], width: int
) -> None:
    """Check that weights have the names and sizes of a layout.

    Raises InputError for missing and unexpected ones, and for the first of another size.
    """
    report = {"missing_keys": layout.keys() - weights, "unexpected_keys": weights.keys() - layout}
    loading.check_report(model, report | {"mismatched_keys": ()})
    sizes = {"d": width}
    for name, letters in layout.items():
        axes, shape = letters.split(), tuple(weights[name].shape)
        if len(axes) == len(shape):
            wanted = tuple(
                int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
                for axis, size in zip(axes, shape, strict=True)
            )
        if len(axes) != len(shape) or wanted != shape:
            why = f"{name} is {shape}; expected ({letters.replace(' ', ', ')}) with d = {width}"
            raise loading.not_whole(model, why)


def nsfw_detector(files: Files, width: int) -> Callable:
    """Read LAION's NSFW detector; see ``HEADS``."""
    weights = files.weights("clip_autokeras_binary_nsfw.pth")
    check_layout(files.model, weights, NSFW_DETECTOR, width)

    def scores(embeddings: torch.Tensor) -> torch.Tensor:
        x = F.normalize(embeddings)
        x = (x - weights["norm.mean"]) / weights["norm.variance"].sqrt()
        for k in LAYERS:
            x = F.linear(x, weights[f"linear_{k}.weight"], weights[f"linear_{k}.bias"])
            x = x.sigmoid() if k == "4" else x.relu()
        return x

    return scores


def multiheaded(files: Files, width: int) -> Callable:
    """Read the five heads of MultiHeaded; see ``HEADS``. Their embeddings are not normalised."""
    heads = [files.weights(f"{category}.pt") for category in CATEGORIES]
    for weights in heads:
        check_layout(files.model, weights, MULTIHEADED, width)

    def score(w: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, w["0.weight"], w["0.bias"]).relu()
        x = F.batch_norm(
            x, w["3.running_mean"], w["3.running_var"], w["3.weight"], w["3.bias"]
        )  # no dropout, as in an evaluation
        return F.linear(x, w["4.weight"], w["4.bias"]).sigmoid()

    return lambda embeddings: torch.cat([score(weights, embeddings) for weights in heads], 1)


def q16(files: Files, width: int) -> Callable:
    """Read the prompts of Q16, the second of which stands for unsafe; see ``HEADS``."""
    prompts = files.array("prompts.p")
    check_layout(files.model, {"prompts": prompts}, {"prompts": "2 d"}, width)

    def scores(embeddings: torch.Tensor) -> torch.Tensor:
        cosines = F.normalize(embeddings) @ F.normalize(prompts).T
        return (100 * cosines).softmax(1)[:, 1:]

    return scores


# How each head is read, for the width of its embeddings, and its categories. What is read takes
# embeddings (pictures, width) to P(unsafe) by category, (pictures, categories).
HEADS = {
    "nsfw_detector": (nsfw_detector, ("",)),
    "multiheaded": (multiheaded, CATEGORIES),
    "q16": (q16, ("",)),
}


def concept_scores(weights: Mapping[str, torch.Tensor], embeddings: torch.Tensor) -> torch.Tensor:
    """Return the scores of Stable Diffusion's safety checker, (pictures, concepts).

    A score is the cosine with a concept less the concept's threshold, and 0.01 where a concept of
    special care is over its own. All are rounded to three places, as published; unsafe is over 0.
    """
    x = F.normalize(embeddings)
    special, scores = (
        x @ F.normalize(weights[f"{name}_embeds"]).T - weights[f"{name}_embeds_weights"]
        for name in ("special_care", "concept")
    )
    adjustment = 0.01 * (special.round(decimals=3) > 0).any(1, keepdim=True)
    return (scores + adjustment).round(decimals=3)


# -- ONNX ------------------------------------------------------------------------------------------


def nudenet_classifier(files: Files) -> Callable:
    """Read NudeNet's classifier of version 2; what is read takes pictures to their P(unsafe)s.

    A picture is brought to 256 x 256 pixels (nearest, whatever its shape), RGB from 0 to 1. The
    outputs are the probabilities of unsafe and safe.
    """
    import onnxruntime

    name = "classifier_model.onnx"
    path = files.path(name)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (source,), (result,) = session.get_inputs(), session.get_outputs()
    except Exception as error:  # those of onnxruntime have no class in common
        raise loading.not_whole(files.model, f"{name}: {_line(error)}") from None

    def run(images: Sequence) -> list[float]:
        small = [image.resize((256, 256), Resampling.NEAREST) for image in images]
        pixels = np.stack([np.asarray(image, np.float32) / 255 for image in small])
        outputs = session.run([result.name], {source.name: pixels})[0]
        if outputs.shape != (len(images), 2) or not np.allclose(outputs.sum(1), 1, atol=1e-3):
            raise ValueError(f"outputs of shape {outputs.shape} are no probabilities")
        return outputs[:, 0].tolist()

    try:
        run([Image.new("RGB", (256, 256))])
    except Exception as error:
        raise loading.not_whole(files.model, f"{name}: {_line(error)}") from None
    return run
