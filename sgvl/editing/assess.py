"""Step 1: an assessor says "safe" or how to edit, and after the edit, whether that was done.

An assessor is a captioner (``sgvl.recaption``) under the prompts ``assess`` and ``verify``, so that
its replies are stored, resumed, counted and priced as captions are. The kinds ``served`` and
``chat`` work in words; ``rationale`` makes the instruction from the reasons of a judge.
"""

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import PositiveInt

from sgvl.common.registry import check, make, options_of
from sgvl.models.chat_model import ChatModel
from sgvl.policies.concepts import named
from sgvl.policies.policy import load
from sgvl.recaption import caption_all
from sgvl.recaption.base import GARBAGE, OK, Captioner, Item
from sgvl.recaption.chat import ChatCaptioner
from sgvl.text import prompts
from sgvl.world.scenes import allowed, in_words

ASSESSORS = {
    "served": "sgvl.recaption.served:ServedCaptioner",
    "chat": "sgvl.recaption.chat:ChatCaptioner",
    "rationale": "sgvl.editing.assess:RationaleAssessor",
}
SAFE = "safe"  # the status of a picture that needs no edit
DONE, TARGET, REPLACEMENT = VERIFIED = ("done", "target still there", "replacement missing")

_THING = re.compile(r"\ban? (\w+)")
_PROHIBITED = re.compile(r"(\w+): [^.:]*\bprohibited\b")


def make_assessors(spec: str | dict) -> list[Captioner]:
    """Build the assessor of a parameter file twice, under both prompts; they share one model."""
    first = make("assessor", ASSESSORS, {**options_of(spec), "prompt": "assess"})
    second = copy.copy(first)
    second.prompt = "verify"
    return [first, second]


def check_assessor(spec: dict) -> None:
    """Check the spec of an assessor; no model loads. Raises InputError."""
    check("assessor", ASSESSORS, {**options_of(spec), "prompt": "assess"})


def assess_all(
    assessor: Captioner,
    items: Sequence[Item],
    path: str | Path,
    progress: Callable[[int, int], object] | None = None,
    dry_run: bool = False,
) -> list[dict]:
    """Ask for an instruction for each picture, as ``caption_all`` asks for captions.

    Returns
    -------
    list of dict
        One per item, in order: id, status ("safe", or one of ``recaption.base.STATUSES``), text
        (the instruction of a row that is ok), reason and reply.
    """
    read = getattr(assessor, "instruction", instruction)
    rows = caption_all(assessor, items, path, progress, dry_run)
    return [
        row | read(item, row["text"]) if row["status"] == OK else row
        for item, row in zip(items, rows, strict=True)
    ]


def verify_all(
    assessor: Captioner,
    items: Sequence[Item],
    path: str | Path,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """Ask of each edited picture whether its edit was made; ``caption`` is the instruction.

    Returns one of ``VERIFIED`` for each, or ``not verified`` with the reason.
    """
    read = getattr(assessor, "verdict", verdict)
    rows = caption_all(assessor, items, path, progress)
    return [
        read(item, row["text"]) if row["status"] == OK else f"not verified: {row['reason']}"
        for item, row in zip(items, rows, strict=True)
    ]


def instruction(item: Item, text: str) -> dict:
    """Read a reply in words: the status "safe", or ok with the instruction.

    >>> instruction(None, "Safe.")
    {'status': 'safe', 'text': ''}
    """
    safe = text.strip(" .\"'*\n").casefold() == SAFE
    return _SAFE if safe else {"status": OK, "text": text}


def verdict(item: Item, text: str) -> str:
    """Read a reply to ``verify``: the one of ``VERIFIED`` that it opens with."""
    said = text.strip(" .\"'*\n").casefold()
    return next((v for v in VERIFIED if said.startswith(v)), f"not verified: {text[:80]!r}")


class RationaleAssessor(ChatCaptioner):
    """Asks a chat judge for its reasons under a policy, and replaces what these call prohibited.

    It is for drawn scenes and for models that this kit trained, whose reasons list the things from
    left to right and from top to bottom, and then what the policy says of each. It sees the picture
    and no tags. A model that does not name what is harmful, as the shipped one, calls it an object;
    under a policy that prohibits all that it does not list, that is enough. The replacement is a
    thing that the policy permits and that the reasons do not name, chosen by the picture's digest.

    Parameters
    ----------
    model : as for the chat judge
    policy : name or file of a policy with rules
    split : whose compositions of things the replacement keeps to: train or test
    name : printed in tables; by default the model's
    """

    def __init__(
        self,
        model: str = "nano",
        policy: str = "L5",
        split: str = "train",
        prompt: str = "assess",
        name: str | None = None,
        max_tokens: PositiveInt = 100,
        batch_size: PositiveInt = 32,
    ):
        self.policy, self.split, self.prompt = load(policy), split, prompt
        self.name, self.max_tokens, self.batch_size = name or model, max_tokens, batch_size
        self.chat = ChatModel(model)

    def identity(self) -> dict:
        settings = {"prompt": self.request(None), "max_tokens": self.max_tokens}
        return {"kind": "rationale", **self.chat.identity(), **settings}

    def request(self, item: Item | None) -> str:
        return prompts.judge_prompt(self.policy.render("brief"), "reason")

    def instruction(self, item: Item, text: str) -> dict:
        """Turn reasons into an instruction.

        The reasons "I see a dog and an object at the park. dog: animals permitted. object: unknown,
        all else prohibited. Answer: unsafe" become "Replace thing 2 of 2, the object, with a key."
        """
        things, targets = self._read(text)
        if not targets:
            unsafe = text.rstrip(".").endswith("unsafe")
            reason = "unsafe, but no thing is prohibited"
            return {"status": GARBAGE, "text": "", "reason": reason} if unsafe else _SAFE
        edits, known = [], [thing for thing in things if thing in named("neutral", "sensitive")]
        for place in targets:
            after = self._replacement(item, place, known)
            known.append(after)
            what = f"thing {place + 1} of {len(things)}, the {things[place]},"
            edits.append(f"Replace {what} with {in_words([after])}.")
        return {"status": OK, "text": " ".join(edits)}

    def verdict(self, item: Item, text: str) -> str:
        """Compare the reasons on an edited picture with its instruction."""
        things, targets = self._read(text)
        if targets:
            return TARGET
        wanted = re.findall(r"with an? (\w+)", item.caption)
        return DONE if set(wanted) <= set(things) else REPLACEMENT

    def _read(self, text: str) -> tuple[list[str], list[int]]:
        """Return the things that reasons name, and the places of those that are prohibited."""
        things = _THING.findall(text.partition(" at the ")[0])
        prohibited = set(_PROHIBITED.findall(text))
        return things, [place for place, thing in enumerate(things) if thing in prohibited]

    def _replacement(self, item: Item, place: int, known: list[str]) -> str:
        fitting = [
            name
            for name in named("neutral")
            if name not in known and self.policy.item(name, "").status == "permitted"
        ]
        fitting = [name for name in fitting if allowed([name, *known], self.split)] or fitting
        return fitting[(int(item.digest[:12], 16) + place) % len(fitting)]


_SAFE = {"status": SAFE, "text": ""}
