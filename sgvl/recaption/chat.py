"""A captioner on this machine: any vision-language model that transformers can load."""

from collections.abc import Iterator, Sequence

from sgvl.judges.chat.judge import ChatJudge
from sgvl.models.reply import Reply
from sgvl.recaption.base import Captioner, Item
from sgvl.text import prompts


class ChatCaptioner(Captioner):
    """Asks a model in its own chat template, with the picture, and decodes greedily.

    ``prompt="caption"`` is step 1, the names in ``prompts.RECAPTION`` are step 2. ``model`` is
    ``"nano"``, a folder, or a hub id. Raises InputError for an unknown prompt before it is loaded.
    """

    def __init__(
        self,
        model: str = "nano",
        prompt: str = "caption",
        name: str | None = None,
        revision: str | None = None,
        max_tokens: int = 256,
        batch_size: int = 32,
        dtype: str = "float32",
        device: str = "cpu",
    ):
        prompts.caption_prompt(prompt)
        self.name, self.prompt, self.max_tokens = name or model, prompt, max_tokens
        self.batch_size = batch_size
        options = {"revision": revision, "dtype": dtype, "device": device}
        self.chat = ChatJudge(model=model, max_new_tokens=max_tokens, **options)

    def identity(self) -> dict:
        of_judges = ("kind", "prompt", "policy_form", "parser", "max_new_tokens")
        model = {k: v for k, v in self.chat.identity().items() if k not in of_judges}
        asked = {"prompt": prompts.caption_prompt(self.prompt), "max_tokens": self.max_tokens}
        return {"kind": "chat"} | model | asked

    def question(self, item: Item) -> str:
        return prompts.caption_prompt(self.prompt, item.caption)

    def answers(self, items: Sequence[Item]) -> Iterator[list[tuple[Item, Reply]]]:
        for start in range(0, len(items), self.batch_size):
            part = items[start : start + self.batch_size]
            texts = self.chat.ask([i.open() for i in part], [self.question(i) for i in part])
            yield [(i, self._reply(text)) for i, text in zip(part, texts, strict=True)]

    def _reply(self, text: str) -> Reply:
        written = len(self.chat.processor.tokenizer(text, add_special_tokens=False).input_ids)
        return Reply(text, "length" if written >= self.max_tokens else "stop")
