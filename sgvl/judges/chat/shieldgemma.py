"""ShieldGemma 2: one question a rule, answered Yes or No; the policy's highest rule decides."""

from collections.abc import Sequence

from pydantic import PositiveInt

from sgvl.common.types import Device, Dtype
from sgvl.judges.base import Judgement, Results
from sgvl.judges.chat.judge import ChatJudge
from sgvl.policies.forms import prohibitions
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE


class ShieldGemmaJudge(ChatJudge):
    """Asks for each rule of a policy whether the image violates it.

    P(unsafe) is the highest of P(Yes), Yes against No; from 0.5 the verdict is unsafe, and the
    rationale is the rule. A policy that prohibits nothing is not asked about.

    Parameters
    ----------
    model : a hub id or a folder
    id, revision, batch_size, dtype, device : see ``ChatJudge``
    """

    takes_requests = False  # its one token is Yes or No

    def __init__(
        self,
        id: str = "shieldgemma",
        model: str = "google/shieldgemma-2-4b-it",
        revision: str | None = None,
        batch_size: PositiveInt = 32,
        dtype: Dtype = "float32",
        device: Device = "cpu",
    ):
        super().__init__(
            id, model, revision, "shieldgemma", "text", "word", 1, True, batch_size, dtype, device
        )
        self._rules: dict[str, list[Policy]] = {}

    def identity(self) -> dict:
        decided = {"kind": "shieldgemma", "rules": 1}  # raise it when a policy splits differently
        return super().identity() | decided

    def results(self, cases) -> Results:
        rules = [self._split(policy) for _, policy in cases]
        owners = [i for i, own in enumerate(rules) for _ in own]
        by_rule = [(cases[i][0], rule) for i, own in enumerate(rules) for rule in own]
        answers: dict[int, list[tuple]] = {i: [] for i, own in enumerate(rules) if own}
        yield [(i, Judgement(SAFE, 0.0), "") for i, own in enumerate(rules) if not own]
        for batch in super().results(by_rule):
            for k, judgement, error in batch:
                answers[owners[k]].append(
                    (judgement and judgement.p_unsafe, by_rule[k][1].text, error)
                )
            whole = [i for i, own in answers.items() if len(own) == len(rules[i])]
            yield [(i, *_highest(answers.pop(i))) for i in whole]

    def asked(self, **protocol) -> "ShieldGemmaJudge":
        """Return this judge: its question is that of its template."""
        return self

    def _split(self, policy: Policy) -> list[Policy]:
        """Return one policy a rule; the same objects each time, so that pictures form grids."""
        if policy.digest not in self._rules:
            self._rules[policy.digest] = [
                Policy(name=policy.name, title="Rule", text=text) for text in prohibitions(policy)
            ]
        return self._rules[policy.digest]


def _highest(answers: Sequence[tuple]) -> tuple[Judgement | None, str]:
    """Return the judgement by the highest P(Yes) of (P(Yes), rule, error), or the first error."""
    if errors := [error for *_, error in answers if error]:
        return None, errors[0]
    p, rule, _ = max(answers)
    return (Judgement(UNSAFE, p, rule) if p >= 0.5 else Judgement(SAFE, p)), ""
