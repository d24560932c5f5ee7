"""A vision-language model in this process: prompts in its own chat template, greedy replies."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.models import loading
from sgvl.models.reply import OfRequest, Reply
from sgvl.text import prompts

# By architecture, the tokens of a turn: around its role, at its end, and for an image.
GUARDS = {
    "mllama": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>"),
    "llama4": ("<|header_start|>", "<|header_end|>", "<|eot|>", "<|image|>"),
}
TEXTS = 1000  # whose token ids are kept: prompts come many times
BLANK = "{{ '\\n\\n' }}"  # a template loses the line break at its end


class ChatModel:
    """A model of transformers with its processor.

    A *prompt* here is the text of one user turn in the model's chat template; an image in it is one
    token, which the processor expands.

    Parameters
    ----------
    model : ``"nano"``, a folder, or a hub id
    revision : branch, tag or commit of a hub model; None is main
    dtype : of the weights, such as ``"float32"`` or ``"bfloat16"``
    device : where the model runs, such as ``"cpu"`` or ``"cuda"``
    max_pixels : see ``loading.limit_pixels``

    Raises
    ------
    InputError
        If the model is not there, not whole, or changes while it is loaded.
    """

    def __init__(
        self,
        model: str | Path = "nano",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        max_pixels: int | None = None,
    ):
        self.name, self.revision, self.dtype = str(model), revision, dtype
        commit, before = loading.pin(model, revision), loading.stamps(model)
        self.model, self.processor = loading.load(model, commit, dtype, device)
        loading.limit_pixels(model, self.processor, max_pixels)
        self._ids = lru_cache(TEXTS)(self._encoded)
        self._tokens_of = lru_cache(TEXTS)(self._counted)
        self.weights = commit or loading.digest(model)
        if loading.stamps(model) != before:
            raise InputError(f"model {self.name!r} changed while it was loaded; run again")

    @property
    def guard_turn(self) -> str | None:
        """The template of a bare user turn, for models whose own one holds a policy of its maker.

        None for other models.
        """
        tokens = GUARDS.get(self.model.config.model_type)
        if not tokens:
            return None
        opens, shuts, ends, image = tokens
        turn = f"{{{{ b.text if b.type == 'text' else '{image}' }}}}"
        return (
            f"{{{{ bos_token }}}}{opens}user{shuts}{BLANK}"
            f"{{% for b in messages[0].content %}}{turn}{{% endfor %}}"
            f"{ends}{opens}assistant{shuts}{BLANK}"
        )

    def identity(self, template: str | None = None) -> dict:
        """Return what decides a reply besides the prompt: weights, dtype, pixels, template.

        ``template`` is the one in use, if it is not the model's own.
        """
        template = template or self.processor.chat_template or ""
        return {
            "model": self.name,
            "revision": self.revision,
            "weights": self.weights,
            "dtype": self.dtype,
            "pixels": dict(self.processor.image_processor.size),
            "template": hashlib.sha256(template.encode()).hexdigest(),
        } | loading.backend(self.processor)

    def prompt(self, message: dict, template: str | None = None, **elsewhere) -> str:
        """Render a message of ``sgvl.text.prompts`` with the chat template, or with another one.

        Control tokens in its texts are broken up, so that they are read as plain text. What goes
        ``elsewhere`` is a system turn, as ``system``, or variables of the template.
        """
        tokens = loading.control_tokens(self.processor)
        content = [
            {**block, "text": prompts.inert(block["text"], tokens)} if "text" in block else block
            for block in message["content"]
        ]
        elsewhere = {
            place: prompts.inert(value, tokens) if isinstance(value, str) else value
            for place, value in elsewhere.items()
        }
        turns = [{**message, "content": content}]
        if system := elsewhere.pop("system", ""):
            blocks = [{"type": "text", "text": system}]
            turns = [{"role": "system", "content": blocks}, *turns]
        return self.processor.apply_chat_template(
            turns, template, add_generation_prompt=True, tokenize=False, **elsewhere
        )

    def inputs(self, images: Sequence, texts: Sequence[str]):
        """Return the model's inputs for a batch of prompts, padded on the left.

        ``images`` holds one image a prompt, or a list of images a prompt.
        """
        nested = [image if isinstance(image, list) else [image] for image in images]
        batch = self.processor(
            text=list(texts), images=nested or None, padding=True, return_tensors="pt",
            add_special_tokens=not self._begun(texts[0]),
        )  # fmt: skip
        return batch.to(self.model.device, self.model.dtype)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text; an image in it is one token."""
        return list(self._ids(text))

    def _encoded(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=not self._begun(text)).input_ids

    def _begun(self, text: str) -> bool:
        """Check whether a chat template has written the first token, which is not to come twice."""
        first = self.processor.tokenizer.bos_token
        return bool(first) and text.startswith(first)

    def text(self, tokens: Sequence[int]) -> str:
        """Decode token ids, without special tokens and outer white space."""
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def over_context(self, text: str, images: Sequence, new_tokens: int) -> str:
        """Say by how much a prompt with its pictures and the reply exceed the context; "" if not.

        Parameters
        ----------
        text : a prompt, in which each picture is one token
        new_tokens : length limit of the reply
        """
        config = self.model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        of_text, of_images = len(self.ids(text)) - len(images), self._tokens(images)
        if context is None or of_text + of_images + new_tokens <= context:
            return ""
        return OfRequest(
            f"{of_images} tokens of the picture, {of_text} of the prompt and {new_tokens} of the "
            f"reply exceed the context of {context}; set max_pixels, or leave the picture out"
        )

    def _tokens(self, images: Sequence) -> int:
        """Return the number of tokens of pictures; 0 for a model that does not say."""
        return self._tokens_of(tuple((image.height, image.width) for image in images))

    def _counted(self, sizes: tuple[tuple[int, int], ...]) -> int:
        count = getattr(self.processor, "_get_num_multimodal_tokens", None)
        return sum(count(image_sizes=sizes).num_image_tokens) if count and sizes else 0

    def generate(self, images: Sequence, texts: Sequence[str], **options) -> list[list[int]]:
        """Return the token ids of replies to a batch, each padded to the longest.

        They are greedy unless ``options`` of transformers say ``do_sample``.
        """
        inputs = self.inputs(images, texts)
        out = self.model.generate(**inputs, **{"do_sample": False, **options})
        return out[:, inputs["input_ids"].shape[1] :].tolist()

    def replies(
        self,
        images: Sequence,
        texts: Sequence[str],
        max_new_tokens: int,
        batch_size: int = 32,
        generate: Callable | None = None,
    ) -> Iterator[list[Reply]]:
        """Yield the greedy replies to plain requests, ``batch_size`` at a time, in order.

        A request over the context is not sent: its reply has an error.

        Each entry of ``images`` is one image, which stands before the text, or a list of images,
        placed where the text names them (see ``prompts.illustrated``). ``generate`` takes the place
        of the method of this name.
        """
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            messages = list(map(_message, texts[part], images[part]))
            pictures = [[b["image"] for b in m["content"] if "image" in b] for m in messages]
            requests = list(map(self.prompt, messages))
            errors = [
                self.over_context(text, own, max_new_tokens)
                for text, own in zip(requests, pictures, strict=True)
            ]
            batch = [Reply("", error=error) for error in errors]
            if fit := [k for k, error in enumerate(errors) if not error]:
                own = [pictures[k] for k in fit], [requests[k] for k in fit]
                replies = (generate or self.generate)(*own, max_new_tokens=max_new_tokens)
                for k, tokens in zip(fit, replies, strict=True):
                    batch[k] = Reply(self.text(tokens), self._finish(tokens))
            yield batch

    def _finish(self, tokens: list[int]) -> str:
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return "stop" if any(end in tokens for end in ends) else "length"


def _message(text: str, images) -> dict:
    place = prompts.illustrated if isinstance(images, list) else prompts.message
    return place(prompts.inert(text, ["<|"]), images)
