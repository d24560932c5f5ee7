"""The prefix cache: tokens that a model has read, with their keys and values, to go on from."""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)  # of a cache with keys and values by token


class Prefix(NamedTuple):
    """Rows of tokens that a model has read, with their keys and values.

    Stores the next position id and passes it explicitly: with M-RoPE an image uses fewer positions
    than tokens, and the model only caches the offset of its last batch.
    """

    model: object
    ids: torch.Tensor  # (rows, length)
    mask: torch.Tensor  # (rows, length), 0 where a row is padded, which is on the left
    next_position: torch.Tensor  # (..., rows, 1), position of the next token
    cache: Cache

    @classmethod
    def read(cls, model, inputs: dict) -> "Prefix":
        """Read the inputs that a processor made of prompts and images.

        Raises TypeError for a model whose cache is anything but keys and values by token.
        """
        with torch.no_grad():
            cache = model(**placed(model, inputs), use_cache=True, logits_to_keep=1).past_key_values
        for layer in cache.layers:
            if type(layer) not in LAYERS:
                raise TypeError(f"its cache has a {type(layer).__name__}")
            if not layer.is_sliding and layer.get_seq_length() != inputs["input_ids"].shape[1]:
                raise TypeError("its cache has a layer of image features")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        longer = {"attention_mask": pad(mask, (0, 1), value=1), "past_key_values": cache}
        next_position = model._prepare_position_ids_for_generation(pad(ids, (0, 1)), longer)[
            ..., -1:
        ]
        return cls(model, ids, mask, next_position, cache)

    def branch(self, inputs: dict) -> "Prefix":
        """Go on from this one row in several rows, which may hold images.

        Raises TypeError where image tokens see each other: after a cache they would not.

        Every row of ``inputs`` begins with this prefix, and all have one length: padding after the
        prefix would fill the window of layers with sliding-window attention.
        """
        if "token_type_ids" in inputs:
            raise TypeError("its image tokens see each other")
        ids, mask, length = inputs["input_ids"], inputs["attention_mask"], self.ids.shape[1]
        positions = self.model._prepare_position_ids_for_generation(ids, inputs)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(torch.zeros(len(ids), dtype=torch.long, device=ids.device))
        fed = cut(inputs, slice(length, None))
        fed |= {"attention_mask": mask, "position_ids": positions[..., length:]}
        with torch.no_grad():
            cache = self.model(
                **fed, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).past_key_values
        return Prefix(self.model, ids, mask, positions[..., -1:] + 1, cache)


def placed(model, inputs: dict) -> dict:
    """Add the positions of tokens to inputs whose rows are padded on the left.

    A model counts them over the padding otherwise, and answers by its length. Models with positions
    in several dimensions see for themselves where a row begins.
    """
    if "position_ids" in inputs:
        return inputs
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], inputs)
    return {**inputs, "position_ids": positions} if positions.ndim == 2 else inputs


def cut(inputs: dict, tokens: slice) -> dict:
    """Return inputs with some of their tokens; what is not by token stays whole."""
    shape = inputs["input_ids"].shape
    return {
        name: value[:, tokens] if getattr(value, "shape", None) == shape else value
        for name, value in inputs.items()
    }


def log_probability(
    ids: torch.Tensor, ends: list[int], last: list[int], logits: Callable
) -> torch.Tensor:
    """Compute the log-probability of the ``last`` tokens before each row's end, shape (rows,).

    ``logits`` returns those at places, (rows, n), of the model's input ``ids``.
    """
    most = max(last)
    ends, last = (torch.tensor(n, device=ids.device).unsqueeze(1) for n in (ends, last))
    steps = torch.arange(most, device=ids.device)
    before = (ends - 1 - most + steps).clamp(min=0)  # (rows, most), where each is predicted
    wanted = ids.gather(1, before + 1).unsqueeze(-1)
    chosen = logits(before).float().log_softmax(-1).gather(-1, wanted).squeeze(-1)
    return chosen.where(steps >= most - last, 0).sum(1)


@contextmanager
def record_last_logits(model, part: Callable = lambda last: last):
    """Record ``part`` of the last logits (rows, vocabulary) of each forward pass, in a list."""
    recorded: list[torch.Tensor] = []
    hook = model.register_forward_hook(
        lambda module, args, output: recorded.append(part(output.logits[:, -1].float()))
    )
    try:
        yield recorded
    finally:
        hook.remove()
