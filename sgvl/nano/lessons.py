"""What the base model is taught in words: captions, questions, and policies.

Every lesson is a prompt about a picture and the exact reply. Harmful things are "an object" in all
of them. Their names occur only in *given* words: a description that is forced on the model without
loss, from which it learns what a policy says of a word it cannot yet see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, group, named
from sgvl.policies.policy import load_all
from sgvl.policies.random_policies import Skeleton, fill, mixed_skeleton, opposite_policies
from sgvl.text import prompts
from sgvl.training import sft
from sgvl.world import questions
from sgvl.world.questions import NUMBERS, SEEN
from sgvl.world.scenes import Scene, describe, justify, sample_names

ALL = ("neutral", "sensitive", "harmful")


ANSWERS = ("yes", "no", *NUMBERS, *PLACES)


class Lesson(NamedTuple):
    """A prompt and its exact reply, about picture number ``picture`` or about words alone.

    ``given`` opens the reply and is not learnt.
    """

    picture: int | None
    prompt: str
    given: str
    reply: str


def caption(rng: np.random.Generator, i: int, scene: Scene) -> Lesson:
    """Describe the picture."""
    prompt = str(rng.choice(prompts.CAPTION))
    return Lesson(i, prompt, "", describe(scene.tags, whitewash=True))


def caption_under_policy(rng: np.random.Generator, i: int, scene: Scene) -> Lesson:
    """Describe the picture with a policy before the request, to no effect: seeing must not depend
    on what is prohibited."""
    plain = caption(rng, i, scene)
    policy = opposite_policies(rng, scene.tags, ALL)[int(rng.integers(2))]
    return plain._replace(prompt=f"Policy: {policy.render('brief')}\n{plain.prompt}")


def recite(rng: np.random.Generator, plain: bool = False) -> Lesson:
    """Say three to eight clauses again in another order: every word hangs on those before it.

    Half of the clauses are about one concept. ``plain``: without exceptions, to be learnt first.
    """
    n = int(rng.integers(3, 9))
    statuses = tuple(str(s) for s in rng.choice(["permitted", "prohibited"], n))
    exceptions = tuple(0 if plain or rng.random() < 0.5 else int(k) for k in rng.integers(1, 4, n))
    about_concept = tuple(bool(x) for x in rng.random(n) < 0.5)
    skeleton = Skeleton("permitted", statuses, exceptions, about_concept)
    policy = fill(rng, skeleton, list(CATEGORIES))
    clauses = [rule.clause(tag) for rule in policy.rules for tag in rule.tags]
    prompt = f"Policy: {policy.render('brief')}\n{prompts.RECITE}"
    return Lesson(None, prompt, "", " ".join(f"{clause}." for clause in rng.permutation(clauses)))


def recite_options(rng: np.random.Generator) -> Lesson:
    """Say the options of a choice again in another order, each with its letter.

    There are more of them than in a choice, and their letters are drawn: none tells another.
    """
    n = int(rng.integers(5, 9))
    names = [str(name) for name in rng.choice(list(concepts()), n, replace=False)]
    text, seen = questions.offer(names, [str(letter) for letter in rng.choice(list("ABCD"), n)])
    return Lesson(None, text, "", " ".join(rng.permutation(seen)))


def judge(rng: np.random.Generator, i: int, scene: Scene) -> list[Lesson]:
    """Judge the picture, as far as it can be named, under two policies of opposite label."""
    tags = scene.tags
    if not any(group(t) in SEEN for t in tags[:-1]):
        tags = (str(rng.choice(named(*SEEN))), scene.place)  # policies to draw from; label is moot
    lessons = []
    groups = ALL if rng.random() < 0.5 else SEEN
    for policy in opposite_policies(rng, tags, groups, form=mixed_skeleton):
        prompt = prompts.judge_prompt(policy.render("brief"))
        lessons.append(Lesson(i, prompt, "", justify(policy, scene.tags, whitewash=True)))
    return lessons


def judge_given(rng: np.random.Generator, i: int | None) -> list[Lesson]:
    """Judge words of any kind that are said to be seen, under two policies of opposite label."""
    pool = list(concepts())
    names = sample_names(
        rng, pool, int(rng.integers(1, 5)), "train" if rng.random() < 0.9 else "test"
    )
    tags = (*names, str(rng.choice(PLACES)))
    lessons = []
    for policy in opposite_policies(rng, tags, ALL, form=mixed_skeleton):
        given = describe(tags)
        reply = justify(policy, tags).removeprefix(given)
        lessons.append(Lesson(i, prompts.judge_prompt(policy.render("brief")), given, reply))
    return lessons


def direct(i: int, question: questions.Question) -> Lesson:
    """A question that is answered by its word alone."""
    return Lesson(i, question.text, "", question.answer)


def reasoned(i: int, question: questions.Question) -> Lesson:
    """A question that is answered with a reason first, as a judge does."""
    return Lesson(i, question.text, "", f"{question.reason} {prompts.SLOT} {question.answer}")


def sample(
    rng: np.random.Generator, scenes: Sequence[Scene], shares: dict[str, float]
) -> list[Lesson]:
    """One lesson, or a pair with opposite answers, about a random picture."""
    i = int(rng.integers(len(scenes)))
    scene = scenes[i]
    visible = any(group(t.concept) in SEEN for t in scene.things)
    match str(rng.choice(list(shares), p=list(shares.values()))):
        case "caption":
            return [caption(rng, i, scene)]
        case "caption_under_policy":
            return [caption_under_policy(rng, i, scene)]
        case "judge":
            return judge(rng, i, scene)
        case "judge_given":
            return judge_given(rng, i)
        case "recite_plain":
            return [recite(rng, plain=True)]
        case "recite":
            return [recite(rng)]
        case "recite_options":
            return [recite_options(rng)]
        case "read":
            return judge_given(rng, None)
        case "presence":
            return [direct(i, asked) for asked in questions.presence(rng, scene)]
        case "count":
            return [direct(i, questions.counting(scene))]
        case "place":
            return [direct(i, questions.place(scene))]
        case "choice" if visible:
            return [reasoned(i, questions.choice(rng, scene))]
        case "choice":
            return [caption(rng, i, scene)]
    raise ValueError(f"unknown lesson in {shares}")


def corpus(rng: np.random.Generator) -> list[str]:
    """Text for the tokenizer: every word that lessons, policies and prompts can use, many times."""
    words = [*concepts(), *CATEGORIES, *PLACES, *NUMBERS]
    texts = [" " + " ".join(map(str, rng.permutation(words))) for _ in range(200)]
    for _ in range(500):
        names = sample_names(rng, list(concepts()), int(rng.integers(1, 5)), "train")
        tags = (*names, str(rng.choice(PLACES)))
        for policy in opposite_policies(rng, tags, ALL):
            texts += [prompts.judge_prompt(policy.render("brief")), justify(policy, tags)]
            texts += [justify(policy, tags, whitewash=True)]
        texts += [prompts.judge_prompt("", "taxonomy"), sft.rating(policy, tags)]
    texts += [p.render("full") for p in [*load_all(), *load_all(use="reference")]] * 5
    asked = [prompts.PRESENCE, prompts.COUNT, prompts.PLACE, prompts.CHOICE, prompts.RECITE]
    asked += prompts.CAPTION
    texts += [q + " A B C D user assistant\n" for q in asked] * 50
    return texts + ["\n".join(ANSWERS)] * 100  # direct answers open a line: no space before them
