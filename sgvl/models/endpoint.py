"""The client of an OpenAI-compatible server: vLLM's `vllm serve`, or a hosted one."""

import asyncio
import base64
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import openai

from sgvl.common.errors import InputError, nearest
from sgvl.models.reply import Reply
from sgvl.text import prompts

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG")


class Requests(NamedTuple):
    """Texts to send about one picture, one after another: a prefix cache then reads it once.

    ``key`` comes back with the replies; ``open`` decodes the picture when its turn comes, or is
    None where no picture is sent.
    """

    key: object
    texts: Sequence[str]
    open: "Callable[[], Image] | None" = None


@dataclass(frozen=True)
class Endpoint:
    """Asks a server's chat completions, about several pictures at a time.

    Parameters
    ----------
    who : asks, in error messages
    model : as the server calls it
    url : up to and with ``/v1``
    image_format, max_side : how a picture is sent; ``max_side`` in pixels, 0 is as it is
    concurrency : requests at a time
    timeout : seconds for one request
    max_retries : for a time-out, a lost connection and HTTP 408, 409, 429 and 5xx; the waits are
        the openai client's own, which double from half a second and keep to Retry-After
    key_variable : environment variable that holds the key; a local server needs none. No key is
        sent unless it is named, so that one is not sent to a server that it is not for.

    Raises InputError for settings that cannot be, all at once.
    """

    who: str
    model: str
    url: str
    image_format: str
    max_side: int
    concurrency: int
    timeout: float
    max_retries: int
    key_variable: str

    def __post_init__(self):
        problems = []
        if not self.url.startswith(("http://", "https://")):
            problems.append(f"url {self.url!r} must start with http:// or https://")
        if self.image_format not in FORMATS:
            problems.append(f"image_format {self.image_format!r}; allowed: {', '.join(FORMATS)}")
        if self.concurrency < 1:
            problems.append(f"concurrency is at least 1, not {self.concurrency}")
        if self.key_variable and not os.environ.get(self.key_variable):
            problems.append(f"environment variable {self.key_variable} is not set; export it first")
        if problems:
            raise InputError(f"{self.who}: {problem}" for problem in problems)

    def replies(
        self, asked: Iterable[Requests], **settings
    ) -> Iterator[tuple[object, list[Reply]]]:
        """What each ``Requests`` is about, and its answers, as they come.

        ``settings`` go into every request (``temperature``, ``max_tokens`` and so on). Raises
        InputError, which says what to do, where no request can succeed: nobody answers at the URL,
        the key is refused, or the model is not there.

        Requests run in a thread with an event loop of its own: a notebook's is in use already.
        Closing the iterator, as an interrupt does, cancels the requests in flight.
        """
        done: SimpleQueue = SimpleQueue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._work(iter(asked), settings, done))

        def work() -> None:
            error = None
            try:
                loop.run_until_complete(task)
            except BaseException as e:
                error = e
            loop.close()
            done.put(error)

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            while isinstance(got := done.get(), tuple):
                yield got
            if isinstance(got, InputError):
                # A fresh one: behind this one stands a group of exceptions, one an address, and
                # IPython shows no error that has a group behind it as an error of its cell.
                raise InputError(got.problems)
            if got:
                raise got
        finally:
            with suppress(RuntimeError):  # the loop is closed: nothing is in flight
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _work(self, asked: Iterator[Requests], settings: dict, done: SimpleQueue) -> None:
        """``concurrency`` workers that take from one iterator: as many requests, and as many
        pictures in memory, as there are workers."""
        # The client insists on a key; servers without keys do not look at it.
        key = os.environ[self.key_variable] if self.key_variable else "none"
        patience = openai.Timeout(self.timeout, connect=min(10.0, self.timeout))
        client = openai.AsyncOpenAI(
            base_url=self.url, api_key=key, timeout=patience, max_retries=self.max_retries
        )

        async def worker() -> None:
            for key, texts, open_ in asked:
                shown = None
                if open_:
                    sent = (open_(), self.image_format, self.max_side)
                    shown = await asyncio.to_thread(data_url, *sent)
                turns = [turn(text, shown) for text in texts]
                done.put((key, [await self._ask(client, t, settings) for t in turns]))

        try:
            async with client, asyncio.TaskGroup() as group:
                await self._look_up(client)
                for _ in range(self.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _ask(self, client: openai.AsyncOpenAI, message: dict, settings: dict) -> Reply:
        """One request. A trouble of this one alone is an Reply; one of all of them is raised."""
        try:
            answer = await client.chat.completions.create(
                model=self.model, messages=[message], **settings
            )
        except openai.APITimeoutError:
            return Reply("", error="time-out")
        except openai.APIConnectionError as error:
            raise InputError(self._unreachable(error)) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403, 404):
                raise InputError(self._hint(error.status_code)) from None
            return Reply("", error=f"HTTP {error.status_code}{_said(error.body)}")
        except (openai.APIError, ValueError):
            return Reply("", error="the response is not JSON")
        return _answer(answer)

    async def _look_up(self, client: openai.AsyncOpenAI) -> None:
        """Raise InputError if the server lists its models and ours is not among them: some servers
        answer to any name. One without a list is asked all the same."""
        try:
            names = [model.id async for model in client.models.list()]
        except openai.APIConnectionError as error:
            raise InputError(self._unreachable(error)) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise InputError(self._hint(error.status_code)) from None
            return
        except (openai.APIError, ValueError, AttributeError, TypeError):  # a page of another kind
            return
        if names and self.model not in names:
            raise InputError(
                f"{self.url}: no model {self.model!r} there; {nearest(self.model, names)}"
            )

    def _unreachable(self, error: Exception) -> str:
        return (
            f"{self.url}: no connection ({error.__cause__ or error}). Start the server or mend "
            "`url`, and run again: finished answers are kept"
        )

    def _hint(self, status: int) -> str:
        if status == 404:
            return (
                f"{self.url}: HTTP 404: no model {self.model!r} there, or no chat completions; "
                f"see {self.url}/models for its models, and let `url` end in /v1"
            )
        named = f"the key in {self.key_variable}" if self.key_variable else "a request without key"
        return (
            f"{self.url}: HTTP {status}: {named} was not accepted; export a key and name its "
            "environment variable in `key_variable`"
        )


