"""A recipe trained again with other seeds: how much of a difference is luck?

Only the seed of training changes: the order of the rows, and what GRPO samples. Data, base model
and test sets stay as they are.
"""

import re
from pathlib import Path

import pandas as pd

from sgvl.common.paths import ROOT, runs
from sgvl.experiments.benchmark import TestSets, ask_panel, joined
from sgvl.experiments.claims import Effect, Evidence, Term
from sgvl.policies.policy import LEVELS
from sgvl.run import units
from sgvl.training import grpo, launch, sft

# What is compared over seeds: frame of ``sgvl.experiments.benchmark``, policies, metric.
MEASURES = {
    "harmful things named": ("naming", ("harmful",), "accuracy"),
    "random policies followed": ("following_harmful", (), "balanced_accuracy"),
    "L2 to L5 followed": ("levels", LEVELS[1:], "balanced_accuracy"),
    "general ability": ("general", (), "accuracy"),
}


def train(
    unit: str,
    seed: int,
    recipes: str,
    profile: str,
    data_profile: str,
    settings: dict | None = None,
) -> Path:
    """Train ``params/<recipes>/<unit>.yaml`` with another seed, and return the model's folder.

    A recipe that starts from the weights of another unit starts from that unit's weights of the
    same seed, which are trained first. ``settings`` are laid over the recipe's. What is finished in
    ``runs/<profile>`` is not trained again. Raises InputError for a unit that is not a training.
    """
    known = units.load_units(recipes)
    (name,) = units.match_units(unit, [u for u in known if u.startswith(("03_", "04_"))])
    recipe = known[name].parameters
    folder = runs(profile) / "training" / f"{unit}.seed{seed}"
    model = recipe["model"]
    if earlier := re.fullmatch(f"runs/{re.escape(recipes)}/training/([^/]+)/model", model):
        model = str(
            train(earlier[1], seed, recipes, profile, data_profile, settings).relative_to(ROOT)
        )
    stage, job = "sft", {}
    if name.startswith("03_"):
        rows = sft.rows_of(recipe["variant"], runs(data_profile), recipe["replay"])
    else:
        stage, job = "grpo", {"reward": recipe["reward"], "parser": recipe["parser"]}
        rows = grpo.shuffled(grpo.rows_of(recipe["variant"], runs(data_profile)), seed)
    launch.train(
        stage, rows, recipe["processes"], recipe["layout"], model=model, folder=folder,
        settings=recipe["settings"] | {"seed": seed} | (settings or {}), dtype=recipe["dtype"],
        lora=recipe["lora"] or None, **job,
    )  # fmt: skip
    return folder / "model"


def ask(models: dict[tuple[str, int], Path], sets: TestSets, folder: Path) -> dict:
    """Ask the model of each (judge id, training seed) everything that 05 asks.

    Returns the frames of ``sgvl.experiments.benchmark`` with a column ``seed``.
    """
    parts = []
    for (judge, seed), model in models.items():
        spec = {"kind": "chat", "id": judge, "model": str(model), "with_p_unsafe": False}
        panel = ask_panel([spec], [], sets, [], folder / f"seed{seed}")
        parts.append({name: frame.assign(seed=seed) for name, frame in panel.frames.items()})
    return joined(parts)


def measured(evidence: Evidence, judges: list[str]) -> pd.DataFrame:
    """Each judge by each measure: judge, measure and the fields of ``Effect``, in percent."""
    return pd.DataFrame(
        {"judge": judge, "measure": name} | _effect(evidence, name, judge)._asdict()
        for judge in judges
        for name in MEASURES
    )


def compared(evidence: Evidence, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """By how many points the first judge of each pair lies above the second, by each measure."""
    return pd.DataFrame(
        {"judge": a, "against": b, "measure": name} | _effect(evidence, name, a, b)._asdict()
        for a, b in pairs
        for name in MEASURES
    )


def by_seed(frames: dict[str, pd.DataFrame], judges: list[str], resamples: int) -> pd.DataFrame:
    """``measured`` for every training run on its own, with a column ``seed``."""
    tables = []
    for seed in sorted(set(frames["levels"]["seed"])):
        own = {name: frame[frame["seed"] == seed] for name, frame in frames.items()}
        there = [judge for judge in judges if judge in set(own["levels"]["judge"])]
        tables.append(measured(Evidence(own, resamples=resamples), there).assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def _effect(evidence: Evidence, measure: str, a: str, b: str | None = None) -> Effect:
    frame, policies, metric = MEASURES[measure]
    terms = [Term(frame, judge, policies, metric) for judge in (a, b) if judge]
    return evidence.effect(*terms)
