"""A judge in vLLM's own engine, in this process: no server, and whole batches at once.

Written after vLLM's documentation and source and **not run by this project**, which has had no
machine with vLLM: the engine's arguments, ``LLM.chat`` and the reading of its log-probabilities are
untried. The questions, and how replies are read, are those of ``sgvl.judges.asking``, which the
served judge is tested with. vLLM comes with the extra ``gpu`` and is imported when first asked.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec

from sgvl import models
from sgvl.endpoint import Answer, data_url, turn
from sgvl.errors import InputError
from sgvl.judges.asking import TOP, AskingJudge


class VllmJudge(AskingJudge):
    """Asks a model that vLLM loads, with its prefix cache on, a picture's policies in a row.

    ``model`` is a folder or a hub id, ``gpus`` how many share its weights; the other options are
    the chat judge's. Pictures are resized by vLLM's own path, and sums run in another order, so
    answers can differ from the chat judge's; they are stored apart.

    Raises InputError where vLLM is not installed.
    """

    pictures_at_once = 256  # the engine orders its own batches; pictures wait in memory

    def __init__(
        self,
        model: str,
        name: str = "vllm",
        revision: str | None = None,
        prompt: str = "reason",
        policy_form: str = "brief",
        parser: str = "answer",
        max_new_tokens: int = 120,
        score: bool = True,
        dtype: str = "bfloat16",
        gpus: int = 1,
    ):
        super().__init__(name, prompt, policy_form, parser, max_new_tokens, score)
        if not find_spec("vllm"):
            raise InputError(
                f"judge {self.name}: vLLM is not installed; on a machine with GPUs, "
                '`pip install -e ".[gpu]"`, or choose kind chat or served'
            )
        self.model, self.revision, self.dtype, self.gpus = model, revision, dtype, gpus
        self.commit = models.pin(model, revision)

    def identity(self) -> dict:
        return {
            "kind": "vllm",
            "model": self.model,
            "revision": self.revision,
            "weights": self.commit or models.digest(self.model),
            "dtype": self.dtype,
            **super().identity(),
        }

    @cached_property
    def _engine(self):
        from vllm import LLM

        return LLM(
            model=models.resolve(self.model),
            revision=self.commit,
            dtype=self.dtype,
            tensor_parallel_size=self.gpus,
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": 1},
        )

    def _answers(self, shown: Sequence[tuple]) -> Iterator[tuple[int, list[Answer]]]:
        from vllm import SamplingParams

        settings = SamplingParams(
            temperature=0.0,
            max_tokens=self.max_new_tokens,
            logprobs=TOP if self.score else None,
            # Of the model's generation settings, as transformers and the server apply it.
            repetition_penalty=self._engine.get_default_sampling_params().repetition_penalty,
        )
        turns = []
        for image, texts in shown:
            sent = data_url(image, "PNG")
            turns += [[turn(text, sent)] for text in texts]
        told = map(_answer, self._engine.chat(turns, settings, use_tqdm=False))
        for k, (_, texts) in enumerate(shown):
            yield k, [next(told) for _ in texts]


def _answer(output) -> Answer:
    """What vLLM's ``RequestOutput`` holds, in the form of a server's answer."""
    reply = output.outputs[0]
    tokens = []
    for id_, near in zip(reply.token_ids, reply.logprobs or (), strict=False):  # () if not asked
        likeliest = tuple((token.decoded_token or "", token.logprob) for token in near.values())
        tokens.append((near[id_].decoded_token or "", likeliest))
    return Answer(reply.text, reply.finish_reason or "stop", tokens=tuple(tokens))
