"""A judge behind an OpenAI-compatible server: vLLM's ``vllm serve`` on a GPU box, or another."""

from collections.abc import Iterator, Sequence

from sgvl.judges.engine import TOP, EngineJudge
from sgvl.models.endpoint import Endpoint, Requests
from sgvl.models.reply import Reply


class ServedJudge(EngineJudge):
    """Asks a model by the server's name for it; the same questions as the chat judge's.

    Parameters
    ----------
    model : as the server calls it (``--served-model-name``); it must be in its list of models
    revision : of the weights that the server was started with. A server cannot prove its weights,
        so the identity of the answers holds what is said here: name the commit, and another one
        where the server gets other weights under the same name.
    image_format, max_side : how a picture is sent; PNG as it is changes no pixel
    concurrency : pictures at a time. The policies of one are asked one after another, so that all
        but the first find the picture in the server's prefix cache.

    ``url``, ``timeout``, ``max_retries`` and ``key_variable`` are those of
    ``sgvl.models.endpoint.Endpoint``, the rest those of the chat judge. What a server was asked in
    vain is an error, and asked again by the next run. Nothing of the URL or the key is stored.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8000/v1",
        name: str = "served",
        revision: str | None = None,
        prompt: str = "reason",
        policy_form: str = "brief",
        parser: str = "answer",
        max_new_tokens: int = 120,
        with_p_unsafe: bool = True,
        image_format: str = "PNG",
        max_side: int = 0,
        concurrency: int = 32,
        timeout: float = 120.0,
        max_retries: int = 5,
        key_variable: str = "",
    ):
        super().__init__(name, prompt, policy_form, parser, max_new_tokens, with_p_unsafe)
        self.endpoint = Endpoint(
            f"judge {self.name}",
            model=model,
            url=url,
            image_format=image_format,
            max_side=max_side,
            concurrency=concurrency,
            timeout=timeout,
            max_retries=max_retries,
            key_variable=key_variable,
        )
        self.revision = revision
        self.pictures_at_once = 4 * concurrency  # so that few requests wait for the end of a batch

    def identity(self) -> dict:
        return {
            "kind": "served",
            "model": self.endpoint.model,
            "revision": self.revision,
            "image": [self.endpoint.image_format, self.endpoint.max_side],
            **super().identity(),
        }

    def _answers(self, shown: Sequence[tuple]) -> Iterator[tuple[int, list[Reply]]]:
        asked = (
            Requests(k, texts, lambda image=image: image) for k, (image, texts) in enumerate(shown)
        )
        scored = {"logprobs": True, "top_logprobs": TOP} if self.with_p_unsafe else {}
        settings = {"temperature": 0.0, "max_tokens": self.max_new_tokens, **scored}
        return self.endpoint.replies(asked, **settings)
