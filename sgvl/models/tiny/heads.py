"""Tiny fixed classifiers of random weights, each in the files of the published one.

They stand in for those as ``sgvl.models.tiny`` does for chat models. All heads are as wide as the
embeddings of the tiny CLIP.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

from sgvl.models.tiny import VISION, WIDTH

TEXT = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 50, "max_position_embeddings": 8,
        "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
TOWER = VISION | {"num_attention_heads": 2, "image_size": 56}
PROCESSOR = {
    "crop_size": {"height": 56, "width": 56}, "do_center_crop": True, "do_convert_rgb": True,
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": {"shortest_edge": 56},
}  # fmt: skip


def save(name: str, folder: str | Path, seed: int = 0) -> None:
    """Write a tiny classifier, a name in ``CLASSIFIERS``, into a folder, as a hub would hold it."""
    import torch

    torch.manual_seed(seed)
    Path(folder).mkdir(parents=True, exist_ok=True)
    CLASSIFIERS[name](Path(folder))


def _config():
    from transformers import CLIPConfig

    config = CLIPConfig(text_config=TEXT, vision_config=TOWER, projection_dim=WIDTH)
    config.vision_config.projection_dim = 512  # a default that nothing uses, as in the real file
    return config


def _clip(folder: Path) -> None:
    from transformers import CLIPModel

    CLIPModel(_config()).save_pretrained(folder)


def _safety_checker(folder: Path) -> None:
    """Write the names of weights as diffusers' class has them, the tower in a tower."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPModel

    config = _config()
    config.save_pretrained(folder)
    weights = {
        name.replace("vision_model.", "vision_model.vision_model."): tensor.contiguous()
        for name, tensor in CLIPModel(config).state_dict().items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    weights["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    for name, n in {"concept": 17, "special_care": 3}.items():
        weights[f"{name}_embeds"] = torch.randn(n, WIDTH)
        weights[f"{name}_embeds_weights"] = 0.2 + 0.2 * torch.rand(n)
    save_file(weights, folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), "utf-8")


def _linear(name: str, outputs: int, inputs: int) -> dict:
    import torch

    weight = torch.randn(outputs, inputs) / inputs**0.5
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs)}


def _nsfw_detector(folder: Path) -> None:
    import torch

    weights = {"norm.mean": 0.01 * torch.randn(WIDTH), "norm.variance": 0.02 * torch.rand(WIDTH)}
    for k, size in enumerate(((8, WIDTH), (12, 8), (10, 12), (1, 10)), start=1):
        weights |= _linear(f"linear_{k}", *size)
    torch.save(weights, folder / "clip_autokeras_binary_nsfw.pth")


def _multiheaded(folder: Path) -> None:
    import torch

    for category in ("sexual", "violent", "disturbing", "hateful", "political"):
        norm = {"weight": 1 + torch.rand(16), "bias": torch.randn(16)}
        norm |= {"running_mean": torch.rand(16), "running_var": 0.1 + torch.rand(16)}
        norm["num_batches_tracked"] = torch.tensor(112)
        weights = _linear("0", 16, WIDTH) | {f"3.{name}": value for name, value in norm.items()}
        torch.save(weights | _linear("4", 1, 16), folder / f"{category}.pt")


def _q16(folder: Path) -> None:
    import torch

    prompts = torch.randn(2, WIDTH).half().numpy()
    content = pickle.dumps(prompts, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    (folder / "prompts.p").write_bytes(content)  # as NumPy 1 wrote it


def _nudenet(folder: Path) -> None:
    """Write a network in ONNX: the means of 16 x 16 tiles, of 256 x 256 pixels, to two chances."""
    import torch

    tile = _tensor("tile", 0.1 * torch.randn(4, 3, 16, 16))
    weights, bias = _tensor("weights", 3 * torch.randn(2, 4)), _tensor("bias", torch.randn(2))
    nodes = (
        _node("Transpose", "input", "channels", perm=[0, 3, 1, 2]),
        _node("Conv", "channels tile", "tiles", strides=[16, 16]),
        _node("Relu", "tiles", "active"),
        _node("ReduceMean", "active", "means", axes=[2, 3], keepdims=0),
        _node("Gemm", "means weights bias", "scores", transB=1),
        _node("Softmax", "scores", "chances", axis=1),
    )
    source, result = _value("input", ["n", 256, 256, 3]), _value("chances", ["n", 2])
    graph = [(1, node) for node in nodes] + [(2, "tiny"), *((5, t) for t in (tile, weights, bias))]
    model = [(1, 8), (7, [*graph, (11, source), (12, result)]), (8, [(2, 13)])]
    (folder / "classifier_model.onnx").write_bytes(_message(model))


# ONNX is a format of protobuf: fields of (number, value). It has a library, which is not needed for
# one network of six nodes.


def _message(fields: list[tuple]) -> bytes:
    """Return fields in protobuf: whole numbers as varints, all else with its length before it."""
    content = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            content += _varint(number << 3) + _varint(value)
        else:
            value = _message(value) if isinstance(value, list) else value
            value = value.encode() if isinstance(value, str) else value
            content += _varint(number << 3 | 2) + _varint(len(value)) + value
    return bytes(content)


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _node(operator: str, inputs: str, output: str, **options) -> list[tuple]:
    attributes = [
        [(1, name), *((8, each) for each in value), (20, 7)]
        if isinstance(value, list)
        else [(1, name), (3, value), (20, 2)]
        for name, value in options.items()
    ]
    names = [(1, name) for name in inputs.split()]
    return [*names, (2, output), (4, operator), *((5, one) for one in attributes)]


def _tensor(name: str, values) -> list[tuple]:
    sizes = [(1, size) for size in values.shape]
    return [*sizes, (2, 1), (8, name), (9, values.numpy().tobytes())]


def _value(name: str, sizes: list) -> list[tuple]:
    axes = [(1, [(2, size) if isinstance(size, str) else (1, size)]) for size in sizes]
    return [(1, name), (2, [(1, [(1, 1), (2, axes)])])]


CLASSIFIERS: dict[str, Callable[[Path], None]] = {
    "clip": _clip,
    "safety_checker": _safety_checker,
    "nsfw_detector": _nsfw_detector,
    "multiheaded": _multiheaded,
    "q16": _q16,
    "nudenet": _nudenet,
}
