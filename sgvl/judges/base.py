"""The interface of a judge: cases (a picture under a policy) in, judgements out."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from pydantic import PositiveInt

from sgvl.common.errors import InputError, nearest
from sgvl.common.paths import plain_name, user_path
from sgvl.data import Sample
from sgvl.models.reply import Reply
from sgvl.policies.policy import FORMS, Form, Policy
from sgvl.text import prompts, verdict


class Judgement(NamedTuple):
    """One judge's answer about one picture under one policy.

    Parameters
    ----------
    verdict : ``verdict.SAFE``, ``UNSAFE`` or ``UNPARSEABLE``
    p_unsafe : probability of unsafe, 0 to 1; None where the judge gives none
    rationale : the reason in words; None where the judge gives none
    reply : the raw text before parsing; None where the judge does not speak
    """

    verdict: str
    p_unsafe: float | None = None
    rationale: str | None = None
    reply: str | None = None


# Results as they come: (index of the case or request, its answer or None, its error or "").
Results = Iterator[list[tuple[int, "Judgement | Reply | None", str]]]


def under(samples: Iterable[Sample], policies: Sequence[Policy]) -> Iterator[tuple[Sample, Policy]]:
    """Yield the cases of every sample under every policy, sample by sample."""
    return ((sample, policy) for sample in samples for policy in policies)


class Judge:
    """Base class. A subclass sets ``id`` and defines ``identity`` and ``judge``.

    ``id`` names the judge in files, tables and claims; ``name`` is printed.
    """

    id: str
    reads_policy: bool = True
    reads_tags: bool = False  # whether it is given the exact content of a drawn scene
    takes_requests: bool = False  # whether it replies to plain requests: questions, captions
    prefix_sharing: str = ""  # what is read once for several cases, where a judge can say
    pictures_at_once: int = 32  # pictures between two writes of answers: what a crash can cost
    _name: str = ""

    @property
    def name(self) -> str:
        """The name to print; the id where none was given."""
        return self._name or self.id

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def identity(self) -> dict:
        """Return everything that decides an answer, as plain JSON values.

        Model, digest of its weights, prompt, parser, decoding: judges with equal identities share
        stored answers, so what is missing here turns up as a stale answer later. What only decides
        speed stays out.
        """
        raise NotImplementedError

    def judge(self, cases: Iterable[tuple[Sample, Policy]]) -> list[Judgement]:
        """Judge (sample, policy) cases; one judgement each, in order.

        Put the cases of one picture next to each other: a judge may read the picture once.
        """
        raise NotImplementedError

    def results(self, cases: Sequence[tuple[Sample, Policy]]) -> Results:
        """Yield judgements and errors in batches, as they arrive.

        A judge that can fail for one case alone defines this method, and ``judge`` follows from it.
        """
        indices = range(len(cases))
        yield [(i, judgement, "") for i, judgement in zip(indices, self.judge(cases), strict=True)]


def by_picture(samples: Iterable[Sample]) -> list[list[int]]:
    """Group the indices of neighbours that are one sample, so that its picture is read once."""
    indices = groupby(enumerate(samples), lambda numbered: id(numbered[1]))
    return [[index for index, _ in same] for _, same in indices]


def once_a_picture(judge: Callable[[list], Results], cases: Sequence[tuple]) -> Results:
    """Yield the results of a judge that reads no policy: each picture is asked about once."""
    own = by_picture(sample for sample, _ in cases)
    for batch in judge([cases[same[0]] for same in own]):
        yield [(i, judgement, error) for k, judgement, error in batch for i in own[k]]


# What a test set can ask of every judge that speaks: options of ``SpeakingJudge``.
PROTOCOL = ("prompt", "policy_form", "parser", "max_new_tokens", "with_p_unsafe")


class AskedJudge(Judge):
    """Base class of judges that can fail for one case alone: they define ``results``."""

    def results(self, cases: Sequence[tuple[Sample, Policy]]) -> Results:
        raise NotImplementedError

    def judge(self, cases: Iterable[tuple[Sample, Policy]]) -> list[Judgement]:
        cases, judgements, errors = list(cases), {}, []
        for batch in self.results(cases):
            judgements |= {i: judgement for i, judgement, error in batch if not error}
            errors += [f"{_case_name(cases[i])}: {error}" for i, _, error in batch if error]
        if errors:
            raise InputError(errors)
        return [judgements[i] for i in range(len(cases))]


class SpeakingJudge(AskedJudge):
    """Base class of judges that are prompted in words and reply in words.

    A subclass defines ``results`` and ``replies``, and adds its kind and model to ``identity``.

    Parameters
    ----------
    id : name in files, tables and claims
    prompt : a name in ``sgvl.text.prompts.JUDGE``
    policy_form : one of ``FORMS``
    parser : a name in ``sgvl.text.verdict.PARSERS``
    max_new_tokens : length limit of a reply
    with_p_unsafe : whether P(unsafe) is computed

    Raises
    ------
    InputError
        For an unknown prompt, form or parser, all at once, with the nearest valid names.
    """

    takes_requests = True

    def __init__(
        self,
        id: str,
        prompt: prompts.JudgePrompt,
        policy_form: Form,
        parser: verdict.Parser,
        max_new_tokens: PositiveInt,
        with_p_unsafe: bool,
    ):
        chosen = {"prompt": prompt, "parser": parser, "policy_form": policy_form}
        known = {"prompt": prompts.JUDGE, "parser": verdict.PARSERS, "policy_form": FORMS}
        wrong = [
            f"judge {id}: {k} {chosen[k]!r}: {nearest(chosen[k], known[k])}"
            for k in chosen
            if chosen[k] not in known[k]
        ]
        if wrong:
            raise InputError(wrong)
        self.id, self.prompt, self.policy_form, self.parser = id, prompt, policy_form, parser
        self.max_new_tokens, self.with_p_unsafe = max_new_tokens, with_p_unsafe
        self.reads_policy = "{policy}" in prompts.JUDGE[prompt] or prompt in prompts.OWN_POLICY

    def identity(self) -> dict:
        return {
            "prompt": prompts.judge_prompt("{policy}", self.prompt),
            "policy_form": self.policy_form,
            "parser": [self.parser, verdict.VERSIONS.get(self.parser, verdict.VERSION)],
            "max_new_tokens": self.max_new_tokens,
            "with_p_unsafe": self.with_p_unsafe,
        }

    def reply_identity(self) -> dict:
        """Return what decides a reply to a plain request; ``identity`` without the policy."""
        raise NotImplementedError

    def replies(self, requests: Sequence[tuple[Sample, str]]) -> Results:
        """Yield replies to plain requests, (sample, text), as they come.

        ``sample.image`` is one image, or a list of images that the text names (``<image 2>``).
        """
        raise NotImplementedError

    def asked(self, **protocol) -> SpeakingJudge:
        """Return this judge with other options of ``PROTOCOL``; both share the model."""
        other = copy.copy(self)
        vars(other).pop("prefix_sharing", None)  # depends on the prompt
        own = {name: getattr(self, name) for name in PROTOCOL}
        SpeakingJudge.__init__(other, self.id, **own | protocol)
        return other

    def request(self, policy: Policy) -> str:
        """Return the text that puts a policy before the judge; the picture is no part of it.

        Raises InputError for a prompt with a policy of its own, unless ``policy`` is that one.
        """
        own = prompts.OWN_POLICY.get(self.prompt, policy.name)
        if policy.name != own:
            raise InputError(
                f"judge {self.id}: the prompt {self.prompt} asks under {own} alone, "
                f"not under {policy.name}; choose another prompt"
            )
        steps = getattr(policy, "steps", "")
        return prompts.judge_prompt(policy.render(self.policy_form), self.prompt, steps)

    def parse(self, reply: str, p_unsafe: float | None) -> Judgement:
        """Read a reply with this judge's parser."""
        parsed = verdict.parse(reply, self.parser)
        return Judgement(parsed.verdict, p_unsafe, parsed.rationale, reply)


def default_parser(prompt: str) -> str:
    """Return the parser for a prompt; ``answer`` is for models that were not trained here."""
    return "sentence" if prompt == "answer" else "answer"


def default_prompt(model: str) -> str:
    """Return the prompt for a model: ``reason`` if it was trained on it here, else ``answer``."""
    trained = model == "nano" or os.path.isfile(user_path(model).parent / "identity.json")
    return "reason" if trained else "answer"


def check_id(id: object) -> str:
    """Return a judge's id. Raises InputError unless it can be a file name everywhere."""
    id = plain_name("judge id", id)
    if re.search(r"\.(replies|\d+-of-\d+)$", id):
        raise InputError(f"judge id {id!r}: files of other judges end so; choose another ending")
    return id


def _case_name(case: tuple) -> str:
    sample, policy = case
    return f"{sample.id} under {policy.name}"