def turn(text: str, shown: str | None = None) -> dict:
    """One user turn of the protocol, the picture, a data URL, where ``illustrated`` puts it."""
    message = prompts.illustrated(text, [shown] if shown else [])
    blocks = [
        {"type": "image_url", "image_url": {"url": block["image"]}} if "image" in block else block
        for block in message["content"]
    ]
    return {**message, "content": blocks}


def data_url(image: "Image", image_format: str = "JPEG", max_side: int = 0) -> str:
    """An RGB picture as a base64 data URL; ``max_side`` in pixels shrinks it, 0 leaves it."""
    if max_side and max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side))
    file = io.BytesIO()
    how = {"quality": 95} if image_format == "JPEG" else {"compress_level": 1}  # quick to write
    image.save(file, image_format, **how)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{image_format.lower()};base64,{encoded}"


def _said(body: object) -> str:
    """What the server gave as its reason, in short: a 400 can be a picture or a setting."""
    said = body.get("message") if isinstance(body, dict) else None
    return f" ({str(said)[:200]})" if said else ""


def _answer(answer) -> Reply:
    """What a chat completion holds, which the client has not checked: any JSON gets here, and any
    page of text."""
    if isinstance(answer, str):
        return Reply("", error="the response is not JSON")
    try:
        choice = answer.choices[0]
        refusal, text = getattr(choice.message, "refusal", None), choice.message.content
        finish = choice.finish_reason
    except (AttributeError, IndexError, TypeError, KeyError):
        return Reply("", error="the response holds no answer")
    if refusal:
        return Reply(str(refusal), "refusal")
    if not isinstance(text, str | None):
        return Reply("", error="the response holds no text")
    return Reply(text or "", str(finish or "stop"), tokens=_tokens(choice))


def _tokens(choice) -> tuple:
    """The tokens of a choice, with the likeliest at each place; none where any is not as asked."""
    try:
        return tuple(
            (str(place.token), tuple((str(o.token), float(o.logprob)) for o in place.top_logprobs))
            for place in choice.logprobs.content
        )
    except (AttributeError, TypeError, ValueError):
        return ()
