"""The parameter files of every profile: they load, and name what is there."""

import pytest

from sgvl.common.paths import PARAMS
from sgvl.data.sources import registry
from sgvl.experiments.claims import JUDGES
from sgvl.run.units import check_values, load_units

PROFILES = sorted({file.parent.name for file in PARAMS.glob("*/*.yaml")})
WHOLE = ["nano", "paper", "single"]  # the others hold units that build on one of these


@pytest.mark.parametrize("profile", PROFILES)
def test_every_unit_of_a_profile_loads(profile):
    wanted = {"01_data", "03_sft.recap", "05_benchmark"} if profile in WHOLE else set()
    assert wanted <= load_units(profile).keys()


@pytest.mark.parametrize("profile", WHOLE)
def test_a_benchmark_asks_for_sets_that_01_data_makes_by_judges_that_exist(profile):
    units = load_units(profile)
    real, asked = units["01_data"].parameters["sources"], units["05_benchmark"].parameters
    roles = {asked[role] for role in ("bench", "content", "own")} | {*asked["following"]}
    assert roles | {*asked["questions"]} <= {*registry.DRAWN, *real}
    posed = {name for name, spec in real.items() if spec["kind"] == "general"}
    assert set(asked["questions"]) <= posed | {"general"}
    check_values(list(units.values()))


def test_every_judge_that_06_names_is_asked_in_05():
    units = load_units("nano")
    asked, tabled = units["05_benchmark"].parameters, units["06_ablations"].parameters
    assert tabled["judges"] + tabled["level_judges"] == [
        *(spec["id"] for spec in asked["judges"] if spec["kind"] == "chat"),
        *(spec["id"] for spec in asked["level_judges"]),
    ]
    assert set(tabled["judges"] + tabled["level_judges"]) == set(JUDGES), "every claim has its own"
