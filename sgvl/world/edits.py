"""Pictures for an edit of a policy: half of them hold a thing whose status it may change."""

import numpy as np
from datasets import Dataset, Value

from sgvl.policies.concepts import PLACES, named
from sgvl.policies.policy import Policy
from sgvl.world.drawn_rows import row, table
from sgvl.world.scenes import sample_names, sample_scene

TRIES = 20  # scenes drawn until one is labelled otherwise; rare where all else is prohibited


def pictures(before: Policy, now: Policy, n: int = 200, seed: int = 0) -> Dataset:
    """Draw test pictures of which about half are labelled otherwise after an edit.

    Every second picture is drawn until its label changes, ``TRIES`` times at most, around a thing
    and a place that the two versions treat differently; the others are drawn at random. Where an
    edit changes no status, all are.
    """
    rng, groups = np.random.default_rng((seed, 70)), ("harmful", "neutral", "sensitive")
    cells = [
        (name, place)
        for name in named(*groups)
        for place in PLACES
        if before.item(name, place).status != now.item(name, place).status
    ]
    records = []
    for k in range(n):
        for _ in range(TRIES):
            fixed, place = [], None
            if k % 2 and cells:
                name, place = cells[rng.integers(len(cells))]
                fixed = [name]
            more = int(rng.integers(0, 3)) if fixed else int(rng.integers(1, 5))
            names = sample_names(
                rng, named("neutral") if fixed else named(*groups), more, "test", fixed
            )
            scene = sample_scene(rng, "test", names, place)
            if not fixed or before.label(scene.tags).label != now.label(scene.tags).label:
                break
        name = f"edit-{k:03d}"
        facts = {"id": name, "pair": name, "source": "edit-nano", "split": "test", "category": ""}
        records.append(row(scene, **facts))
    return table(records, pair=Value("string"))
