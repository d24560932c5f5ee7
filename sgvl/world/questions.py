"""Questions about drawn scenes that measure general ability, with their exact answers.

There are four tasks: presence, counting, place, and multiple choice with four options. All are
about things that the base model can name, and none is about safety.
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
    """A question about a picture, with its exact answer."""

    text: str
    answer: str
    reason: str = ""  # the sentence on the picture that decides the answer


def _here_and_away(scene: Scene, groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the things of these groups that are in the scene, and those that are not."""
    here = [t.concept for t in scene.things if group(t.concept) in groups]
    return here, [name for name in named(*groups) if name not in here]


def presence(
    rng: np.random.Generator, scene: Scene, groups: Sequence[str] = SEEN
) -> list[Question]:
    """Ask for a thing of these groups that is not in the scene, and for one that is, if any is."""
    here, away = _here_and_away(scene, groups)
    cases = [(str(rng.choice(away)), "no")] + ([(str(rng.choice(here)), "yes")] if here else [])
    return [Question(prompts.PRESENCE.format(thing=in_words([n])), answer) for n, answer in cases]


def counting(scene: Scene) -> Question:
    """Ask for the number of things in the scene."""
    return Question(prompts.COUNT, NUMBERS[len(scene.things) - 1])


def place(scene: Scene) -> Question:
    """Ask for the place of the scene."""
    return Question(prompts.PLACE, scene.place)


def choice(rng: np.random.Generator, scene: Scene, groups: Sequence[str] = SEEN) -> Question:
    """Ask which of four options is in the picture; the answer is the letter of the only one."""
    here, away = _here_and_away(scene, groups)
    right = int(rng.integers(4))
    options = [str(n) for n in rng.choice(away, 4, replace=False)]
    options[right] = str(rng.choice(here))
    text, reasons = offer(options)
    return Question(text, "ABCD"[right], reasons[right])


def offer(options: Sequence[str], letters: Sequence[str] = "ABCD") -> tuple[str, list[str]]:
    """Return the question with these options, and for each option the reason to choose it.

    A letter follows its option as a status follows its category in a policy, so that the model
    learns one kind of look-up for both.
    """
    lettered = list(zip(options, letters, strict=True))
    listed = "; ".join(f"{name} {letter}" for name, letter in lettered)
    reasons = [f"I see {in_words([name])} {letter}." for name, letter in lettered]
    return prompts.CHOICE.format(options=f"{listed}."), reasons


def answer_in(reply: str) -> str:
    """Return the answer in a reply: what follows the last ``Answer:``, or the whole reply."""
    return reply.rpartition(prompts.SLOT)[2].strip().rstrip(".")
