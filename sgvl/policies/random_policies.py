"""Random policies in pairs: one makes a scene safe, the other unsafe, and both have one skeleton.

If unsafe cases had more rules, or longer ones, a judge could score without seeing the picture. So a
*skeleton* is drawn first (the default, the number of clauses, the status and the number of
exceptions of each clause) and filled with tags twice: once so that the scene is safe, once so that
it is unsafe. Neither the skeleton nor the scene predicts the label; only policy and scene together
determine it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sgvl.common.errors import InputError
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, in_category
from sgvl.policies.policy import Policy
from sgvl.policies.rules import OPPOSITE


class Skeleton(NamedTuple):
    """A policy without its tags and places."""

    default: str
    statuses: tuple[str, ...]  # of each clause: prohibited or permitted
    exceptions: tuple[int, ...]  # number of places that each clause excepts
    about_concept: tuple[bool, ...]  # True for a clause about one concept, not a category
    carved: int | None = None  # a clause, one of whose concepts has a clause of its own


def sample_skeleton(rng: np.random.Generator, longest: int, default: str | None = None) -> Skeleton:
    """Draw 1 to 6 clauses, sometimes up to ``longest``; at least one contradicts the default."""
    default = default or str(rng.choice(["permitted", "prohibited"], p=[0.7, 0.3]))
    n = _clauses(rng, longest)
    against = rng.random(n) < 0.85
    against[rng.integers(n)] = True
    statuses = tuple(OPPOSITE[default] if x else default for x in against)
    exceptions = tuple(int(rng.integers(1, 4)) if rng.random() < 0.3 else 0 for _ in range(n))
    return Skeleton(default, statuses, exceptions, tuple(bool(x) for x in rng.random(n) < 0.12))


def mixed_skeleton(rng: np.random.Generator, longest: int, default: str | None = None) -> Skeleton:
    """Draw a skeleton of the same length whose statuses are fair coins, half with exceptions.

    No clause can then be predicted from the others or from the default.
    """
    n = _clauses(rng, longest)
    statuses = tuple(_coin(rng) for _ in range(n))
    exceptions = tuple(int(rng.integers(1, 4)) if rng.random() < 0.5 else 0 for _ in range(n))
    about_concept = tuple(bool(x) for x in rng.random(n) < 0.12)
    return Skeleton(default or _coin(rng), statuses, exceptions, about_concept)


def detailed_skeleton(
    rng: np.random.Generator, longest: int, default: str | None = None
) -> Skeleton:
    """Draw a mixed skeleton, half with a clause one of whose concepts is carved out of it."""
    mixed = mixed_skeleton(rng, longest, default)
    return mixed._replace(carved=int(rng.integers(2 * len(mixed.statuses))))


def _clauses(rng: np.random.Generator, longest: int) -> int:
    return int(rng.integers(1, longest + 1 if rng.random() < 0.2 else min(6, longest) + 1))


def _coin(rng: np.random.Generator) -> str:
    return str(rng.choice(["permitted", "prohibited"]))


def fill(
    rng: np.random.Generator,
    skeleton: Skeleton,
    categories: Sequence[str],
    first: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> Policy:
    """Fill a skeleton with random tags of ``categories``; those in ``first`` are always used.

    With the ``tags`` of a scene, its place is in half of the lists of exceptions, and clauses about
    one concept are about the scene's own.
    """
    rest = [c for c in rng.permutation(categories) if c not in first]
    chosen = rng.permutation([*first, *rest][: len(skeleton.statuses)])
    things, here = tags[:-1], tags[-1:]
    elsewhere = [place for place in PLACES if place not in here]
    clauses = []
    for k, (category, status, n, one) in enumerate(zip(chosen, *skeleton[1:4], strict=True)):
        tag, carved = str(category), k == skeleton.carved and not one
        if one or carved:
            own = [thing for thing in things if concepts()[thing].category == category]
            thing = str(rng.choice(own or in_category(category)))
        places = [str(p) for p in rng.choice(elsewhere, n, replace=False)]
        if n and here and rng.random() < 0.5:
            places[rng.integers(n)] = here[0]
        clauses.append((thing if one else tag, status, places))
        if carved:
            clauses.append((thing, OPPOSITE[status], []))
    if skeleton.carved is not None:
        clauses = [clauses[k] for k in rng.permutation(len(clauses))]
    rules = [
        {
            "prohibit" if status == "prohibited" else "permit": [tag],
            "except": places,
            "text": f"{tag} {status}",
        }
        for tag, status, places in clauses
    ]
    return Policy(name="random", title="Random policy", default=skeleton.default, rules=rules)


def opposite_policies(
    rng: np.random.Generator,
    tags: Sequence[str],
    groups: Sequence[str],
    default: str | None = None,
    form: Callable[..., Skeleton] = sample_skeleton,
    about: Sequence[str] = (),
) -> tuple[Policy, Policy]:
    """Draw two policies of one skeleton: the first makes the scene safe, the second unsafe.

    Parameters
    ----------
    rng : source of the draws
    tags : a scene's concepts, then its place
    groups : groups of categories that the policies may name
    default : of both policies (default: drawn)
    form : draws the skeleton
    about : ``tags`` once more, where clauses are to be about the scene, as ``fill`` describes

    Raises
    ------
    InputError
        If no drawn policy changes the scene's label.
    """
    pool = [c.name for c in CATEGORIES.values() if c.group in groups]
    seen = sorted({concepts()[t].category for t in tags[:-1]} & set(pool))
    for _ in range(100):  # far more than needed for a scene with a category to name
        skeleton = form(rng, min(14, len(pool)), default)
        if {skeleton.default} == set(skeleton.statuses) and not any(skeleton.exceptions):
            continue  # treats everything alike
        by_label: dict[str, Policy] = {}
        for _ in range(40):
            n = int(rng.integers(0, min(len(seen), len(skeleton.statuses)) + 1))
            policy = fill(rng, skeleton, pool, list(rng.permutation(seen)[:n]), about)
            by_label.setdefault(policy.label(tags).label, policy)
            if len(by_label) == 2:
                return by_label["safe"], by_label["unsafe"]
    raise InputError(f"policies over {', '.join(groups)} cannot change the label of {tags}")
