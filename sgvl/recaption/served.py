"""A captioner behind an OpenAI-compatible server: vLLM with any model, or a hosted one."""

from collections.abc import Sequence
from contextlib import closing
from typing import Unpack

from pydantic import PositiveInt

from sgvl.judges.base import Results
from sgvl.models.endpoint import Endpoint, Requests, Settings
from sgvl.recaption.base import Captioner, Item
from sgvl.text import prompts


class ServedCaptioner(Captioner):
    """Sends pictures and prompts to a server's chat completions, several at a time.

    The URL is not part of the identity: stored replies stay valid if the server moves.

    Parameters
    ----------
    model, url : see ``sgvl.models.endpoint.Endpoint``
    prompt : ``"caption"`` (step 1), or a name in ``prompts.RECAPTION`` (step 2)
    name : printed in tables; by default the model's
    image : whether the picture is sent with the prompt
    image_tokens : tokens of a picture, for estimates (256 in Gemma 3)
    max_tokens : length limit of a reply
    temperature : of the server's sampling; 0 decodes greedily
    seed : of the server's sampling; None sends none, for servers that take no seed
    settings : of the endpoint; a picture is sent as JPEG, eight at a time

    Raises
    ------
    InputError
        For an unknown prompt, or invalid settings of the endpoint.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8000/v1",
        prompt: str = "minimal_edit",
        name: str | None = None,
        image: bool = True,
        image_tokens: int = 256,
        max_tokens: PositiveInt = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ):
        prompts.caption_prompt(prompt)
        self.endpoint = Endpoint(
            "captioner served", model, url, **{"image_format": "JPEG"} | settings
        )
        self.name, self.prompt = name or model, prompt
        self.image, self.image_tokens = image, image_tokens if image else 0
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed

    def identity(self) -> dict:
        encoding = [self.endpoint.image_format, self.endpoint.max_side]
        return {
            "kind": "served",
            "model": self.endpoint.model,
            "prompt": prompts.caption_prompt(self.prompt),
            "image": encoding if self.image else None,
            **self._settings(),
        }

    def request(self, item: Item) -> str:
        return prompts.caption_prompt(self.prompt, item.caption)

    def results(self, items: Sequence[Item]) -> Results:
        requests = (
            Requests(i, [self.request(item)], item.open if self.image else None)
            for i, item in enumerate(items)
        )
        with closing(self.endpoint.replies(requests, **self._settings())) as stream:
            for i, (reply,) in stream:
                yield [(i, reply, str(reply.error))]  # one that is refused is asked again too

    def _settings(self) -> dict:
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return settings if self.seed is None else settings | {"seed": self.seed}
