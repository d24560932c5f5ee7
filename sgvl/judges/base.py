"""What every judge is: one picture and k policies in, k judgements out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sgvl.data import Sample
from sgvl.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sgvl.policy import Policy


class Judgement(NamedTuple):
    """One judge's answer about one picture under one policy.

    ``p_unsafe`` is None where the judge gives no probability, ``rationale`` where it gives no
    words, ``reply`` (the raw text, before parsing) where it does not speak.
    """

    verdict: str  # verdict.SAFE, UNSAFE or UNPARSEABLE
    p_unsafe: float | None = None
    rationale: str | None = None
    reply: str | None = None


class Judge:
    """Base class. A subclass gives ``name``, ``identity`` and ``judge``.

    All k policies of a picture come in one call, so that a judge can look at the picture once:
    a classifier runs once, a language model shares the picture's prefix.
    """

    name: str
    reads_policy: bool = True
    shares: str = ""  # what is read once for many verdicts, where a judge tells
    reads_tags: bool = False  # only a judge that is told what is in the picture

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
        """``[sample][policy]`` judgements. Override where a batch is faster than a loop."""
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
