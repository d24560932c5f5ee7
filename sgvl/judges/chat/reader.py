"""A chat model that reads the shared part of several prompts once, where it can."""

from collections.abc import Sequence

import torch

from sgvl.judges.chat.prefix import Prefix, join, record_last_logits
from sgvl.models.chat_model import ChatModel

# Largest error of the logits when a prompt is read in two parts, as a share of their size.
# Measured: rounding moves nano's by 3e-7 in float32 and 7e-3 in bfloat16, wrong positions by 8e-2.
EXACT, ROUGH = 1e-3, 0.04


class Reader(ChatModel):
    """Reads prompts about images in two parts: what several share, and the rest of each."""

    def prefix_sharing(self, prompts: Sequence[str]) -> str:
        """Find out by trying what can be read once for two prompts that differ in their policy.

        Two steps of a reply that goes on from the shared part must have the logits of a reply to
        the whole prompt. So a model without a cache, or with wrong positions, fails here and not in
        its answers.

        Returns
        -------
        str
            ``"picture"``: prompts open with the image, and each policy goes on from there.
            ``"policy"``: prompts open with the policy, and each image goes on from there.
            ``"none: "`` and the reason, where neither works.
        """
        from PIL import Image

        if self.model.generation_config.use_cache is False:
            return "none: its settings turn the cache off"
        word = self.ids(prompts[0])[-1]
        steps = {"max_new_tokens": 2, "prefix_allowed_tokens_fn": lambda *_: [word]}
        policy_first = len({self._head(prompt) for prompt in prompts}) > 1
        images = [Image.new("RGB", (320, 224), color) for color in ("teal", "white")]
        if policy_first:
            prompts = prompts[:1] * 2
        else:
            images = images[:1] * 2
        try:
            with record_last_logits(self.model) as whole:
                self.generate(images, prompts, **steps)
            with record_last_logits(self.model) as parts:
                if policy_first:
                    rows = self.add_images(images, prompts[0], self.read_before_image(prompts[0]))
                else:
                    rows = self.add_prompts(self.read_images(images[:1], prompts), prompts)
                rows.generate([word], **steps)
        except Exception as error:  # whatever this model cannot do
            return f"none: {type(error).__name__}: {error}".splitlines()[0]
        one, other = torch.stack(whole[-2:]), torch.stack(parts[-2:])
        gap = (one - other).norm() / (one - one.mean(-1, keepdim=True)).norm()
        if gap > (EXACT if self.model.dtype == torch.float32 else ROUGH):
            return f"none: after its cache its logits are {gap:.1%} off"
        return "policy" if policy_first else "picture"

    def read_whole(self, images: Sequence, prompts: Sequence[str]) -> Prefix:
        """Read each prompt with its image, except for the prompt's last token."""
        return Prefix.read(self.model, self._unfinished(images, prompts))

    def read_images(self, images: Sequence, prompts: Sequence[str]) -> Prefix:
        """Read what all prompts open with, up to the end of each image."""
        return Prefix.read(self.model, self.inputs(images, [self._head(prompts[0])] * len(images)))

    def add_prompts(self, images: Prefix, prompts: Sequence[str]) -> Prefix:
        """Go on with the rest of each prompt, except its last token; rows are (prompt, image)."""
        start = len(self.ids(self._head(prompts[0])))
        return join([images.extend(self.ids(prompt)[start:-1]) for prompt in prompts])

    def read_before_image(self, prompt: str) -> Prefix:
        """Read a prompt up to its image."""
        return Prefix.read(
            self.model, self.inputs([], [prompt[: prompt.index(self._mark(prompt))]])
        )

    def add_images(self, images: Sequence, prompt: str, before: Prefix) -> Prefix:
        """Go on with each image, all of one size, and the rest of the prompt but its last token."""
        return before.branch(self._unfinished(images, [prompt] * len(images)))

    def _unfinished(self, images: Sequence, prompts: Sequence[str]) -> dict:
        """Return the model's inputs without the last token of each prompt."""
        inputs = self.inputs(images, prompts)
        shape = inputs["input_ids"].shape
        return {k: v[:, :-1] if v.shape == shape else v for k, v in inputs.items()}

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
