"""What judges share that put their questions in words to a model elsewhere: behind a server, or in
an engine of its own."""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter

from sgvl.common.errors import InputError
from sgvl.judges.base import Judgement, Sample, SpeakingJudge, Unanswered
from sgvl.models.reply import Reply
from sgvl.text import prompts, verdict

TOP = 20  # likeliest tokens that are asked for at each place: the most that vLLM gives by default
TOLD = 3  # problems of one batch that are told in full

# How a reply goes up to its verdict, and safe and unsafe as replies to that prompt write them.
VERDICTS = {
    "reason": (re.compile(rf"{prompts.SLOT}\s*$"), ("safe", "unsafe")),
    "word": (re.compile(r"^\s*$"), ("safe", "unsafe")),
    "llama_guard": (re.compile(r"^\s*$"), ("safe", "unsafe")),
    "taxonomy": (re.compile(r'"rating"\s*:\s*"$'), ("Safe", "Unsafe")),
}


class EngineJudge(SpeakingJudge):
    """Base class. A subclass gives ``_answers``, and adds its kind and its model to ``identity``.

    Replies are decoded greedily and read as ``sgvl.judges.chat.judge`` reads them. P(unsafe) is
    that of the token where the reply's verdict begins, against the other verdict, among the ``TOP``
    likeliest ones there (a word of several tokens is told by its first; one that is not among them
    counts as 0, which it is to within the least of them). It is None where the reply has no
    verdict, where no log-probabilities were sent, and if ``score`` is False. The chat judge has one
    for replies without a verdict, too: it leads the model there, which a server cannot do.
    """

    def judge_batch(self, samples, policies) -> list[list[Judgement]]:
        return self._judged([(sample, policies) for sample in samples])

    def judge_cases(self, cases: Sequence[tuple]) -> list[Judgement]:
        shown = [(sample, [p for _, p in own]) for sample, own in groupby(cases, itemgetter(0))]
        return [judgement for row in self._judged(shown) for judgement in row]

    def _answers(self, shown: Sequence[tuple]) -> Iterator[tuple[int, list[Reply]]]:
        """Of (picture, texts) pairs: the index of each, and its answers, in any order of pairs.

        The texts of a picture are to be asked one after another, so that its prefix is read once.
        """
        raise NotImplementedError

    def _judged(self, shown: Sequence[tuple[Sample, Sequence]]) -> list[list[Judgement]]:
        asked = [(sample.image, list(map(self.question, own))) for sample, own in shown]
        told: dict[int, list[Reply]] = {}
        problems: list[str] = []
        try:
            with closing(self._answers(asked)) as answers:  # an interrupt ends what is under way
                told.update(answers)
        except InputError as error:  # none can be answered any more
            problems = error.problems
        unasked = Reply("", error="not asked")
        rows = [told.get(k, [unasked] * len(own)) for k, (_, own) in enumerate(shown)]
        self._warn_of_cut(rows)
        judged = [[None if a.error else self._judgement(a) for a in row] for row in rows]
        if problems := problems or self._problems(shown, rows):
            raise Unanswered(problems, judged)
        return judged

    def _problems(self, shown: Sequence[tuple], rows: Sequence[Sequence[Reply]]) -> list[str]:
        """The first errors by their picture and policy, how many more there are, and what to do."""
        found = [
            f"{sample.id} under {policy.name}: {answer.error}"
            for (sample, policies), row in zip(shown, rows, strict=True)
            for policy, answer in zip(policies, row, strict=True)
            if answer.error
        ]
        more = [f"and {len(found) - TOLD} more"] if len(found) > TOLD else []
        todo = "look at the server, then run again; what is stored is not asked for again"
        return [*found[:TOLD], *more, f"judge {self.name}: {todo}"] if found else []

    def _warn_of_cut(self, rows: Sequence[Sequence[Reply]]) -> None:
        if cut := sum(answer.finish == "length" for row in rows for answer in row):
            told = f"{cut} replies reached max_new_tokens = {self.max_new_tokens} and were cut"
            warnings.warn(f"judge {self.name}: {told}; raise it", stacklevel=2)

    def _judgement(self, answer: Reply) -> Judgement:
        reply = answer.text.strip()
        read = verdict.parse(reply, self.parser)
        return Judgement(read.verdict, p_unsafe(answer.tokens, self.prompt), read.rationale, reply)


def p_unsafe(tokens: Sequence[tuple], prompt: str) -> float | None:
    """P(unsafe) where a reply's verdict begins; None where no verdict is found in its tokens.

    ``tokens`` are as in ``sgvl.models.endpoint.Reply``.

    >>> likeliest = (" safe", math.log(0.6)), (" unsafe", math.log(0.2)), (" maybe", math.log(0.1))
    >>> round(p_unsafe([("Reply:", ()), (" safe", likeliest)], "reason"), 3)
    0.25
    """
    before, words = VERDICTS[prompt]
    told, found = "", ()
    for token, likeliest in tokens:
        if any(_opens(word, token) for word in words) and before.search(told):
            found = likeliest
        told += token
    safe, unsafe = (sum(math.exp(p) for t, p in found if _opens(word, t)) for word in words)
    return unsafe / (safe + unsafe) if safe + unsafe else None


def _opens(word: str, token: str) -> bool:
    """Whether a token is the word, or its beginning; a space before it does not count."""
    return bool(token.strip()) and word.startswith(token.strip())
