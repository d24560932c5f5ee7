"""An editor behind the Gemini API: its image models, through Google's own client."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import islice

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from sgvl.common.errors import InputError
from sgvl.editing.base import Editor, Edits
from sgvl.models.endpoint import DETAIL, FILTER, FOR_GOOD
from sgvl.models.reply import REFUSED, Filtered, Refused, Reply
from sgvl.recaption.base import Item
from sgvl.text.prompts import LETTERS_PER_TOKEN

RETRIED = [408, 409, 429, 500, 502, 503, 504]
KEY = "GEMINI_API_KEY"


class GeminiEditor(Editor):
    """Sends a picture and its instruction to ``generateContent``, and takes the picture in reply.

    A picture that the service declines to edit is a refusal; it is stored and not asked again.

    Parameters
    ----------
    model : an image model of the API, such as gemini-3.1-flash-image; models are retired, so that
        it has no default
    url : of the API, without the version
    temperature : of the sampling; the released script has 0.5
    concurrency : requests at a time
    timeout : seconds for one request
    max_retries : for a time-out, a lost connection and HTTP 408, 409, 429 and 5xx, with waits that
        double from one second
    image_tokens : tokens of a picture in a request, for estimates
    key_variable : environment variable that holds the API key; "" sends a word that is no key
    """

    knows = "the picture and the instruction"

    def __init__(
        self,
        model: str,
        url: str = "https://generativelanguage.googleapis.com",
        name: str | None = None,
        temperature: float = 0.5,
        image_tokens: int = 1290,
        concurrency: PositiveInt = 4,
        timeout: PositiveFloat = 180.0,
        max_retries: NonNegativeInt = 5,
        key_variable: str = KEY,
    ):
        try:
            from google import genai
        except ImportError:
            raise InputError(
                "editor gemini: google-genai is not installed; pip install 'sgvl[edit]'"
            ) from None
        key = os.environ.get(key_variable, "").strip() if key_variable else "none"
        if not key:
            raise InputError(
                f"editor gemini: environment variable {key_variable} is not set; export it first"
            )
        self.name, self.model, self.url = name or model, model, url
        self.temperature, self.image_tokens, self.concurrency = (
            temperature,
            image_tokens,
            concurrency,
        )
        types = genai.types
        retries = types.HttpRetryOptions(attempts=max_retries + 1, http_status_codes=RETRIED)
        options = types.HttpOptions(
            base_url=url, timeout=int(1000 * timeout), retry_options=retries
        )
        self.client, self.key, self.errors = (
            genai.Client(api_key=key, vertexai=False, http_options=options), key, genai.errors
        )  # fmt: skip

    def identity(self) -> dict:
        return {"kind": "gemini", "model": self.model, "temperature": self.temperature}

    def tokens(self, item: Item) -> int:
        return self.image_tokens + len(item.caption) // LETTERS_PER_TOKEN

    def results(self, items: Sequence[Item]) -> Edits:
        waiting = iter(enumerate(items))
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            running = {
                pool.submit(self._edit, item): i for i, item in islice(waiting, self.concurrency)
            }
            while running:
                done = next(as_completed(running))
                i = running.pop(done)
                answer, error = done.result()
                yield [(i, answer, error)]
                running |= {pool.submit(self._edit, item): i for i, item in islice(waiting, 1)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _edit(self, item: Item) -> tuple[bytes | Reply | None, str]:
        """Send one request; raise InputError for an error that every other request would meet."""
        config = {"response_modalities": ["TEXT", "IMAGE"], "temperature": self.temperature}
        try:
            response = self.client.models.generate_content(
                model=self.model, contents=[item.open(), item.caption], config=config
            )
        except self.errors.APIError as error:
            answer = self._refused(error)
        except OSError as error:
            answer = None, f"no connection ({self._without_key(str(error))[:DETAIL]})"
        except Exception as error:  # of whatever a server sends: the other pictures go on
            # A lost connection or a time-out is an error of the client's own transport.
            answer = None, f"the response cannot be read: {type(error).__name__}"
        else:
            answer = self._read(response), ""
        if isinstance(answer, InputError):
            raise answer  # outside the handler: shown alone, it says all
        return answer

    def _refused(self, error) -> tuple[Reply | None, str] | InputError:
        text = self._without_key(str(error.message or ""))[:DETAIL]
        text = f"HTTP {error.code}{text and f' ({text})'}"
        if error.code in (401, 403, 404):
            todo = "name another model" if error.code == 404 else "export a key that is accepted"
            return InputError(f"{self.url}: model {self.model!r}: {text}; {todo}, and run again")
        if error.code not in FOR_GOOD:
            return None, text
        refused = Filtered if FILTER.search(text) else Refused
        return Reply(text, REFUSED), refused(text)

    def _read(self, response) -> bytes | Reply:
        """Take the picture of a response, or else its words, or why there is nothing."""
        candidate = (response.candidates or [None])[0]
        parts = (candidate and candidate.content and candidate.content.parts) or []
        for part in parts:
            blob = part.inline_data
            if blob and blob.data and str(blob.mime_type).startswith("image/") and not part.thought:
                return blob.data
        words = " ".join(part.text for part in parts if part.text and not part.thought)
        reason = "no picture"
        with suppress(AttributeError):
            reason = (candidate or response.prompt_feedback).finish_reason.name
        with suppress(AttributeError):
            reason = response.prompt_feedback.block_reason.name
        declined = reason not in ("no picture", "STOP", "MAX_TOKENS", "NO_IMAGE", "OTHER")
        return Reply(self._without_key(words or reason), "refusal" if declined else "stop")

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "[key]")
