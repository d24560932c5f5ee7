"""A captioner behind an OpenAI-compatible server: vLLM with any model, or a hosted one."""

import asyncio
import base64
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import openai

from sgvl import prompts
from sgvl.errors import InputError
from sgvl.recaption.base import Captioner, Item, Reply

FORMATS = ("JPEG", "PNG")


class EndpointCaptioner(Captioner):
    """Asks a server's chat completions, several at a time.

    Parameters
    ----------
    model : as the server calls it
    url : up to and with ``/v1``
    prompt : ``"caption"``, or a name in ``prompts.RECAPTION``
    image : whether the picture is sent; if not, only the caption is
    image_format, max_side : how it is sent; ``max_side`` in pixels, 0 is as it is
    image_tokens : what a picture costs in tokens, for estimates (256 in Gemma 3)
    seed : of the server's sampling; None sends none, for servers that know no seed
    concurrency : requests at a time
    timeout : seconds for one request
    max_retries : for a time-out, a lost connection and HTTP 408, 409, 429 and 5xx; the waits are
        the openai client's own, which double from half a second and keep to Retry-After
    key_variable : environment variable that holds the key; a local server needs none. No key is
        sent unless it is named, so that one is not sent to a server that it is not for.

    The URL is not part of the identity: a server that moves keeps its answers.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8000/v1",
        prompt: str = "minimal_edit",
        name: str | None = None,
        image: bool = True,
        image_format: str = "JPEG",
        max_side: int = 0,
        image_tokens: int = 256,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        max_retries: int = 5,
        key_variable: str = "",
    ):
        prompts.caption_prompt(prompt)
        problems = []
        if not url.startswith(("http://", "https://")):
            problems.append(f"url {url!r} must start with http:// or https://")
        if image_format not in FORMATS:
            problems.append(f"image_format {image_format!r}; allowed: {', '.join(FORMATS)}")
        if concurrency < 1:
            problems.append(f"concurrency is at least 1, not {concurrency}")
        if key_variable and not os.environ.get(key_variable):
            problems.append(f"environment variable {key_variable} is not set; export it first")
        if problems:
            raise InputError(f"captioner endpoint: {problem}" for problem in problems)
        self.name, self.model, self.url, self.prompt = name or model, model, url, prompt
        self.image, self.image_tokens = image, image_tokens if image else 0
        self.image_format, self.max_side = image_format, max_side
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed
        self.concurrency, self.timeout, self.max_retries = concurrency, timeout, max_retries
        self.key_variable = key_variable

    def identity(self) -> dict:
        return {
            "kind": "endpoint",
            "model": self.model,
            "prompt": prompts.caption_prompt(self.prompt),
            "image": [self.image_format, self.max_side] if self.image else None,
            **self._settings(),
        }

    def question(self, item: Item) -> str:
        return prompts.caption_prompt(self.prompt, item.caption)

    def answers(self, items: Sequence[Item]) -> Iterator[list[tuple[Item, Reply]]]:
        """Requests run in a thread with an event loop of its own: a notebook's is in use already.

        Closing the iterator, as an interrupt does, cancels the requests in flight.
        """
        done: SimpleQueue = SimpleQueue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._work(iter(items), done))

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
                yield [got]
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

    async def _work(self, items: Iterator[Item], done: SimpleQueue) -> None:
        """``concurrency`` workers that take from one iterator: as many requests, and as many
        pictures in memory, as there are workers."""
        # The client insists on a key; servers without keys do not look at it.
        key = os.environ[self.key_variable] if self.key_variable else "none"
        patience = openai.Timeout(self.timeout, connect=min(10.0, self.timeout))
        client = openai.AsyncOpenAI(
            base_url=self.url, api_key=key, timeout=patience, max_retries=self.max_retries
        )

        async def worker() -> None:
            for item in items:
                done.put((item, await self._ask(client, item)))

        try:
            async with client, asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _settings(self) -> dict:
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return settings if self.seed is None else settings | {"seed": self.seed}

    async def _ask(self, client: openai.AsyncOpenAI, item: Item) -> Reply:
        """One request. A trouble of this item alone is a Reply; one of all of them is raised."""
        content = [{"type": "text", "text": self.question(item)}]
        if self.image:
            url = data_url(item.open(), self.image_format, self.max_side)
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        turn = {"role": "user", "content": content}
        try:
            answer = await client.chat.completions.create(
                model=self.model, messages=[turn], **self._settings()
            )
        except openai.APITimeoutError:
            return Reply("", error="time-out")
        except openai.APIConnectionError as error:
            raise InputError(
                f"{self.url}: no connection ({error.__cause__ or error}). Start the server or mend "
                "`url`, and run again: finished answers are kept"
            ) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403, 404):
                raise InputError(self._hint(error.status_code)) from None
            return Reply("", error=f"HTTP {error.status_code}{_said(error.body)}")
        except (openai.APIError, ValueError):
            return Reply("", error="the response is not JSON")
        return _reply(answer)

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


def _said(body: object) -> str:
    """What the server gave as its reason, in short: a 400 can be a picture or a setting."""
    said = body.get("message") if isinstance(body, dict) else None
    return f" ({str(said)[:200]})" if said else ""


def _reply(answer) -> Reply:
    """The reply in a chat completion, which the client has not checked: any JSON gets here."""
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
    return Reply(text or "", str(finish or "stop"))


def data_url(image, image_format: str = "JPEG", max_side: int = 0) -> str:
    """An RGB picture as a base64 data URL; ``max_side`` in pixels shrinks it, 0 leaves it."""
    if max_side and max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side))
    file = io.BytesIO()
    image.save(file, image_format, **({"quality": 95} if image_format == "JPEG" else {}))
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{image_format.lower()};base64,{encoded}"
