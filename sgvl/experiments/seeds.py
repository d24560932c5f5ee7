"""Training a recipe again with other seeds, to measure how much results vary between runs.

The seed decides the order of the rows and what GRPO samples. Data, base model and test sets do not
change.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, need_known
from sgvl.common.paths import ROOT, runs
from sgvl.common.registry import id_of
from sgvl.data.cases import cases_of
from sgvl.experiments import rationales
from sgvl.experiments.benchmark import TestSets, ask_panel
from sgvl.experiments.benchmark_files import joined
from sgvl.experiments.claims import Effect, Evidence, Term
from sgvl.policies.policy import LEVELS
from sgvl.run import units
from sgvl.scores.metrics import of_right
from sgvl.training import grpo, launch, sft
from sgvl.training.reward import GROUNDED
from sgvl.training.screening import screened
from sgvl.training.trainer import check_fields

# The measures that are compared over seeds: frame, policies and metric of a ``Term``.
MEASURES = {
    "harmful things named": ("naming", ("harmful",), "accuracy"),
    "random policies followed": ("following_harmful", (), "balanced_accuracy"),
    "UnsafeBench": ("content", (), "headline"),
    "L2 to L5 followed": ("levels", LEVELS[1:], "balanced_accuracy"),
    "right for the right reason": ("reasons", LEVELS[1:], "accuracy"),
    "general ability": ("general", (), "accuracy"),
}


def check(recipes: str, trainings: Sequence[int], trained: dict, settings: dict) -> None:
    """Check what is to be trained again, before anything runs.

    Raises InputError for no seeds; for units that are no trainings and judges that 05 of
    ``recipes`` does not ask, with the nearest name; and for what ``check_fields`` finds.
    """
    if not trainings:
        raise InputError("trainings: name at least one seed")
    known, stages = units.load_units(recipes), {"03": "sft", "04": "grpo"}
    specs = specs_of(recipes)
    for judge, unit in [("base", None), *trained.items()]:
        need_known("trained: judge", judge, specs)
        if unit is not None:
            need_known("trained: no unit", unit, [name for name in known if name[:2] in stages])
            check_fields(stages[unit[:2]], settings)


def train(
    unit: str,
    seed: int,
    recipes: str,
    profile: str,
    data_profile: str,
    settings: dict,
    variation: str = "",
    changes: Mapping = MappingProxyType({}),
) -> Path:
    """Train one recipe with another seed, unless that is done, and return the model's folder.

    A recipe that starts from the weights of another unit starts from that unit's weights of the
    same seed, which are trained first.

    Parameters
    ----------
    unit, recipes : of the parameter file, ``params/<recipes>/<unit>.yaml``
    seed : of training
    profile : run folder of the trainings
    data_profile : run folder of the data sets and of the captions
    settings : replace settings of the recipe
    variation, changes : name and parameters of a recipe that differs from the unit's in these; its
        first weights are those that the unit starts from

    Raises
    ------
    InputError
        For a unit that is not a training, with the nearest name.
    """
    trainings = {
        name: loaded.parameters
        for name, loaded in units.load_units(recipes).items()
        if name.startswith(("03_", "04_"))
    }
    need_known("no unit", unit, trainings)
    recipe = changed(trainings[unit], changes)
    name = ".".join(filter(None, (unit, variation, f"seed{seed}")))
    folder = runs(profile) / "training" / name
    model = recipe["model"]
    if earlier := unit_of(recipes, model):
        start = train(earlier, seed, recipes, profile, data_profile, settings)
        model = start.relative_to(ROOT).as_posix()
    chosen = recipe["settings"] | {"seed": seed} | settings
    load = {"dtype": recipe["dtype"], "revision": recipe["revision"] or None}
    load |= {"max_pixels": recipe["max_pixels"] or None}
    way = {part: recipe[part] for part in ("train", "pairs_train", "policy_form", "prompt")}
    if unit.startswith("03_"):
        stage, options = "sft", {}
        way |= {"recaption": recipe["captions"]}
        rows = sft.rows_of(recipe["variant"], runs(data_profile), **way)
    else:
        stage, options = "grpo", {"reward": recipe["reward"], "parser": recipe["parser"]}
        way |= {"system": recipe["system"], "exact": recipe["reward"] == GROUNDED}
        rows = grpo.shuffled(grpo.rows_of(recipe["variant"], runs(data_profile), **way), seed)
        screen, keep = folder.with_name(f"{name}.screen"), recipe["keep_p_unsafe"]
        rows, _ = screened(rows, keep, screen, model, chosen, recipe["parser"], **load)
    launch.train(
        stage, rows, recipe["processes"], recipe["layout"], model=model, folder=folder,
        settings=chosen, lora=recipe["lora"] or None, **load, **options,
    )  # fmt: skip
    return folder / "model"


def unit_of(recipes: str, model: str) -> str:
    """Return the unit that trains a model of the profile ``recipes``; "" for any other model."""
    trained = re.fullmatch(f"runs/{re.escape(recipes)}/training/([^/]+)/model", model)
    return trained[1] if trained else ""


def changed(recipe: Mapping, changes: Mapping) -> dict:
    """Return a recipe with other parameters; its settings stay, but for those that are named.

    >>> changed({"seed": 0, "settings": {"beta": 0.02, "top_k": 0}}, {"settings": {"beta": 0}})
    {'seed': 0, 'settings': {'beta': 0, 'top_k': 0}}
    """
    return {**recipe, **changes, "settings": recipe["settings"] | changes.get("settings", {})}


def specs_of(recipes: str) -> dict[str, dict]:
    """Return how each judge of ``params/<recipes>/05_benchmark.yaml`` is made, by id."""
    benchmark = units.load_units(recipes)["05_benchmark"].parameters
    specs = [*benchmark["judges"], *benchmark["level_judges"]]
    return {id_of(spec): spec for spec in specs}


def judge_names(recipes: str, judges: Iterable[str]) -> dict[str, str]:
    """Return the display name of each judge in ``params/<recipes>/05_benchmark.yaml``, by id.

    A judge without a name there keeps its id.
    """
    specs = specs_of(recipes)
    return {judge: specs.get(judge, {}).get("name", judge) for judge in judges}


def ask(
    models: dict[tuple[str, int], Path | None], recipes: str, sets: TestSets, folder: Path,
    like: str = "",
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Ask every model about every test set, as the profile ``recipes`` asks its judges.

    Parameters
    ----------
    models : a model's folder for each (judge id, training seed); None is the judge's own model
    folder : where answers are stored; what it holds is not asked again
    like : the judge of ``recipes`` as which all are asked; by default the one of the same id

    Returns
    -------
    dict
        Frames of ``sgvl.experiments.benchmark_files`` with a column seed, and ``reasons``: whether
        an answer of ``levels`` is right, and for the right reason.

    Raises
    ------
    InputError
        For a judge that 05 of ``recipes`` does not ask, with the nearest id.
    """
    parts = []
    for (judge, seed), model in models.items():
        spec = spec_of(judge, model, recipes, like)
        panel = ask_panel([spec], [], sets, [], folder / f"seed{seed}")
        parts.append({name: frame.assign(seed=seed) for name, frame in panel.frames.items()})
    frames = joined(parts)
    return frames | {"reasons": _reasons(frames["levels"], sets.bench)}


