"""What a model has read, kept so that it can go on from there without reading it again."""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)  # of a cache: keys and values by token


class Prefix(NamedTuple):
    """Rows of tokens that a model has read, with their keys and values.

    Where the next token stands is kept here and told with each continuation: under M-RoPE a picture
    takes up fewer positions than tokens, and a model remembers the count of its last batch alone.
    """

    model: object
    ids: torch.Tensor  # (rows, length)
    mask: torch.Tensor  # (rows, length), 0 where a row is padded, which is on the left
    ahead: torch.Tensor  # (..., rows, 1), position of the next token
    cache: Cache

    @classmethod
    def read(cls, model, inputs: dict) -> "Prefix":
        """Read what a processor made of texts and pictures.

        Raises TypeError for a model that keeps anything but keys and values by token.
        """
        with torch.no_grad():
            cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        for layer in cache.layers:
            if type(layer) not in LAYERS:
                raise TypeError(f"its cache has a {type(layer).__name__}")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        longer = {"attention_mask": pad(mask, (0, 1), value=1), "past_key_values": cache}
        ahead = model._prepare_position_ids_for_generation(pad(ids, (0, 1)), longer)[..., -1:]
        return cls(model, ids, mask, ahead, cache)

    def then(self, tokens: list[int]) -> "Prefix":
        """Read on: the same tokens in every row."""
        fed = self._feed([tokens] * len(self.ids))
        with torch.no_grad():
            cache = self.model(**fed, use_cache=True, logits_to_keep=1).past_key_values
        ids = torch.cat([self.ids, fed["input_ids"]], 1)
        return Prefix(self.model, ids, fed["attention_mask"], self.ahead + len(tokens), cache)

    def onto(self, inputs: dict) -> "Prefix":
        """Read on from this one row in several, pictures among them.

        Every row of ``inputs`` opens with what was read, and all are of one length: padding after
        what was read would stand in the windows of layers that look back a little way only.
        """
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
        """Token ids of the greedy replies after the same tokens in every row, up to the longest."""
        fed = self._feed([tokens] * len(self.ids))
        ids = torch.cat([self.ids, fed.pop("input_ids")], 1)
        out = self.model.generate(input_ids=ids, **fed, do_sample=False, **options)
        return out[:, ids.shape[1] :].tolist()

    def log_probability(self, rows: Sequence[int], texts: list[list[int]], last: list[int]):
        """Log-probability of the last few tokens of each text as it goes on from one of the rows,
        all in one forward pass, shape (texts,)."""
        # What is added on the right of a shorter text comes after all that is asked about.
        longest, kept = max(map(len, texts)), torch.tensor(rows, device=self.ids.device)
        cache = _fork(self.cache)
        cache.batch_select_indices(kept)
        ahead = self.ahead.index_select(-2, kept)
        picked = Prefix(self.model, self.ids[kept], self.mask[kept], ahead, cache)
        fed = picked._feed([text + [0] * (longest - len(text)) for text in texts])
        return log_probability(self.model, fed, list(map(len, texts)), last)

    def _feed(self, tokens: list[list[int]]) -> dict:
        more = torch.tensor(tokens, device=self.ids.device)
        return {
            "input_ids": more,
            "attention_mask": torch.cat([self.mask, torch.ones_like(more)], 1),
            "position_ids": self.ahead + torch.arange(more.shape[1], device=more.device),
            "past_key_values": _fork(self.cache),
        }


def _fork(cache: Cache) -> Cache:
    """A cache that grows apart from this one; what both have read is held once."""
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    return fork


def join(prefixes: Sequence[Prefix]) -> Prefix:
    """The rows of all as one batch, padded on the left to one length."""
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
        if layer.is_sliding:  # it holds the end of its rows, and counts all
            layer.cumulative_length = longest
    ahead = torch.cat([prefix.ahead for prefix in prefixes], dim=-2)
    return Prefix(model, ids, mask, ahead, cache)


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    longest = max(tensor.shape[-2] for tensor in tensors)
    return torch.cat([pad(t, (0, 0, longest - t.shape[-2], 0)) for t in tensors])


def log_probability(model, inputs: dict, ends: list[int], last: list[int]) -> torch.Tensor:
    """Log-probability of the ``last`` tokens before the end of each row of inputs, (rows,)."""
    ids, most = inputs["input_ids"], max(last)
    ends, last = (torch.tensor(n, device=ids.device).unsqueeze(1) for n in (ends, last))
    steps = torch.arange(most, device=ids.device)
    before = (ends - 1 - most + steps).clamp(min=0)  # (rows, most), where each is foretold
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=before).logits
    wanted = ids.gather(1, before + 1).unsqueeze(-1)
    found = logits.float().log_softmax(-1).gather(-1, wanted).squeeze(-1)
    return found.where(steps >= most - last, 0).sum(1)


@contextmanager
def record_last_logits(model, part: Callable = lambda last: last):
    """A part of the last logits (rows, words) of each forward pass, in a list that grows."""
    heard: list[torch.Tensor] = []
    hook = model.register_forward_hook(
        lambda module, args, output: heard.append(part(output.logits[:, -1].float()))
    )
    try:
        yield heard
    finally:
        hook.remove()
