"""What is asked of an OpenAI-compatible server, and how its responses are read.

``CHAT`` completes chats; a ``Protocol`` of another name asks for something else.
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import openai

from sgvl.models.reply import Reply
from sgvl.text import prompts

if TYPE_CHECKING:
    from PIL.Image import Image

ONLY_THOUGHT = (
    "the reply is empty, all its text is in the field for reasoning; allow more tokens, or start "
    "the server without a reasoning parser"
)


class Protocol(NamedTuple):
    """What is asked of a server.

    Parameters
    ----------
    name : of what it offers, in error messages
    write : makes a request of a text and the data URLs of its pictures, but for the model
    send : sends a request with its model and settings, by the client's own means
    read : reads a response, which can be any JSON, or any text
    """

    name: str
    write: Callable[[str, Sequence[str]], dict]
    send: Callable[[openai.OpenAI, dict], object]
    read: Callable[[object], Reply]


def turn(text: str, image_urls: Sequence[str] = ()) -> dict:
    """Return one user turn of the protocol, pictures placed as ``prompts.illustrated`` does."""
    message = prompts.illustrated(text, image_urls)
    blocks = [
        {"type": "image_url", "image_url": {"url": block["image"]}} if "image" in block else block
        for block in message["content"]
    ]
    return {**message, "content": blocks}


def chat_request(text: str, image_urls: Sequence[str] = ()) -> dict:
    """Return a request for a chat completion: what ``prompts.addressed`` finds, each in its place.

    Variables of a chat template go where vLLM and others take them, in ``chat_template_kwargs``.
    """
    elsewhere, text = prompts.addressed(text)
    system = elsewhere.pop("system", "")
    opening = [{"role": "system", "content": system}] if system else []
    more = {"extra_body": {"chat_template_kwargs": elsewhere}} if elsewhere else {}
    return {"messages": [*opening, turn(text, image_urls)], **more}


def data_url(image: "Image", image_format: str, max_side: int) -> str:
    """Encode an RGB picture as a base64 data URL; ``max_side`` in pixels shrinks it, 0 does not."""
    if max_side and max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side))
    file = io.BytesIO()
    options = {"quality": 95} if image_format == "JPEG" else {"compress_level": 1}  # fast
    image.save(file, image_format, **options)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{image_format.lower()};base64,{encoded}"


def _read(completion) -> Reply:
    """Read a chat completion, which the client does not check: it can be any JSON, or any text."""
    if isinstance(completion, str):
        return Reply("", error="the response is not JSON")
    try:
        choice = completion.choices[0]
        refusal, text = getattr(choice.message, "refusal", None), choice.message.content
        finish = choice.finish_reason
        fields = vars(choice.message) | (choice.message.model_extra or {})
    except (AttributeError, IndexError, TypeError, KeyError):
        return Reply("", error="the response holds no answer")
    if refusal:
        return Reply(str(refusal), "refusal")
    if not isinstance(text, str | None):
        return Reply("", error="the response holds no text")
    if not text and (fields.get("reasoning_content") or fields.get("reasoning")):
        return Reply("", error=ONLY_THOUGHT)
    return Reply(text or "", str(finish or "stop"), tokens=_tokens(choice))


def _tokens(choice) -> tuple:
    """Return a choice's tokens with the likeliest alternatives of each; () if any is malformed."""
    try:
        tokens = tuple(
            (str(token.token), tuple((str(o.token), float(o.logprob)) for o in token.top_logprobs))
            for token in choice.logprobs.content
        )
    except (AttributeError, TypeError, ValueError, OverflowError):
        return ()
    # Neither nan nor a number far above 0 is the logarithm of a probability.
    return tokens if all(p <= 1 for _, likeliest in tokens for _, p in likeliest) else ()


CHAT = Protocol(
    "chat completions",
    chat_request,
    lambda client, request: client.chat.completions.create(**request),
    _read,
)
