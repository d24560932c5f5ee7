"""How a vision-language model reads turns about pictures, each part of them once where it can.

A *turn* is the text of one user turn in the model's own chat template; its picture is one token.
"""

from collections.abc import Sequence

import torch

from sgvl.judges.chat.prefix import Prefix, join, record_last_logits
from sgvl.models import loading
from sgvl.text import prompts

# How far logits may be off when reading is cut in two, as a share of their size: rounding alone was
# seen to move nano's by 3e-7 in float32 and 7e-3 in bfloat16, wrong positions by 8e-2 and more.
EXACT, ROUGH = 1e-3, 0.04


class Reader:
    """A model and its processor."""

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    def turn(self, message: dict) -> str:
        """A message of ``sgvl.text.prompts`` as a turn, the control tokens in its texts broken."""
        return self.processor.apply_chat_template(
            [{**message, "content": list(map(self._inert, message["content"]))}],
            add_generation_prompt=True,
            tokenize=False,
        )

    def _inert(self, block: dict) -> dict:
        if "text" not in block:
            return block
        tokens = loading.control_tokens(self.processor)
        return {**block, "text": prompts.inert(block["text"], tokens)}

    def inputs(self, images: Sequence, turns: Sequence[str]):
        """What the model takes, padded on the left; one picture a turn, or a list of them."""
        batch = self.processor(
            text=list(turns), images=list(images) or None, padding=True, return_tensors="pt"
        )
        return batch.to(self.model.device)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, its picture one token."""
        return self.processor.tokenizer(text).input_ids

    def text(self, tokens: list[int]) -> str:
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def generate(self, images: Sequence, turns: Sequence[str], **options) -> list[list[int]]:
        """Token ids of the greedy replies, every turn read whole, up to the longest."""
        inputs = self.inputs(images, turns)
        out = self.model.generate(**inputs, do_sample=False, **options)
        return out[:, inputs["input_ids"].shape[1] :].tolist()

    def prefix_sharing(self, turns: Sequence[str]) -> str:
        """What is read once for turns like these two, which differ in their policies alone.

        ``"picture"``: its turns open with it, and each policy goes on from there. ``"policy"``:
        they open with the policy, and each picture does. Else ``"none: "`` and why.

        Found by trying: two steps of a reply that goes on from what was shared must have the logits
        of one to a turn that is read whole. A model without a cache, or with positions that are not
        told right, fails here and not in its answers.
        """
        from PIL import Image

        if self.model.generation_config.use_cache is False:
            return "none: its settings turn the cache off"
        word = self.ids(turns[0])[-1]
        steps = {"max_new_tokens": 2, "prefix_allowed_tokens_fn": lambda *_: [word]}
        policy_first = len({self._head(turn) for turn in turns}) > 1
        images = [Image.new("RGB", (320, 224), color) for color in ("teal", "white")]
        if policy_first:
            turns = turns[:1] * 2
        else:
            images = images[:1] * 2
        try:
            with record_last_logits(self.model) as whole:
                self.generate(images, turns, **steps)
            with record_last_logits(self.model) as parts:
                if policy_first:
                    rows = self.about(images, turns[0], self.opening(turns[0]))
                else:
                    rows = self.under(self.seen(images[:1], turns), turns)
                rows.generate([word], **steps)
        except Exception as error:  # whatever it is that this model cannot do
            return f"none: {type(error).__name__}: {error}".splitlines()[0]
        one, other = torch.stack(whole[-2:]), torch.stack(parts[-2:])
        gap = (one - other).norm() / (one - one.mean(-1, keepdim=True)).norm()
        if gap > (EXACT if self.model.dtype == torch.float32 else ROUGH):
            return f"none: after its cache its logits are {gap:.1%} off"
        return "policy" if policy_first else "picture"

    def whole(self, images: Sequence, turns: Sequence[str]) -> Prefix:
        """Each turn but for its last token, about its own picture."""
        return Prefix.read(self.model, self._unfinished(images, turns))

    def seen(self, images: Sequence, turns: Sequence[str]) -> Prefix:
        """What all turns open with, up to the end of each picture."""
        return Prefix.read(self.model, self.inputs(images, [self._head(turns[0])] * len(images)))

    def under(self, seen: Prefix, turns: Sequence[str]) -> Prefix:
        """The rest of each turn but for its last token, about each picture: (turn, picture)."""
        start = len(self.ids(self._head(turns[0])))
        return join([seen.then(self.ids(turn)[start:-1]) for turn in turns])

    def opening(self, turn: str) -> Prefix:
        """A turn up to its picture."""
        return Prefix.read(self.model, self.inputs([], [turn[: turn.index(self._mark(turn))]]))

    def about(self, images: Sequence, turn: str, opening: Prefix) -> Prefix:
        """The rest of the turn but for its last token, about each picture, all of one size."""
        return opening.onto(self._unfinished(images, [turn] * len(images)))

    def _unfinished(self, images: Sequence, turns: Sequence[str]) -> dict:
        """What the model takes, but for the last token of each turn."""
        inputs = self.inputs(images, turns)
        shape = inputs["input_ids"].shape
        return {k: v[:, :-1] if v.shape == shape else v for k, v in inputs.items()}

    def _mark(self, turn: str) -> str:
        """The token that stands for a picture in the turn; empty if that cannot be told."""
        for name in ("boi_token", "image_token"):
            mark = getattr(self.processor, name, None)
            if mark and mark in turn:
                return mark
        return ""

    def _head(self, turn: str) -> str:
        """A turn up to the end of its picture."""
        mark = self._mark(turn)
        return turn[: turn.index(mark) + len(mark)]
