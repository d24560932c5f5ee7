"""Stage 2 with one thing changed: what is checked, shares of dead groups, differences by hand."""

import pandas as pd
import pytest
from test_seeds import levels

from sgvl.common.errors import InputError
from sgvl.experiments import variations
from sgvl.experiments.claims import Evidence
from sgvl.run import units

SLIPS = {
    "plain": ({}, "the run without a change has this name"),
    "a/b": ({}, "use letters, digits"),
    "rate": ({"settings": {"learning_rat": 1.0}}, "did you mean learning_rate"),
    "kl": ({"settings": {"beta": "none"}}, "beta: got 'none', expected float"),
    "loss": ({"settings": {"loss_type": "dr_grp"}}, "did you mean dr_grpo"),
    "paid": ({"reward": "plane"}, "did you mean plain"),
    "keep": ({"keep_p_unsafe": [0.9, 0.1]}, "keep_p_unsafe: got [0.9, 0.1], expected two numbers"),
    "form": ({"rewards": "plain"}, "rewards: no such parameter; did you mean reward?"),
    "text": ("beta", "write parameters of 04_grpo"),
}


def test_each_variation_is_checked_as_a_parameter_file_is():
    changes = {name: slip for name, (slip, _) in SLIPS.items()}
    with pytest.raises(InputError) as raised:
        variations.check("nano", "full", changes, [1], {})
    assert len(raised.value.problems) == len(SLIPS)
    for name, problem in zip(SLIPS, raised.value.problems, strict=True):
        assert name in problem and SLIPS[name][1] in problem, problem


def test_only_stage_two_is_varied_and_the_shipped_variations_keep_its_steps():
    with pytest.raises(InputError, match="not trained by stage 2: 'sft'; "):
        variations.unit_of("nano", "sft")
    for unit in units.load_units("nano_ablations").values():
        shipped = unit.parameters
        names = [shipped[name] for name in ("recipes", "judge", "changes", "trainings", "settings")]
        variations.check(*names)
        for name, changes in shipped["changes"].items():
            assert "max_steps" not in changes.get("settings", {}), name


def test_dead_groups_and_differences_by_hand(tmp_path):
    """Of four groups two are dead; six of eight verdicts are right in place of four."""
    rewards = {"plain": [1, 0, 1, 1], "other": [0, 1, 0, 1]}  # of two groups of two
    models = {}
    for name, paid in rewards.items():
        folder = tmp_path / name / "completions"
        folder.mkdir(parents=True)
        rollouts = pd.DataFrame({"step": 1, "sample": list("aabb"), "verdict_reward": paid})
        reply = [[{"content": "Answer: safe"}]] * 4
        rollouts.assign(prompt="", completion=reply).to_parquet(folder / "completions_1.parquet")
        models[name, 1] = tmp_path / name / "model"
    dead = variations.dead_groups(models).set_index("judge")
    assert dead["value"].to_dict() == {"plain": 50, "other": 0} and set(dead["n"]) == {2}

    frames = {"levels": pd.concat([levels("plain", 1, 4), levels("other", 1, 6)])}
    table = variations.compare(Evidence(frames), ["other"])
    followed = table[table["measure"] == "L2 to L5 followed"].set_index("judge")
    assert followed["value"].to_dict() == {"plain": 50, "other": 25}
    assert followed.loc["other", "against"] == "plain"
