"""Rows of a batch that go on from what was read before, each at its own length.

Replies are greedy. A step feeds each row its last token and a draft of what may come next, and
keeps of the draft what the model itself would have chosen: the reply is that of one token at a
time, in fewer steps. Rows whose reply has ended leave the batch.
"""

import copy
from collections.abc import Callable, Sequence
from os.path import commonprefix

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer
from transformers.generation import SuppressTokensLogitsProcessor

from sgvl.judges.chat.phrases import Drafter
from sgvl.judges.chat.prefix import Prefix, log_probability

ROOM = 64  # slots that are added when a row has filled its own
LEAVING = 1 / 4  # of a batch whose replies have ended, before they leave it: the rest is copied


class Slots(DynamicLayer):
    """Keys and values of a prefix with room behind them, where each row goes on at its own slot."""

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.length = self.keys.shape[-2]  # of the prefix; a sliding layer has kept its end only

    def select(self, rows: torch.Tensor, room: int) -> "Slots":
        """Return some of the rows, also one several times, to go on independently."""
        layer, more = copy.copy(self), (0, 0, 0, room)
        layer.keys, layer.values = pad(self.keys, more)[rows], pad(self.values, more)[rows]
        return layer

    def aim(self, steps: torch.Tensor, end: int) -> None:
        """Set where the next tokens go, (rows, tokens), counted from the end of the prefix."""
        self.slots, self.end = self.length + steps, self.length + end
        if (lacking := self.end - self.keys.shape[-2]) > 0:
            room = (0, 0, 0, lacking + ROOM)
            self.keys, self.values = pad(self.keys, room), pad(self.values, room)

    def update(self, keys, values, *args, **kwargs):
        rows = torch.arange(len(keys), device=keys.device)[:, None]
        self.keys[rows, :, self.slots] = keys.transpose(1, 2)
        self.values[rows, :, self.slots] = values.transpose(1, 2)
        return self.keys[:, :, : self.end], self.values[:, :, : self.end]


