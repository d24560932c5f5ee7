"""A judge behind an OpenAI-compatible server: vLLM's ``vllm serve`` on a GPU box, or another."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Unpack

from pydantic import PositiveInt

from sgvl.judges.base import (
    Form,
    Judgement,
    Results,
    SpeakingJudge,
    by_picture,
    default_parser,
    default_prompt,
    once_a_picture,
)
from sgvl.models.endpoint import Endpoint, Requests, Settings
from sgvl.models.reply import REFUSED, Refused, Reply
from sgvl.text import prompts, verdict

TOP = 20  # likeliest tokens requested at each place: the most that vLLM gives by default


class ServedJudge(SpeakingJudge):
    """Sends the chat judge's requests to a server.

    Replies are decoded greedily. P(unsafe) compares the two verdicts among the ``TOP`` likeliest
    tokens where the reply's verdict begins: a word of several tokens counts by its first, and one
    that is not among them as 0. It is None where the reply has no verdict or the server sends no
    log-probabilities. (The chat judge has one for replies without a verdict too: it appends
    "Answer:" and runs the model once more, which a server cannot do.) A judge with a parser in
    ``verdict.ASKED_AGAIN`` asks up to three times; the chat judge, whose replies never vary, once.

    Parameters
    ----------
    model : the server's name for it (``--served-model-name``); must be in its list of models
    url : up to and with ``/v1``
    id : name in files, tables and claims
    revision : of the weights that the server was started with. A server cannot prove its weights,
        so stored answers are identified by what is given here: name the commit.
    settings : of the ``sgvl.models.endpoint.Endpoint``. A picture is sent as PNG, which changes no
        pixel, and 32 at a time; the policies of one are sent one after another, so that all but
        the first find the picture in the server's prefix cache.

    The rest is as for the chat judge. Neither the URL nor the key is stored.
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8000/v1",
        id: str = "served",
        revision: str | None = None,
        prompt: prompts.JudgePrompt | None = None,
        policy_form: Form = "brief",
        parser: verdict.Parser | None = None,
        max_new_tokens: PositiveInt = 120,
        with_p_unsafe: bool = True,
        **settings: Unpack[Settings],
    ):
        prompt = prompt or default_prompt(model)
        parser = parser or default_parser(prompt)
        super().__init__(id, prompt, policy_form, parser, max_new_tokens, with_p_unsafe)
        self.endpoint = Endpoint(f"judge {id}", model, url, **{"concurrency": 32} | settings)
        self.revision = revision
        # So that few requests wait for the end of a batch.
        self.pictures_at_once = 4 * self.endpoint.concurrency

    def identity(self) -> dict:
        return {
            "kind": "served",
            "model": self.endpoint.model,
            "revision": self.revision,
            "image": [self.endpoint.image_format, self.endpoint.max_side],
            **super().identity(),
        }

    def reply_identity(self) -> dict:
        keys = ("kind", "model", "revision", "image", "max_new_tokens")
        return {key: value for key, value in self.identity().items() if key in keys}

    def results(self, cases) -> Results:
        return self._asked(cases) if self.reads_policy else once_a_picture(self._asked, cases)

    def _asked(self, cases) -> Results:
        scored = {"logprobs": True, "top_logprobs": TOP} if self.with_p_unsafe else {}
        if self.parser in verdict.ASKED_AGAIN:
            scored["will_do"] = verdict.is_one_word
        texts = [self.request(policy) for _, policy in cases]
        for batch in self._send([sample for sample, _ in cases], texts, **scored):
            yield [(i, self._judgement(reply), reply.error) for i, reply in batch]

    def replies(self, requests) -> Results:
        samples = [sample for sample, _ in requests]
        texts = [prompts.inert(text, ["<|"]) for _, text in requests]
        for batch in self._send(samples, texts):
            yield [(i, reply, reply.error) for i, reply in batch]

    def _send(self, samples: Sequence, texts: Sequence[str], **settings) -> Iterator[list[tuple]]:
        """Yield (index, reply) of each picture's requests; warn of replies at their limit."""
        settings |= {"temperature": 0.0, "max_tokens": self.max_new_tokens}
        cut = 0
        for batch in send(self.endpoint, samples, texts, **settings):
            cut += sum(reply.finish == "length" for _, reply in batch)
            yield batch
        if cut:
            limit = f"{cut} replies reached max_new_tokens = {self.max_new_tokens} and were cut"
            warnings.warn(f"judge {self.id}: {limit}; raise it", stacklevel=2)

    def _judgement(self, reply: Reply) -> Judgement | None:
        if reply.error:
            return refused(reply)
        return self.parse(reply.text.strip(), p_unsafe(reply.tokens, self.prompt))


def send(endpoint: Endpoint, samples: Sequence, texts: Sequence[str], **settings) -> Iterator[list]:
    """Yield [(index, reply), ..] of each picture's requests when they are finished."""
    requests = (
        Requests(i, [texts[k] for k in i], _opener(samples[i[0]].image))
        for i in by_picture(samples)
    )
    # Closed at once by an interrupt, so that no request stays under way.
    with closing(endpoint.replies(requests, **settings)) as stream:
        for indices, replies in stream:
            yield list(zip(indices, replies, strict=True))


def refused(reply: Reply) -> Judgement | None:
    """Return the judgement of a request that a server refuses for good; None for other errors."""
    why = f"{REFUSED}: {reply.error}"
    final = isinstance(reply.error, Refused)
    return Judgement(verdict.UNPARSEABLE, None, why, "") if final else None


def _opener(image) -> Callable:
    return lambda: image


def p_unsafe(tokens: Sequence[tuple], prompt: str) -> float | None:
    """Compute P(unsafe) at the token where a reply's verdict begins; None if it has no verdict.

    ``tokens`` are those of ``sgvl.models.reply.Reply``.

    >>> likeliest = (" safe", math.log(0.6)), (" unsafe", math.log(0.2)), (" maybe", math.log(0.1))
    >>> round(p_unsafe([("Reply:", ()), (" safe", likeliest)], "reason"), 3)
    0.25
    """
    _, before, words = prompts.OPENINGS.get(prompt, ("", r"^\s*$", ("safe", "unsafe")))
    words = [word.strip() for word in words]
    text, candidates = "", ()
    for token, likeliest in tokens:
        if any(_opens(word, token) for word in words) and re.search(before, text):
            candidates = likeliest
        text += token
    safe, unsafe = (sum(math.exp(p) for t, p in candidates if _opens(word, t)) for word in words)
    return unsafe / (safe + unsafe) if safe + unsafe else None


def _opens(word: str, token: str) -> bool:
    """Check whether a token is the word or its beginning; case and a space before do not count."""
    token = token.strip().casefold()
    return bool(token) and word.casefold().startswith(token)
