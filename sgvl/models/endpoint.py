"""The client of an OpenAI-compatible server: vLLM's `vllm serve`, or a hosted one."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import httpx2
import openai
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from sgvl.common.errors import InputError, Unreachable, nearest
from sgvl.models.protocol import CHAT, Protocol, data_url
from sgvl.models.reply import REFUSED, Filtered, Refused, Reply

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG")
MOST = 32_000_000  # bytes of a response; one of 1,024 tokens with log-probabilities has 4 million
FOR_GOOD = (400, 413, 415, 422)  # what a server would answer to the same request again
FILTER = re.compile(r"content.?(filter|policy|management)|moderation|safety system", re.IGNORECASE)
RENAMED = "max_completion_tokens"  # what some servers call ``max_tokens``, and ask for by name
DETAIL = 200  # characters of a server's own message that are kept
GRACE = 1.0  # seconds that a closed iterator waits for the requests in flight
TRIES = 3  # requests for one reply, where a reader of replies may ask again
KEY_LENGTH = 8  # a shorter key, such as EMPTY, is no secret, and can be a part of any word


class Requests(NamedTuple):
    """Texts to send about one picture, one after another: a prefix cache then reads it once.

    ``key`` comes back with the replies; ``open`` decodes the picture when its turn comes, or is
    None where no picture is sent.
    """

    key: object
    texts: Sequence[str]
    open: "Callable[[], Image | list[Image]] | None" = None


class Settings(TypedDict, total=False):
    """The settings of an ``Endpoint`` that parameter files may give, with their types."""

    image_format: str
    max_side: NonNegativeInt
    concurrency: PositiveInt
    timeout: PositiveFloat
    max_retries: NonNegativeInt
    key_variable: str


class Unusable(Exception):
    """A response that is not read to its end."""


class Limited(httpx2.SyncByteStream):
    """The body of a response, up to a number of bytes and seconds."""

    def __init__(self, stream, seconds: float):
        self.stream, self.end = stream, time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for part in self.stream:
            read += len(part)
            if read > MOST:
                raise Unusable(f"the response is over {MOST // 10**6} MB")
            if time.monotonic() > self.end:
                raise httpx2.ReadTimeout("the response took too long")
            yield part

    def close(self) -> None:
        """Close the connection, or give it back."""
        self.stream.close()


@dataclass(frozen=True)
class Endpoint:
    """A server, which gets requests about several pictures at a time.

    Parameters
    ----------
    client : name of the judge or captioner that sends the requests; error messages start with it
    model : name under which the server serves the model
    url : base URL up to and including ``/v1``
    image_format, max_side : encoding of a picture; ``max_side`` in pixels, 0 keeps its size
    concurrency : number of pictures at a time, each with one request at a time
    timeout : seconds for one request, from its first byte to the last of its response
    max_retries : for a time-out, a lost connection and HTTP 408, 409, 429 and 5xx. The openai
        client's own waits apply: they double from half a second, and follow Retry-After.
    key_variable : environment variable that holds the API key; "" sends none, so that a key never
        goes to a server that it is not for
    protocol : what is asked of it

    Raises
    ------
    InputError
        For invalid settings, all at once.
    """

    client: str
    model: str
    url: str
    image_format: str = "PNG"
    max_side: int = 0
    concurrency: int = 8
    timeout: float = 120.0
    max_retries: int = 5
    key_variable: str = ""
    protocol: Protocol = CHAT

    def __post_init__(self):
        problems = []
        if not self.url.startswith(("http://", "https://")):
            problems.append(f"url {self.url!r} must start with http:// or https://")
        if self.image_format not in FORMATS:
            problems.append(f"image_format {self.image_format!r}; allowed: {', '.join(FORMATS)}")
        if self.concurrency < 1:
            problems.append(f"concurrency is at least 1, not {self.concurrency}")
        if not re.fullmatch(r"([A-Za-z_]\w*)?", self.key_variable):
            problems.append(
                "key_variable is the name of an environment variable, not the key itself"
            )
        elif self.key_variable and not self._key:
            problems.append(f"environment variable {self.key_variable} is not set; export it first")
        if problems:
            raise InputError(f"{self.client}: {problem}" for problem in problems)

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def _without_key(self, text: str) -> str:
        """Return a server's text without the key, which a server can repeat."""
        return text.replace(self._key, "[key]") if len(self._key) >= KEY_LENGTH else text

    def replies(
        self,
        requests: Iterable[Requests],
        will_do: Callable[[str], bool] = lambda text: True,
        **settings,
    ) -> Iterator[tuple[object, list[Reply]]]:
        """Send requests and yield (key, one reply per text), in the order in which they finish.

        Closing the iterator, as an interrupt does, starts no more requests; those in flight are
        waited for at most ``GRACE`` seconds, and their replies are dropped.

        Parameters
        ----------
        requests : read lazily: at most ``concurrency`` pictures are in memory
        will_do : checks the text of a reply. Where it fails, the request is sent again, ``TRIES``
            times in all, and the last reply stands
        settings : sent with every request, such as ``temperature`` and ``max_tokens``

        Raises
        ------
        InputError
            Where no request can succeed: no server at the URL (``Unreachable``), a refused key, an
            unknown model.
        """
        client = openai.OpenAI(
            base_url=self.url,
            # The client requires a key; servers without keys ignore it.
            api_key=self._key or "none",
            timeout=openai.Timeout(self.timeout, connect=min(10.0, self.timeout)),
            max_retries=self.max_retries,
            # What is compressed has a size that is known when it is in memory.
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [self._limit]}),
        )
        waiting, lock, stopped, renamed = iter(requests), Lock(), Event(), Event()
        results: SimpleQueue = SimpleQueue()

        def draw() -> Requests | None:
            with lock:
                return None if stopped.is_set() else next(waiting, None)

        def reply(request: dict) -> Reply:
            for _ in range(TRIES):
                reply = self._send(client, {**request, **settings}, renamed)
                if reply.error or will_do(reply.text):
                    break
            return reply

        def work() -> None:
            try:
                while drawn := draw():
                    form = self.image_format, self.max_side
                    images = drawn.open() if drawn.open else []
                    images = images if isinstance(images, list) else [images]
                    urls = [data_url(image, *form) for image in images]
                    asked = [self.protocol.write(text, urls) for text in drawn.texts]
                    results.put((drawn.key, list(map(reply, asked))))
                results.put(None)
            except BaseException as error:
                stopped.set()
                results.put(error)

        # Daemons: a program that is interrupted must not wait for a slow server before it exits.
        workers = [Thread(target=work, daemon=True) for _ in range(self.concurrency)]
        with client:
            self._check_model(client)
            for worker in workers:
                worker.start()
            try:
                for _ in workers:
                    while (result := results.get()) is not None:
                        if isinstance(result, BaseException):
                            raise result
                        yield result
            finally:
                stopped.set()
                end = time.monotonic() + GRACE
                for worker in workers:
                    worker.join(max(0.0, end - time.monotonic()))

    # Both methods below raise their InputError outside the handler: shown alone, it says all.

    def _send(self, client: openai.OpenAI, request: dict, renamed: Event) -> Reply:
        """Send one request; raise InputError for an error that every other request would meet.

        ``renamed`` is set from the first reply on that asks for ``RENAMED``.
        """
        request = {"model": self.model, **request}
        if renamed.is_set() and "max_tokens" in request:
            request[RENAMED] = request.pop("max_tokens")
        try:
            response = self._in_time(lambda: self.protocol.send(client, request))
        except (openai.APITimeoutError, TimeoutError):
            return Reply("", error="time-out")
        except Unusable as error:
            return Reply("", error=str(error))
        except openai.APIConnectionError as error:
            if not isinstance(error.__cause__, httpx2.ConnectError):  # it may be this picture
                return Reply("", error="the server broke the connection off")
            fault = self._unreachable(error)
        except openai.APIStatusError as error:
            told = self._without_key(_detail(error.body))
            if error.status_code == 400 and RENAMED in told and "max_tokens" in request:
                fault = None
            elif error.status_code in (401, 403, 404):
                fault = self._refused(error.status_code, self.protocol.name)
            else:
                detail = told[:DETAIL]
                text = f"HTTP {error.status_code}{detail and f' ({detail})'}"
                if error.status_code not in FOR_GOOD:
                    return Reply("", error=text)
                filtered = FILTER.search(f"{text} {error.code} {error.type}")
                return Reply("", REFUSED, Filtered(text) if filtered else Refused(text))
        except (openai.APIError, ValueError, RecursionError, OverflowError):
            return Reply("", error="the response is not JSON")
        except Exception as error:  # of whatever a server sends: the other answers go on
            return Reply("", error=f"the response cannot be read: {type(error).__name__}")
        else:
            reply = self.protocol.read(response)
            return reply._replace(text=self._without_key(reply.text))
        if fault:
            raise fault
        renamed.set()
        return self._send(client, request, renamed)

    def _limit(self, response: httpx2.Response) -> None:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise Unusable(
                f"the response is compressed ({encoding[:20]}), though none was asked for"
            )
        response.stream = Limited(response.stream, self.timeout)

    def _in_time(self, call: Callable):
        """Return what a call returns or raises; raise TimeoutError if it takes too long.

        The timeout of the client is for each read, and a server can send its head byte by byte.
        What is left of such a call ends with the client.
        """
        results: SimpleQueue = SimpleQueue()

        def work() -> None:
            try:
                results.put((call(), None))
            except BaseException as error:
                results.put((None, error))

        Thread(target=work, daemon=True).start()
        waits = self.max_retries * 60  # the longest Retry-After that the client follows
        try:
            result, error = results.get(timeout=(self.max_retries + 1) * self.timeout + waits + 1)
        except Empty:
            raise TimeoutError from None
        if error:
            raise error
        return result

    def _check_model(self, client: openai.OpenAI) -> None:
        """Raise InputError if the server lists its models and ours is not among them.

        Some servers answer to any model name. A server without a list passes.
        """
        names, fault = [], None
        try:
            names = self._in_time(lambda: [model.id for model in client.models.list()])
        except TimeoutError:
            fault = self._unreachable(TimeoutError("no answer in time"))
        except openai.APIConnectionError as error:
            fault = self._unreachable(error)
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                fault = self._refused(error.status_code)
        except (openai.APIError, Unusable, ValueError, AttributeError, TypeError, RecursionError):
            pass  # some other page
        if names and self.model not in names:
            known = nearest(self.model, names)
            fault = self._fault(f"{self.url}: no model {self.model!r} there; {known}")
        if fault:
            raise fault

    def _fault(self, text: str, kind: type[InputError] = InputError) -> InputError:
        return kind(self._without_key(text))

    def _unreachable(self, error: Exception) -> InputError:
        return self._fault(
            f"{self.url}: no connection ({error.__cause__ or error}). Start the server or correct "
            "`url`, and run again: finished answers are kept",
            Unreachable,
        )

    def _refused(self, status: int, offer: str = "") -> InputError:
        if status == 404:
            return self._fault(
                f"{self.url}: HTTP 404: no model {self.model!r} there, or no {offer}; "
                f"see {self.url}/models for its models, and let `url` end in /v1"
            )
        key = f"the key in {self.key_variable}" if self.key_variable else "a request without key"
        return self._fault(
            f"{self.url}: HTTP {status}: {key} was not accepted; export a key and name its "
            "environment variable in `key_variable`"
        )


def _detail(body: object) -> str:
    """Return the server's own message: a 400 can be about a picture or a setting."""
    return str((body.get("message") if isinstance(body, dict) else None) or "")
