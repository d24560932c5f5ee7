"""The prefix cache: tokens that a model has read, with their keys and values, to go on from."""

import copy
from collections.abc import Callable, Sequence
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

    def extend(self, tokens: list[int]) -> "Prefix":
        """Read the same further tokens in every row."""
        fed = self._feed([tokens] * len(self.ids))
        with torch.no_grad():
            cache = self.model(**fed, use_cache=True, logits_to_keep=1).past_key_values
        ids = torch.cat([self.ids, fed["input_ids"]], 1)
        return Prefix(
            self.model, ids, fed["attention_mask"], self.next_position + len(tokens), cache
        )

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
        cache = _fork(self.cache)
        cache.batch_select_indices(torch.zeros(len(ids), dtype=torch.long, device=ids.device))
        fed = {k: v[:, length:] if v.shape == ids.shape else v for k, v in inputs.items()}
        fed |= {"attention_mask": mask, "position_ids": positions[..., length:]}
        with torch.no_grad():
            cache = self.model(
                **fed, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).past_key_values
        return Prefix(self.model, ids, mask, positions[..., -1:] + 1, cache)

    def generate(self, tokens: list[int], **options) -> list[list[int]]:
        """Generate greedy replies after the same tokens in every row; ids padded to the longest."""
        fed = self._feed([tokens] * len(self.ids))
        ids = torch.cat([self.ids, fed.pop("input_ids")], 1)
        out = self.model.generate(input_ids=ids, **fed, do_sample=False, **options)
        return out[:, ids.shape[1] :].tolist()

    def log_probability(self, rows: Sequence[int], texts: list[list[int]], last: list[int]):
        """Compute the log-probability of the last tokens of continuations, in one forward pass.

        Parameters
        ----------
        rows : the row that each continuation goes on from
        texts : token ids of the continuations
        last : how many tokens at the end of each are scored

        Returns
        -------
        Tensor
            Shape (texts,).
        """
        # Padding on the right of a shorter text comes after everything that is scored.
        longest, kept = max(map(len, texts)), torch.tensor(rows, device=self.ids.device)
        cache = _fork(self.cache)
        cache.batch_select_indices(kept)
        next_position = self.next_position.index_select(-2, kept)
        picked = Prefix(self.model, self.ids[kept], self.mask[kept], next_position, cache)
        fed = picked._feed([text + [0] * (longest - len(text)) for text in texts])
        return log_probability(self.model, fed, list(map(len, texts)), last)

    def _feed(self, tokens: list[list[int]]) -> dict:
        more = torch.tensor(tokens, device=self.ids.device)
        return {
            "input_ids": more,
            "attention_mask": torch.cat([self.mask, torch.ones_like(more)], 1),
            "position_ids": self.next_position + torch.arange(more.shape[1], device=more.device),
            "past_key_values": _fork(self.cache),
        }


def placed(model, inputs: dict) -> dict:
    """Add the positions of tokens to inputs whose rows are padded on the left.

    A model counts them over the padding otherwise, and answers by its length. Models with positions
    in several dimensions see for themselves where a row begins.
    """
    if "position_ids" in inputs:
        return inputs
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], inputs)
    return {**inputs, "position_ids": positions} if positions.ndim == 2 else inputs


def _fork(cache: Cache) -> Cache:
    """Return a cache that grows independently; the tensors of the shared part are not copied."""
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    return fork


def join(prefixes: Sequence[Prefix]) -> Prefix:
    """Join the rows of several prefixes into one batch, padded on the left to one length."""
    model, longest = prefixes[0].model, max(prefix.ids.shape[1] for prefix in prefixes)
    blank = model.generation_config.pad_token_id or 0  # a repetition penalty would see another
    ids, mask = (
        torch.cat([pad(t, (longest - t.shape[1], 0), value=value) for t in tensors])
        for value, tensors in ((blank, [p.ids for p in prefixes]), (0, [p.mask for p in prefixes]))
    )
    cache = _fork(prefixes[0].cache)
    for layer, *layers in zip(cache.layers, *(p.cache.layers for p in prefixes), strict=True):
        layer.keys, layer.values = (
            _stacked([getattr(one, name) for one in layers]) for name in ("keys", "values")
        )
        if layer.is_sliding:  # it stores the end of its rows, and counts all
            layer.cumulative_length = longest
    next_position = torch.cat([prefix.next_position for prefix in prefixes], dim=-2)
    return Prefix(model, ids, mask, next_position, cache)


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    longest = max(tensor.shape[-2] for tensor in tensors)
    return torch.cat([pad(t, (0, 0, longest - t.shape[-2], 0)) for t in tensors])


def log_probability(model, inputs: dict, ends: list[int], last: list[int]) -> torch.Tensor:
    """Compute the log-probability of the ``last`` tokens before each row's end, shape (rows,)."""
    ids, most = inputs["input_ids"], max(last)
    ends, last = (torch.tensor(n, device=ids.device).unsqueeze(1) for n in (ends, last))
    steps = torch.arange(most, device=ids.device)
    before = (ends - 1 - most + steps).clamp(min=0)  # (rows, most), where each is predicted
    with torch.no_grad():
        logits = model(**placed(model, inputs), logits_to_keep=before).logits
    wanted = ids.gather(1, before + 1).unsqueeze(-1)
    chosen = logits.float().log_softmax(-1).gather(-1, wanted).squeeze(-1)
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
