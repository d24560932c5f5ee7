"""Stage 2 trained again, each time with one thing changed, beside the plain run.

Every variation has the steps, the prompts and the first weights of the plain run of its seed,
unless that is what it changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sgvl.common.errors import InputError, need_known, raise_any
from sgvl.common.paths import plain_name
from sgvl.experiments import seeds
from sgvl.experiments.claims import Evidence
from sgvl.run import units
from sgvl.run.parameters import validate, value_problems
from sgvl.scores import intervals
from sgvl.training import grpo

PLAIN = "plain"
DEAD = "dead groups"


def check(
    recipes: str, judge: str, changes: Mapping, trainings: Sequence[int], settings: dict
) -> None:
    """Check every variation as a parameter file of 04_grpo is checked, before anything runs.

    Raises InputError with all problems: no seeds, a judge of ``recipes`` that stage 2 did not
    train, a name that cannot be a folder's, and whatever is wrong with the changed recipes.
    """
    unit = unit_of(recipes, judge)
    seeds.check(recipes, trainings, {judge: unit}, settings)
    recipe, problems = units.load_units(recipes)[unit], []
    for name, own in changes.items():
        try:
            _check_variation(recipe, name, own)
        except InputError as error:
            problems += error.problems
    raise_any(problems)


def unit_of(recipes: str, judge: str) -> str:
    """Return the unit of stage 2 that trains a judge of 05; InputError if there is none."""
    specs = seeds.specs_of(recipes)
    trained = {id_: seeds.unit_of(recipes, spec.get("model", "")) for id_, spec in specs.items()}
    known = [id_ for id_, unit in trained.items() if unit.startswith("04_")]
    need_known("judge: not trained by stage 2:", judge, known)
    return trained[judge]


def _check_variation(recipe: units.Unit, name: str, changes: dict) -> None:
    where = f"changes: {name}"
    if plain_name("changes: variation", name) == PLAIN:
        raise InputError(f"{where}: the run without a change has this name; take another")
    if not isinstance(changes, dict) or not isinstance(changes.get("settings", {}), dict):
        raise InputError(f"{where}: write parameters of 04_grpo, such as settings: {{beta: 0.0}}")
    values = validate(recipe.notebook, seeds.changed(recipe.parameters, changes), where)
    raise_any(value_problems(recipe.source, values, where))


def dead_groups(models: Mapping[tuple[str, int], Path]) -> pd.DataFrame:
    """Return the share of dead groups of each variation, over all of its training runs.

    Parameters
    ----------
    models : the folder of the trained model for each (variation, training seed)

    Returns
    -------
    pandas.DataFrame
        judge (the variation), measure, value, low, high (percent; over prompts), n (groups).
    """
    groups = [
        grpo.groups(grpo.rollouts(model.parent)).assign(judge=name, seed=seed)
        for (name, seed), model in models.items()
    ]
    rows = []
    for name, own in pd.concat(groups).groupby("judge", sort=False):
        prompts = own["seed"].astype(str) + own["sample"]
        share = intervals.average(own["dead"], prompts)._asdict()
        rows.append({"judge": name, "measure": DEAD, **share, "n": len(own)})
    return pd.DataFrame(rows)


def compare(evidence: Evidence, variations: Sequence[str]) -> pd.DataFrame:
    """Score the plain run, and subtract it from each variation of the same seeds.

    Returns
    -------
    pandas.DataFrame
        What ``seeds.measure`` returns for the plain run, and ``seeds.compare`` for each variation.
    """
    pairs = [(name, PLAIN) for name in variations]
    parts = [seeds.measure(evidence, [PLAIN]), seeds.compare(evidence, pairs)]
    return pd.concat(parts, ignore_index=True)
