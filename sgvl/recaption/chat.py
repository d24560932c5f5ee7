"""A captioner in this process: any vision-language model that transformers can load."""

from collections.abc import Sequence

from pydantic import PositiveInt

from sgvl.common.types import Device, Dtype
from sgvl.judges.base import Results
from sgvl.models.chat_model import ChatModel
from sgvl.recaption.base import Captioner, Item
from sgvl.text import prompts


class ChatCaptioner(Captioner):
    """Sends each picture and the prompt to a model in its chat template, and decodes greedily.

    Parameters
    ----------
    model, revision, dtype, device : see ``sgvl.models.chat_model.ChatModel``
    prompt : ``"caption"`` (step 1), or a name in ``prompts.RECAPTION`` (step 2)
    name : printed in tables; by default the model's
    max_tokens : length limit of a reply
    batch_size : pictures in one forward pass
    max_pixels : of a picture, as for the chat judge

    Raises
    ------
    InputError
        For an unknown prompt, before the model is loaded.
    """

    def __init__(
        self,
        model: str = "nano",
        prompt: str = "caption",
        name: str | None = None,
        revision: str | None = None,
        max_tokens: PositiveInt = 256,
        batch_size: PositiveInt = 32,
        dtype: Dtype = "float32",
        device: Device = "cpu",
        max_pixels: PositiveInt | None = None,
    ):
        prompts.caption_prompt(prompt)
        self.name, self.prompt, self.max_tokens = name or model, prompt, max_tokens
        self.batch_size = batch_size
        self.chat = ChatModel(model, revision, dtype, device, max_pixels)

    def identity(self) -> dict:
        request = {"prompt": prompts.caption_prompt(self.prompt), "max_tokens": self.max_tokens}
        return {"kind": "chat", **self.chat.identity(), **request}

    def request(self, item: Item) -> str:
        return prompts.caption_prompt(self.prompt, item.caption)

    def results(self, items: Sequence[Item]) -> Results:
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            images, texts = [item.open() for item in batch], list(map(self.request, batch))
            (replies,) = self.chat.replies(images, texts, self.max_tokens, len(batch))
            yield [(i, reply, reply.error) for i, reply in enumerate(replies, start)]
