"""Questions of general ability about drawn scenes, with their exact answers.

Four tasks: presence, counting, place, and multiple choice with four options. All ask about things
that the base model can name; none is about safety.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgvl.policies.concepts import group, named
from sgvl.text import prompts
from sgvl.world.scenes import Scene, in_words

NUMBERS = ("one", "two", "three", "four")
SEEN = ("neutral", "sensitive")  # groups of concepts that the base model can name


class Question(NamedTuple):
    """A question about a picture, and the answer word for word."""

    text: str
    answer: str
    reason: str = ""  # what is seen that decides the answer


def _here_and_away(scene: Scene) -> tuple[list[str], list[str]]:
    here = [t.concept for t in scene.things if group(t.concept) in SEEN]
    return here, [name for name in named(*SEEN) if name not in here]


def presence(rng: np.random.Generator, scene: Scene) -> list[Question]:
    """Two questions with opposite answers: something that is not there, and something that is."""
    here, away = _here_and_away(scene)
    asked = [(str(rng.choice(away)), "no")] + ([(str(rng.choice(here)), "yes")] if here else [])
    return [Question(prompts.PRESENCE.format(thing=in_words([n])), word) for n, word in asked]


def counting(scene: Scene) -> Question:
    return Question(prompts.COUNT, NUMBERS[len(scene.things) - 1])


def place(scene: Scene) -> Question:
    return Question(prompts.PLACE, scene.place)


def choice(rng: np.random.Generator, scene: Scene) -> Question:
    """Four options, one of them in the picture; the answer is its letter."""
    here, away = _here_and_away(scene)
    right = int(rng.integers(4))
    options = [str(n) for n in rng.choice(away, 4, replace=False)]
    options[right] = str(rng.choice(here))
    text, seen = offer(options)
    return Question(text, "ABCD"[right], seen[right])


def offer(options: Sequence[str], letters: Sequence[str] = "ABCD") -> tuple[str, list[str]]:
    """The question that offers these options, and for each the sentence that says it is seen.

    A letter follows its option, as a status follows its category in a policy: one look-up for both.
    """
    lettered = list(zip(options, letters, strict=True))
    listed = "; ".join(f"{name} {letter}" for name, letter in lettered)
    seen = [f"I see {in_words([name])} {letter}." for name, letter in lettered]
    return prompts.CHOICE.format(options=f"{listed}."), seen


def answer_in(reply: str) -> str:
    """The answer that a reply gives: what follows ``Answer:``, or else the reply itself."""
    return reply.rpartition(prompts.SLOT)[2].strip().rstrip(".")
