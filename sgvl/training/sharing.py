"""What the completions of a prompt share: its picture is seen once, and it is read once.

TRL's ``GRPOTrainer`` puts each completion behind a copy of its prompt and picture, where it samples
and where it scores. For nano on a CPU these copies are most of a step. The replies are those that
TRL samples from the same seed, and the log-probabilities are its own within rounding; so is the
loss of ``SFTTrainer``, whose head leaves out the tokens of prompts.
"""

import functools
import hashlib
from collections.abc import Sequence
from unittest.mock import patch

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sgvl.common.kept import Kept

KEPT = 2**28  # bytes of features of pictures


def share(trl_trainer) -> None:
    """Make a trainer of Qwen2.5-VL on the CPU compute once what is the same several times.

    Trainings on a GPU stay as TRL made them: there, this was never run.
    """
    networks = [trl_trainer.model, getattr(trl_trainer, "ref_model", None)]
    networks = [trl_trainer.accelerator.unwrap_model(one) for one in networks if one is not None]
    networks = [one.get_base_model() if hasattr(one, "get_base_model") else one for one in networks]
    if networks[0].config.model_type != "qwen2_5_vl" or networks[0].device.type != "cpu":
        return
    frozen = not any(p.requires_grad for p in networks[0].model.visual.parameters())
    samples = hasattr(trl_trainer, "num_generations")
    seen = Kept(KEPT, lambda features: features.nbytes)  # the reference model has the same tower
    for network in networks:
        if frozen:
            see_once(network, seen)
        if not samples:
            score_labels_alone(network)
        if samples and not trl_trainer.args.gradient_checkpointing:
            sample_together(network)
            score_together(network)


def score_labels_alone(network) -> None:
    """Make TRL's head score the tokens that have a label alone, as it does on a GPU."""
    from trl.trainer import utils

    forward = network.forward

    @functools.wraps(forward)  # TRL reads its signature
    def scored(*args, **inputs):
        # Here, this decides that and nothing else.
        with patch.object(utils, "_use_triton", lambda device: True):
            return forward(*args, **inputs)

    network.forward = scored


def see_once(network, seen: Kept) -> None:
    """Make a network keep in ``seen`` what its frozen vision tower makes of each picture."""
    features = network.model.get_image_features

    def kept(pixel_values, image_grid_thw, **options):
        def look(places: list[int]) -> Sequence[torch.Tensor]:
            pixels = torch.cat([pictures[place] for place in places])
            with torch.no_grad():  # checkpointing would ask for gradients
                return features(pixels, image_grid_thw[places], **options).pooler_output

        pictures, keys = _pictures(pixel_values, image_grid_thw)
        own = seen.of(keys, range(len(keys)), look)
        return BaseModelOutputWithPooling(pooler_output=own)

    network.model.get_image_features = kept


def sample_together(network) -> None:
    """Make a network read equal prompts once where it generates replies to a batch of them."""
    generate = network.generate

    def sampled(**inputs):
        if _one_picture_each(inputs):
            length = inputs["input_ids"].shape[1] - 1
            cache, network.model.rope_deltas = _read(network, inputs, length)
            for name in OF_PICTURES:
                del inputs[name]
            inputs["past_key_values"] = cache
        return generate(**inputs)

    network.generate = sampled


def score_together(network) -> None:
    """Make a network read equal prompts once where TRL's head scores completions."""
    forward = network.forward

    @functools.wraps(forward)  # ``generate`` reads its signature
    def scored(*args, labels=None, fused_lm_head=False, **inputs):
        of_head = {"labels": labels, "fused_lm_head": fused_lm_head}
        # All tokens before the last one of the prompts: their completions begin in one column.
        length = int((labels != -100).any(0).int().argmax()) - 1 if fused_lm_head else 0
        if length < 1 or not _one_picture_each(inputs):
            return forward(*args, **of_head, **inputs)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        cache, ahead = _read(network, inputs, length)
        positions = (mask.cumsum(1) - 1 + ahead)[:, length:].expand(3, -1, -1)
        return forward(
            input_ids=ids[:, length:], attention_mask=mask, position_ids=positions,
            past_key_values=cache, labels=labels[:, length:], fused_lm_head=True,
        )  # fmt: skip

    network.forward = scored


OF_PICTURES = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


def _one_picture_each(inputs: dict) -> bool:
    return "image_grid_thw" in inputs and len(inputs["image_grid_thw"]) == len(inputs["input_ids"])


def _read(network, inputs: dict, length: int) -> tuple:
    """Read the first ``length`` tokens of rows with one picture each, those of equal rows once.

    Returns the cache, and for each row by how much positions are ahead of tokens, (rows, 1).
    """
    ids, grid = inputs["input_ids"], inputs["image_grid_thw"]
    pictures, digests = _pictures(inputs["pixel_values"], grid)
    keys = list(zip(map(tuple, ids[:, :length].tolist()), digests, strict=True))
    kept = {key: keys.index(key) for key in keys}
    of, rows = list(kept.values()), [list(kept).index(key) for key in keys]
    by_token = ("input_ids", "attention_mask", "mm_token_type_ids")
    own = {name: inputs[name][of, :length] for name in by_token} | {"image_grid_thw": grid[of]}
    own["position_ids"], ahead = network.model.get_rope_index(**own)
    pixels = torch.cat([pictures[row] for row in of])
    cache = network.model(**own, pixel_values=pixels, use_cache=True).past_key_values
    cache.batch_select_indices(torch.tensor(rows))
    return cache, ahead[rows]


def _pictures(pixels: torch.Tensor, grids: torch.Tensor) -> tuple[Sequence, list]:
    """Return the pixels of each picture, and what tells it from others: its pixels and its form."""
    own = pixels.split(grids.prod(-1).tolist())
    digests = [hashlib.sha1(one.float().numpy().data).digest() for one in own]
    return own, list(zip(digests, map(tuple, grids.tolist()), strict=True))
