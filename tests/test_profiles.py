"""The parameter files of every profile: they load, and name what is there."""

import inspect
from pkgutil import resolve_name

import pytest

from sgvl import judges
from sgvl.common.paths import PARAMS
from sgvl.data.sources import registry
from sgvl.run.units import load_units

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
    assert {asked["dataset"], *asked["general_sets"]} <= {*registry.DRAWN, *real}
    posed = {name for name, spec in real.items() if spec["kind"] == "general"}
    assert set(asked["general_sets"]) <= posed | {"general"}
    for kinds, specs in ((registry.KINDS, real.values()), (judges.KINDS, asked["judges"])):
        for spec in specs:
            options = {name: value for name, value in spec.items() if name != "kind"}
            inspect.signature(resolve_name(kinds[spec["kind"]])).bind(**options)
