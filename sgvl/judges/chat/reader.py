"""A chat model that reads the shared part of several prompts once, where it can."""

from collections.abc import Sequence
from functools import cached_property
from os.path import commonprefix

import torch
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.judges.chat.prefix import Prefix, cut, record_last_logits
from sgvl.judges.chat.rows import ROOM, Rows
from sgvl.judges.chat.tower import TYPES, Tower
from sgvl.models.chat_model import ChatModel

# Largest error of the logits when a prompt is read in two parts, as a share of their size.
# A trial's pictures have different sizes.
TRIALS = ((320, 224), "teal"), ((224, 448), "white")
# Measured: rounding moves nano's by 3e-7 in float32 and 7e-3 in bfloat16, wrong positions by 8e-2.
EXACT, ROUGH = 1e-3, 0.04


class Reader(ChatModel):
    """Reads prompts about images in two parts: what several share, and the rest of each."""

    @property
    def speaker(self):
        """Return the module that computes the logits of each step of a reply."""
        return self.model

    @property
    def window(self) -> int:
        """Return the sliding window of the model's layers in tokens, at most 2048; 0 for none."""
        text = self.model.config.get_text_config()
        slides = "sliding_attention" in (getattr(text, "layer_types", None) or [])
        return min(text.sliding_window, 2048) if slides else 0

    @cached_property
    def _tower(self) -> Tower | None:
        known = self.model.config.model_type in TYPES
        return Tower(self.model, self.processor) if known else None

    def inputs(self, images: Sequence, texts: Sequence[str]):
        """Return the model's inputs; a picture is looked at once in a process, where that is known.

        See ``ChatModel.inputs``.
        """
        flat = [one for own in images for one in (own if isinstance(own, list) else [own])]
        if not (self._tower and flat):
            return super().inputs(images, texts)
        begun = self._begun(texts[0])
        return self._tower.inputs(flat, texts, padding=True, add_special_tokens=not begun)

    def prove(self, prompts: Sequence[str]) -> str:
        """Find out by trying which ways of asking give the answers of one request at a time.

        Two pictures of different sizes under two prompts of different lengths are asked alone, then
        in one batch, then with what they share read once. Two steps of a reply must have the same
        logits, also where one is drafted and every other draft is rejected. So a model with wrong
        positions or masks, or without a cache, fails here and not in its answers.

        Parameters
        ----------
        prompts : two, that differ in their policy

        Returns
        -------
        str
            ``"picture"``: prompts open with the image, and each policy goes on from there.
            ``"policy"``: prompts open with the policy, and each image goes on from there.
            ``"none: "`` and the reason, where neither works; ``"none, one at a time: "`` where a
            batch does not work either.
        """
        images = [Image.new("RGB", size, color) for size, color in TRIALS]
        cases = [(image, prompt) for prompt in prompts for image in images]
        word, other = self.ids(prompts[0])[-1], self.ids(prompts[0])[0]
        steps = {"max_new_tokens": 2, "prefix_allowed_tokens_fn": lambda *_: [word]}

        def drafted(rows: Rows) -> torch.Tensor:
            """Return the logits of two steps, (steps, cases, words)."""
            n = range(len(rows))
            both = rows.feed([[word, other if i % 2 else word] for i in n])
            rows.accept([[word] if i % 2 else [word, word] for i in n])
            again = rows.feed([[word] for _ in n])
            second = [again[i, 0] if i % 2 else both[i, 1] for i in n]
            return torch.stack([both[:, 0], torch.stack(second)]).float()

        def plain(cases: list) -> torch.Tensor:
            with record_last_logits(self.speaker) as heard:
                self.generate(*zip(*cases, strict=True), **steps)
            return torch.stack(heard[-2:])

        tower, self._tower = self._tower, None  # from the pixels, whatever is known of pictures
        alone = torch.cat([plain([case]) for case in cases], 1)
        self._tower = tower
        if torch.equal(alone[:, ::2], alone[:, 1::2]):
            raise InputError(
                f"model {self.name!r} gives one answer to two pictures; choose another"
            )

        def gap(one: torch.Tensor, other: torch.Tensor) -> float:
            size = (one - one.mean(-1, keepdim=True)).norm(dim=-1)
            return float(((one - other).norm(dim=-1) / size).max())

        limit = EXACT if self.model.dtype == torch.float32 else ROUGH

        def problem(other: torch.Tensor) -> str:
            right = gap(alone, other) <= limit  # false for nan
            return "" if right else f"its logits are {gap(alone, other):.1%} off"

        try:
            # A deep model rounds more: measured on a batch of one case twice, without padding.
            limit = max(limit, 3 * gap(alone[:, :1], plain(cases[:1] * 2)))
            wrong = problem(plain(cases))
        except Exception as error:
            wrong = _first_line(error)
        if wrong:
            return f"none, one at a time: in a batch, {wrong}"
        if self.model.generation_config.use_cache is False:
            return "none: its settings turn the cache off"
        policy_first = len({self._head(prompt) for prompt in prompts}) > 1
        try:
            if wrong := problem(drafted(self.read_whole(*zip(*cases, strict=True)))):
                return f"none: after its cache {wrong}"
            if policy_first:
                shared = []
                for prompt in prompts:
                    opening = self.read_before_image(prompt)
                    shared += [
                        drafted(self.add_images([image] * 2, prompt, opening))[:, i : i + 1]
                        for i, image in enumerate(images)
                    ]
                shared = torch.cat(shared, 1)
            else:
                read = self.read_images(images, prompts)
                own = [prompt for prompt in prompts for _ in images]
                shared = drafted(self.add_prompts(read, [0, 1, 0, 1], own))
        except Exception as error:  # whatever this model cannot do
            return f"none: {_first_line(error)}"
        if wrong := problem(shared):
            return f"none: after its cache {wrong}"
        return "policy" if policy_first else "picture"

    def received(self, prompt: str) -> str:
        """Return the text that the model receives with a prompt: its input ids, decoded."""
        ids = self.inputs([Image.new("RGB", *TRIALS[0])], [prompt])["input_ids"][0]
        return self.processor.tokenizer.decode(ids)

    def read_whole(self, images: Sequence, prompts: Sequence[str]) -> Rows:
        """Read each prompt with its image, except for the prompt's last token."""
        prefix = Prefix.read(self.model, self._unfinished(images, prompts))
        return Rows(prefix)

    def read_images(self, images: Sequence, prompts: Sequence[str]) -> Rows:
        """Read what all prompts open with, after each image: up to its end, and on while alike."""
        head = self._head(prompts[0])
        rows = Rows(Prefix.read(self.model, self.inputs(images, [head] * len(images))))
        alike = commonprefix([self.after_image(prompt)[:-1] for prompt in set(prompts)])
        return rows.extend([alike] * len(images))

    def add_prompts(self, images: Rows, places: Sequence[int], prompts: Sequence[str]) -> Rows:
        """Go on with the rest of each prompt, but its last token, after the image at its place."""
        known = len(images.read[0])
        rest = [self.after_image(prompt)[known:-1] for prompt in prompts]
        return images.select(places, max(map(len, rest)) + ROOM).extend(rest)

    def after_image(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt after its image."""
        return self.ids(prompt)[len(self.ids(self._head(prompt))) :]

    def read_before_image(self, prompt: str) -> Prefix:
        """Read a prompt up to its image."""
        return Prefix.read(
            self.model, self.inputs([], [prompt[: prompt.index(self._mark(prompt))]])
        )

    def add_images(self, images: Sequence, prompt: str, before: Prefix) -> Rows:
        """Go on with each image, all of one size, and the rest of the prompt but its last token."""
        prefix = before.branch(self._unfinished(images, [prompt] * len(images)))
        return Rows(prefix)

    def _unfinished(self, images: Sequence, prompts: Sequence[str]) -> dict:
        """Return the model's inputs without the last token of each prompt."""
        return cut(self.inputs(images, prompts), slice(-1))

    def _mark(self, prompt: str) -> str:
        """Return the token that stands for an image in the prompt; "" if it cannot be told."""
        for name in ("boi_token", "image_token"):
            mark = getattr(self.processor, name, None)
            if mark and mark in prompt:
                return mark
        return ""

    def _head(self, prompt: str) -> str:
        """Return a prompt up to the end of its image."""
        mark = self._mark(prompt)
        return prompt[: prompt.index(mark) + len(mark)]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