def spec_of(judge: str, model: Path | None, recipes: str, like: str = "") -> dict:
    """Return how a judge is made whose model was trained again; None is its own model.

    Raises InputError for a judge that 05 of ``recipes`` does not ask, with the nearest id.
    """
    specs = specs_of(recipes)
    need_known("judge", like or judge, specs)
    spec = specs[like or judge] | {"id": judge, "with_p_unsafe": False}
    # Relative, as in 05: a checkout that has moved keeps its answers.
    return spec | ({"model": model.relative_to(ROOT).as_posix()} if model else {})


def with_once(
    frames: dict[str, pd.DataFrame], once: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Add the answers of judges that were trained once: those of ``once`` that ``frames`` lacks.

    Both are those of ``sgvl.experiments.benchmark_files``; judges that are added get the seed 0.
    """
    again = set(frames["levels"]["judge"])
    return frames | {
        name: pd.concat([frame, own[~own["judge"].isin(again)].assign(seed=0)])
        for name, frame in frames.items()
        if (own := once.get(name)) is not None
    }


def _reasons(levels: pd.DataFrame, bench: Dataset) -> pd.DataFrame:
    """Return whether each answer is right for the right reason, and the parts of its rationale."""
    cases = cases_of(bench)
    parts = [
        rationales.read(own, cases, bench).assign(seed=seed) for seed, own in levels.groupby("seed")
    ]
    exact = pd.concat(parts).dropna(subset="right")
    exact = exact.assign(verdict_right=exact["verdict"] == exact["label"])
    return of_right(exact.astype({"right": bool}))


def measure(evidence: Evidence, judges: list[str]) -> pd.DataFrame:
    """Score each judge by each measure, over all of its training runs.

    Returns
    -------
    pandas.DataFrame
        judge, measure, and the fields of ``Effect``, in percent.
    """
    return pd.DataFrame(
        {"judge": judge, "measure": name} | _effect(evidence, name, judge)._asdict()
        for judge in judges
        for name in MEASURES
    )


def compare(evidence: Evidence, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Subtract the second judge of each pair from the first, by each measure.

    Returns
    -------
    pandas.DataFrame
        judge (the first), against (the second), measure, and the fields of ``Effect``, in points.
    """
    return pd.DataFrame(
        {"judge": a, "against": b, "measure": name} | _effect(evidence, name, a, b)._asdict()
        for a, b in pairs
        for name in MEASURES
    )


def by_seed(frames: dict[str, pd.DataFrame], judges: list[str], resamples: int) -> pd.DataFrame:
    """Score each training run on its own: what ``measure`` returns, with a column seed."""
    tables = []
    for seed in sorted(set(frames["levels"]["seed"])):
        own = {name: frame[frame["seed"] == seed] for name, frame in frames.items()}
        trained = [judge for judge in judges if judge in set(own["levels"]["judge"])]
        tables.append(measure(Evidence(own, resamples=resamples), trained).assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def _effect(evidence: Evidence, name: str, a: str, b: str | None = None) -> Effect:
    frame, policies, metric = MEASURES[name]
    terms = [Term(frame, judge, policies, metric) for judge in (a, b) if judge]
    return evidence.effect(*terms)
