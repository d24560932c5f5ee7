"""Judges behind endpoints that answer with numbers in place of words: moderations and decisions."""

import json
from collections.abc import Callable, Sequence
from typing import Unpack

from sgvl.judges.base import AskedJudge, Form, Judgement, Results, once_a_picture
from sgvl.judges.served import refused, send
from sgvl.models.endpoint import Endpoint, Settings
from sgvl.models.protocol import Protocol
from sgvl.models.reply import Reply
from sgvl.text import prompts
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE


class HostedJudge(AskedJudge):
    """Base class: sends requests about pictures, and judges by the numbers that come back.

    Parameters
    ----------
    model : the server's name for it; must be in its list of models
    url : up to and with ``/v1``
    id : name in files, tables and claims
    revision : of the model. A hosted one can change under its name, so stored answers are
        identified by what is given here: name the date.
    settings : of the ``sgvl.models.endpoint.Endpoint``; eight pictures at a time
    """

    protocol: Protocol
    kind: str

    def __init__(
        self,
        model: str,
        url: str,
        id: str = "",
        revision: str | None = None,
        **settings: Unpack[Settings],
    ):
        self.id, self.revision = id or self.kind, revision
        self.endpoint = Endpoint(f"judge {self.id}", model, url, protocol=self.protocol, **settings)
        self.pictures_at_once = 4 * self.endpoint.concurrency

    def identity(self) -> dict:
        return {
            "kind": self.kind,
            "model": self.endpoint.model,
            "revision": self.revision,
            "image": [self.endpoint.image_format, self.endpoint.max_side],
        }

    def _send(self, cases: Sequence[tuple], texts: Sequence[str], read: Callable) -> Results:
        for batch in send(self.endpoint, [sample for sample, _ in cases], texts):
            yield [
                (i, refused(reply) if reply.error else read(reply), reply.error)
                for i, reply in batch
            ]


def _post(path: str) -> Callable:
    """Return how a request is sent to a path, whose response comes as JSON that nobody checked."""
    return lambda client, request: client.post(path, body=request, cast_to=object)


# -- moderations -----------------------------------------------------------------------------------


def _moderation_request(text: str, image_urls: Sequence[str]) -> dict:
    return {"input": [{"type": "image_url", "image_url": {"url": url}} for url in image_urls]}


def _read_moderation(response: object) -> Reply:
    try:
        (result,) = response["results"]
        scores = {
            str(name): _probability(score)
            for name, score in result["category_scores"].items()
            if score is not None  # as of a category that the model has not
        }
        flagged, kinds = result["flagged"], result.get("category_applied_input_types")
    except (AttributeError, KeyError, TypeError, ValueError):
        return Reply("", error="the response holds no scores of categories")
    if not scores or not isinstance(flagged, bool):
        return Reply("", error="the response holds no scores of categories")
    if isinstance(kinds, dict) and not any("image" in kind for kind in kinds.values()):
        return Reply("", error="no category of this model looks at images; choose another model")
    return Reply(json.dumps({"flagged": flagged, "category_scores": scores}, sort_keys=True))


class ModerationsJudge(HostedJudge):
    """Asks a ``/v1/moderations`` endpoint, which scores categories of its own and reads no policy.

    The verdict is the server's own, ``flagged``, and the rationale of an unsafe one its highest
    category. P(unsafe) is that category's score: it ranks pictures, and is no probability.
    """

    reads_policy = False
    kind = "moderations"
    protocol = Protocol("moderations", _moderation_request, _post("/moderations"), _read_moderation)

    def results(self, cases) -> Results:
        return once_a_picture(self._asked, cases)

    def _asked(self, cases) -> Results:
        return self._send(cases, [""] * len(cases), _by_categories)


def _by_categories(reply: Reply) -> Judgement:
    found = json.loads(reply.text)
    scores = found["category_scores"]
    highest = max(scores, key=scores.get)
    unsafe = found["flagged"]
    return Judgement(
        UNSAFE if unsafe else SAFE, scores[highest], highest if unsafe else None, reply.text
    )


# -- decisions -------------------------------------------------------------------------------------


def _decision_request(text: str, image_urls: Sequence[str]) -> dict:
    images = [{"type": "input_image", "image_url": url} for url in image_urls]
    question = {"type": "predicate", "name": "unsafe", "instructions": text}
    return {"input": [{"role": "user", "content": images}], "questions": [question]}


def _read_decision(response: object) -> Reply:
    try:
        (answer,) = response["answers"]
        if answer["type"] == "refusal":
            return Reply(json.dumps({"type": "refusal"}), "refusal")
        return Reply(json.dumps({"probability": _probability(answer["probability"])}))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Reply("", error="the response holds no probability")


class DecisionsJudge(HostedJudge):
    """Asks a ``/v1/decisions`` endpoint how likely it is that a picture breaks the policy.

    One question of the type ``predicate`` a case, ``prompts.STATEMENT`` with the policy in it; its
    probability is P(unsafe), and from 0.5 the verdict is unsafe. A question that the model declines
    is unparseable.

    Parameters
    ----------
    policy_form : see ``SpeakingJudge``

    The rest is as for ``HostedJudge``.
    """

    kind = "decisions"
    protocol = Protocol("decisions", _decision_request, _post("/decisions"), _read_decision)

    def __init__(
        self,
        model: str,
        url: str,
        id: str = "",
        revision: str | None = None,
        policy_form: Form = "full",
        **settings: Unpack[Settings],
    ):
        super().__init__(model, url, id, revision, **settings)
        self.policy_form = policy_form

    def identity(self) -> dict:
        asked = {"statement": prompts.STATEMENT, "policy_form": self.policy_form}
        return super().identity() | asked

    def results(self, cases) -> Results:
        texts = [
            prompts.STATEMENT.format(policy=prompts.inert(policy.render(self.policy_form)))
            for _, policy in cases
        ]
        return self._send(cases, texts, _by_probability)


def _by_probability(reply: Reply) -> Judgement:
    if reply.finish == "refusal":
        return Judgement(UNPARSEABLE, None, "the model declined the question", reply.text)
    p = json.loads(reply.text)["probability"]
    return Judgement(UNSAFE if p >= 0.5 else SAFE, p, None, reply.text)


def _probability(value: object) -> float:
    """Return a number from 0 to 1. Raises ValueError or TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(value)
    return float(value)
