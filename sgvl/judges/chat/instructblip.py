"""InstructBLIP: no chat template, and a Q-Former that reads the question to look at the image."""

import warnings
from collections.abc import Sequence

from pydantic import PositiveInt

from sgvl.common.types import Device, Dtype
from sgvl.judges.base import Form
from sgvl.judges.chat.judge import ChatJudge
from sgvl.judges.chat.reader import Reader

END = "\nAnswer:"  # closes a request; what follows it is the reply


class InstructBlipReader(Reader):
    """Reads a request and its image, one at a time."""

    @property
    def speaker(self):
        return self.model.language_model

    def prompt(self, message: dict, template: str | None = None, **elsewhere) -> str:
        return "".join(block.get("text", "") for block in message["content"]) + END

    def prove(self, prompts: Sequence[str]) -> str:
        return "none, one at a time: the image is read anew with each request"

    def inputs(self, images: Sequence, texts: Sequence[str]):
        """Return the model's inputs; the Q-Former gets the request, up to its limit."""
        images = [image[0] if isinstance(image, list) else image for image in images]
        batch = self.processor(text=list(texts), images=images, padding=True, return_tensors="pt")
        limit = self.model.config.qformer_config.max_position_embeddings
        requests = [text[: text.rindex(END) + len(END)] for text in texts]
        read = self.processor.qformer_tokenizer(
            requests, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        batch |= {f"qformer_{k}": read[k] for k in ("input_ids", "attention_mask")}
        return batch.to(self.model.device, self.model.dtype)

    def _tokens(self, images: Sequence) -> int:
        return self.processor.num_query_tokens * len(images)

    def generate(self, images: Sequence, texts: Sequence[str], **options) -> list[list[int]]:
        tokenizer = self.processor.tokenizer  # the hub's settings name other ids
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        return super().generate(images, texts, **ends, **options)


class InstructBlipJudge(ChatJudge):
    """Asks InstructBLIP for one word.

    Its Q-Former reads at most 512 tokens of a request: a warning says of which policy it reads a
    part only. The language model reads the whole.

    Parameters
    ----------
    model : a hub id or a folder
    id, revision, policy_form, max_new_tokens, with_p_unsafe, dtype, device : see ``ChatJudge``
    """

    reader_class = InstructBlipReader

    def __init__(
        self,
        id: str = "instructblip",
        model: str = "Salesforce/instructblip-vicuna-7b",
        revision: str | None = None,
        policy_form: Form = "full",
        max_new_tokens: PositiveInt = 10,
        with_p_unsafe: bool = True,
        dtype: Dtype = "float32",
        device: Device = "cpu",
    ):
        super().__init__(
            id, model, revision, "word", policy_form, "word", max_new_tokens, with_p_unsafe, 1,
            dtype, device,
        )  # fmt: skip
        self._cut: set[str] = set()

    def identity(self) -> dict:
        return super().identity() | {"kind": "instructblip"}

    def _prompt(self, policy) -> str:
        prompt = super()._prompt(policy)
        tokens = len(self.processor.qformer_tokenizer(prompt).input_ids)
        limit = self.model.config.qformer_config.max_position_embeddings
        if tokens > limit and policy.name not in self._cut:
            self._cut.add(policy.name)
            cut = f"the Q-Former reads {limit} of {tokens} tokens of policy {policy.name}"
            warnings.warn(f"judge {self.id}: {cut}", stacklevel=2)
        return prompt
