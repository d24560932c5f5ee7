"""What every judge is: one picture and k policies in, k judgements out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sgvl.common.errors import InputError, nearest
from sgvl.data import Sample
from sgvl.text import prompts, verdict

if TYPE_CHECKING:
    from PIL.Image import Image

    from sgvl.policies.policy import Policy


FORMS = ("full", "brief")  # of a policy: its document, or its clauses in one line


class Judgement(NamedTuple):
    """One judge's answer about one picture under one policy.

    ``p_unsafe`` is None where the judge gives no probability, ``rationale`` where it gives no
    words, ``reply`` (the raw text, before parsing) where it does not speak.
    """

    verdict: str  # verdict.SAFE, UNSAFE or UNPARSEABLE
    p_unsafe: float | None = None
    rationale: str | None = None
    reply: str | None = None


class Unanswered(InputError):
    """Some questions of a batch got no answer; they can be asked again. ``answers`` is what
    ``judge_batch`` returns, with None for each of these, so that the others are kept."""

    def __init__(self, problems: str | Iterable[str], answers: list[list[Judgement | None]]):
        super().__init__(problems)
        self.answers = answers


class Judge:
    """Base class. A subclass gives ``name``, ``identity`` and ``judge``.

    All k policies of a picture come in one call, so that a judge can look at the picture once:
    a classifier runs once, a language model shares the picture's prefix.
    """

    name: str
    reads_policy: bool = True
    prefix_sharing: str = ""  # what is read once for many verdicts, where a judge tells
    reads_tags: bool = False  # only a judge that is told what is in the picture
    pictures_at_once: int = 32  # in a call of ``judge_batch``: what a crash can cost

    def identity(self) -> dict:
        """Everything that decides an answer, as plain JSON values: model, digest of its weights,
        prompt, parser, decoding. Two judges with equal identities share their stored answers, so
        what is missing here turns up as a stale answer later. What only decides speed stays out.
        """
        raise NotImplementedError

    def judge(
        self, image: Image, policies: Sequence[Policy], tags: frozenset[str] = frozenset()
    ) -> list[Judgement]:
        """One judgement per policy, in order, for an RGB picture."""
        raise NotImplementedError

    def judge_batch(
        self, samples: Sequence[Sample], policies: Sequence[Policy]
    ) -> list[list[Judgement]]:
        """``[sample][policy]`` judgements. Override where a batch is faster than a loop.

        May raise Unanswered for some of them.
        """
        rows = []
        for sample in samples:
            try:
                rows.append(self.judge(sample.image, policies, sample.tags))
            except InputError as error:
                raise InputError(f"{sample.id}: {error}") from error
        return rows

    def judge_cases(self, cases: Sequence[tuple[Sample, Policy]]) -> list[Judgement]:
        """One judgement per (sample, policy), for sets whose pictures have their own policies."""
        return [self.judge_batch([sample], [policy])[0][0] for sample, policy in cases]


class SpeakingJudge(Judge):
    """Base class of judges that are asked in words and reply in words.

    ``prompt`` is a name in ``sgvl.text.prompts.JUDGE``, ``policy_form`` one of ``FORMS``,
    ``parser`` a name in ``sgvl.text.verdict.PARSERS``; raises InputError for any that nobody knows.
    A subclass adds its kind and its model to ``identity``.
    """

    def __init__(
        self,
        name: str,
        prompt: str,
        policy_form: str,
        parser: str,
        max_new_tokens: int,
        with_p_unsafe: bool,
    ):
        chosen = {"prompt": prompt, "parser": parser, "policy_form": policy_form}
        known = {"prompt": prompts.JUDGE, "parser": verdict.PARSERS, "policy_form": FORMS}
        wrong = [
            f"judge {name}: {k} {chosen[k]!r}: {nearest(chosen[k], known[k])}"
            for k in chosen
            if chosen[k] not in known[k]
        ]
        if wrong:
            raise InputError(wrong)
        self.name, self.prompt, self.policy_form, self.parser = name, prompt, policy_form, parser
        self.max_new_tokens, self.with_p_unsafe = max_new_tokens, with_p_unsafe

    def identity(self) -> dict:
        return {
            "prompt": prompts.JUDGE[self.prompt],
            "policy_form": self.policy_form,
            "parser": [self.parser, verdict.VERSION],
            "max_new_tokens": self.max_new_tokens,
            "with_p_unsafe": self.with_p_unsafe,
        }

    def judge(self, image, policies, tags=frozenset()) -> list[Judgement]:
        return self.judge_batch([Sample("", image, tags)], policies)[0]

    def question(self, policy: Policy) -> str:
        """The words that put a policy before the judge; the picture is no part of them."""
        return prompts.judge_prompt(policy.render(self.policy_form), self.prompt)