class Rows:
    """Rows that go on from those of a prefix, which stays as it is."""

    def __init__(self, prefix: Prefix):
        self.model, self.ids, self.mask = prefix.model, prefix.ids, prefix.mask.bool()
        self.next_position = prefix.next_position
        self.read: list[list[int]] = [[] for _ in prefix.ids]  # tokens of each row since the prefix
        self.cache = copy.copy(prefix.cache)
        self.cache.layers = list(map(Slots, prefix.cache.layers))

    def __len__(self) -> int:
        return len(self.read)

    def select(self, rows: Sequence[int], room: int = 0) -> "Rows":
        """Return some of the rows, also one several times, to go on independently.

        ``room`` is that for further tokens, which is made in the same copy.
        """
        picked, kept = copy.copy(self), torch.tensor(rows, device=self.ids.device)
        picked.ids, picked.mask = self.ids[kept], self.mask[kept]
        picked.next_position = self.next_position.index_select(-2, kept)
        picked.read = [list(self.read[row]) for row in rows]
        picked.cache = copy.copy(self.cache)
        picked.cache.layers = [layer.select(kept, room) for layer in self.cache.layers]
        return picked

    def fork(self) -> "Rows":
        """Return the same rows, to go on from while these stay: none reads past its own tokens."""
        other = copy.copy(self)
        other.read = list(map(list, self.read))
        other.cache = copy.copy(self.cache)
        other.cache.layers = list(map(copy.copy, self.cache.layers))
        return other

    def feed(self, tokens: Sequence[Sequence[int]], keep: int | torch.Tensor = 0) -> torch.Tensor:
        """Return logits after tokens that go on from each row, which they are not yet part of.

        Parameters
        ----------
        tokens : of each row; shorter ones are padded on the right
        keep : the model's ``logits_to_keep``: 0 for all
        """
        most, device = max(map(len, tokens)), self.ids.device
        lengths = list(map(len, self.read))
        steps = torch.tensor(lengths, device=device)[:, None] + torch.arange(most, device=device)
        for layer in self.cache.layers:
            layer.aim(steps, max(lengths) + most)
        with torch.no_grad():
            return self.model(
                input_ids=padded(tokens, device), attention_mask=self._masks(steps),
                position_ids=self.next_position + steps, past_key_values=self.cache,
                use_cache=True, logits_to_keep=keep,
            ).logits  # fmt: skip

    def accept(self, tokens: Sequence[Sequence[int]]) -> None:
        """Make tokens that were fed part of each row."""
        for row, own in zip(self.read, tokens, strict=True):
            row += own

    def extend(self, tokens: Sequence[Sequence[int]]) -> "Rows":
        """Read further tokens in each row."""
        if any(tokens):
            self.feed(tokens, 1)
            self.accept(tokens)
        return self

    def _masks(self, steps: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return what each token sees, added to its attention: (rows, 1, tokens, slots) by kind."""
        config, width = self.model.config.get_text_config(), self.mask.shape[1]
        kinds = getattr(config, "layer_types", None) or ["full_attention"]
        at = (width + steps)[..., None]  # columns count the padding, too
        padding = (~self.mask).sum(1)[:, None, None]
        masks = {}
        for kind, layer in zip(kinds, self.cache.layers, strict=False):
            if kind in masks:
                continue
            columns = width - layer.length + torch.arange(layer.end, device=steps.device)
            seen = columns <= at
            seen[..., : layer.length] &= self.mask[:, None, width - layer.length :]
            if kind == "sliding_attention":
                seen &= columns > at - config.sliding_window
            elif kind == "chunked_attention":
                chunk = config.attention_chunk_size
                seen &= (columns - padding) // chunk == (at - padding) // chunk
            zero = torch.zeros((), dtype=self.model.dtype, device=seen.device)
            masks[kind] = torch.where(seen, zero, torch.finfo(zero.dtype).min)[:, None]
        return masks if len(masks) > 1 else masks[kinds[0]]

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
        picked, ids = self.select(rows), padded(texts, self.ids.device)
        return log_probability(ids, list(map(len, texts)), last, lambda at: picked.feed(texts, at))

    def generate(
        self,
        tokens: list[int],
        drafters: Sequence[Drafter] = (),
        part: Callable | None = None,
        **options,
    ) -> tuple[list[list[int]], list[list]]:
        """Generate greedy replies after the same tokens in every row; the rows stay as they are.

        Parameters
        ----------
        drafters : of each row; they learn its reply. Without any, replies are written a token at a
            time
        part : function of logits (rows, tokens, vocabulary) that is recorded for each token
        options : of transformers' ``generate``, such as max_new_tokens

        Returns
        -------
        tuple
            The token ids of each reply, with the one that ends it, and what was recorded of each.
        """
        prompts = [o + r + tokens for o, r in zip(self.ids.tolist(), self.read, strict=True)]
        most, blank = max(map(len, prompts)), self.model.generation_config.pad_token_id or 0
        ids = torch.tensor([[blank] * (most - len(own)) + own for own in prompts])
        padding = [most - len(own) for own in prompts] + (~self.mask).sum(1).cpu().numpy()
        mask = (torch.arange(most) >= torch.tensor(padding)[:, None]).long()
        replies: list[list[int]] = [[] for _ in prompts]
        recorded: list[list] = [[] for _ in prompts]

        def write(model, input_ids, logits_processor, generation_config, **_) -> torch.Tensor:
            limit = generation_config.max_length - most
            ends = set(generation_config._eos_token_tensor.tolist())
            # What depends on all tokens before takes one at a time, as transformers does.
            alike = all(isinstance(one, SuppressTokensLogitsProcessor) for one in logits_processor)
            rows, here = self.fork(), list(range(len(replies)))
            last, going = [tokens] * len(here), set(here)  # what is fed before a draft

            def drafts_of(i: int) -> list[int]:
                if not (alike and drafters and i in going):
                    return []
                return drafters[i].draft(tokens, replies[i], limit - 1 - len(replies[i]))

            while going:
                drafts = list(map(drafts_of, here))
                fed = [own + more for own, more in zip(last, drafts, strict=True)]
                logits = rows.feed(fed).float()[:, len(last[0]) - 1 :]
                kept = part(logits) if part else None
                if alike:
                    scores = logits_processor(input_ids, logits.flatten(0, 1)).view(logits.shape)
                else:
                    said = padded([replies[i] for i in here], input_ids.device)
                    seen = torch.cat([input_ids, said], 1)
                    scores = logits_processor(seen, logits[:, 0])[:, None]
                chosen, accepted = scores.argmax(-1).tolist(), []
                for row, (i, own, more) in enumerate(zip(here, chosen, drafts, strict=True)):
                    right = len(commonprefix([own, more]))
                    accepted.append([*last[row], *more[:right]])
                    if i in going:
                        new = until(own[: right + 1], ends)
                        replies[i] += new
                        recorded[i] += [] if kept is None else kept[row, : len(new)]
                        if new[-1] in ends or len(replies[i]) == limit:
                            going.remove(i)
                rows.accept(accepted)
                last = [[replies[i][-1]] for i in here]
                if alike and 0 < len(going) <= (1 - LEAVING) * len(here):
                    staying = [row for row, i in enumerate(here) if i in going]
                    rows, here = rows.select(staying), [here[row] for row in staying]
                    last = [last[row] for row in staying]
            return input_ids

        self.model.generate(
            input_ids=ids.to(self.ids.device), attention_mask=mask.to(self.ids.device),
            position_ids=mask.cumsum(1).to(self.ids.device), do_sample=False,
            custom_generate=write, **options,
        )  # fmt: skip
        for drafter, reply in zip(drafters, replies, strict=False):
            drafter.learn(tokens, reply)
        return replies, recorded


def until(tokens: list[int], ends: set[int]) -> list[int]:
    """Return tokens up to the first end, with it."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def padded(tokens: Sequence[Sequence[int]], device) -> torch.Tensor:
    """Return tokens by row, (rows, tokens), with 0 behind those that are shorter."""
    most = max(map(len, tokens))
    rows = [[*own, *[0] * (most - len(own))] for own in tokens]
    return torch.tensor(rows, dtype=torch.long, device=device)
