"""The parameter files of every profile: they load, and name what is there."""

import re
from functools import cache

import pytest

from sgvl.common.paths import PARAMS
from sgvl.data.sources import registry
from sgvl.experiments.claims import JUDGES
from sgvl.run import units as of_profile
from sgvl.run.parameters import value_problems

load_units = cache(of_profile.load_units)
PROFILES = sorted({file.parent.name for file in PARAMS.glob("*/*.yaml")})
WHOLE = ["nano", "paper", "single"]  # the others hold units that build on one of these


@pytest.mark.parametrize("profile", PROFILES)
def test_every_unit_of_a_profile_loads(profile):
    units = load_units(profile).keys()
    if profile in WHOLE:
        assert {"01_data", "03_sft.recap", "06_ablations", "07_figures", "08_classroom"} <= units
        assert any(name.startswith("05_benchmark") for name in units)


def panels(units):
    return {name: unit for name, unit in units.items() if name.startswith("05_benchmark")}


@pytest.mark.parametrize("profile", WHOLE)
def test_a_benchmark_asks_for_sets_that_01_data_makes_by_judges_that_exist(profile):
    units = load_units(profile)
    real = units["01_data"].parameters["sources"]
    posed = {name for name, spec in real.items() if spec["kind"] == "general"}
    for unit in panels(units).values():
        asked = unit.parameters
        roles = {asked[role] for role in ("bench", "content", "own")} | {*asked["following"]}
        assert roles | {*asked["questions"]} <= {*registry.DRAWN, *real}
        assert set(asked["questions"]) <= posed | {"general"}
    for name, unit in units.items():
        assert value_problems(unit.source, unit.parameters, name) == []


@pytest.mark.parametrize("profile", ["single", "paper"])
def test_a_gpu_profile_judges_every_trained_model_and_reads_every_panel(profile):
    units = load_units(profile)
    judges = {}
    for name, unit in panels(units).items():
        asked = unit.parameters
        assert name == f"05_benchmark.{asked['panel']}", "its files go where the runner looks"
        specs = [*asked["judges"], *asked["level_judges"]]
        judges |= {spec.get("id", spec["kind"]): spec for spec in specs}
    trained = {name for name in units if name.startswith(("03", "04"))}
    models = {spec.get("model") for spec in judges.values()}
    assert {f"runs/{profile}/training/{name}/model" for name in trained} <= models
    tabled, drawn = units["06_ablations"].parameters, units["07_figures"].parameters
    assert {*tabled["judges"], *tabled["level_judges"]} == judges.keys() >= set(JUDGES)
    names = [name.partition(".")[2] for name in panels(units)]
    assert sorted(tabled["panels"]) == sorted(drawn["panels"]) == sorted(names)
    assert {*drawn["case_judges"], *drawn["form_judges"]} <= judges.keys()
    assert drawn["as_printed"] and drawn["blur"]
    gone = {"02_recaption", "05_benchmark.base"} | trained
    assert gone <= {*units["07_figures"].needs}


def test_every_judge_that_06_names_is_asked_in_05():
    """But for what the base was before alignment, which is a row of Table 6 alone."""
    units = load_units("nano")
    asked, tabled = units["05_benchmark"].parameters, units["06_ablations"].parameters
    assert tabled["judges"] + tabled["level_judges"] == [
        *(s["id"] for s in asked["judges"] if s["kind"] == "chat" and s["id"] != "pretrained"),
        *(spec["id"] for spec in asked["level_judges"]),
    ]
    assert set(tabled["judges"] + tabled["level_judges"]) == set(JUDGES), "every claim has its own"


GPU = [name for name in WHOLE if name != "nano"]
# The parameters of a notebook that are names of sets of 01_data.
ROLES = {
    "02": ["pictures"],
    "03": ["train", "pairs_train", "bench"],
    "04": ["train", "pairs_train"],
}


@pytest.mark.parametrize("profile", WHOLE)
def test_both_trainings_and_captions_read_sets_that_01_data_makes(profile):
    units = load_units(profile)
    data = units["01_data"].parameters
    made = {*data["sources"], *(registry.DRAWN if data["drawn"] else ())}
    for unit in units.values():
        for role in ROLES.get(unit.name[:2], []):
            names = unit.parameters[role]
            assert {names} if isinstance(names, str) else {*names} <= made, (unit.name, role)


@pytest.mark.parametrize("profile", GPU)
def test_a_gpu_profile_reads_published_sets_alone(profile):
    units = load_units(profile)
    assert not units["01_data"].parameters["drawn"]
    for name, unit in units.items():
        if name.startswith(("03", "04")):
            assert unit.parameters["policy_form"] in ("full", "text") or "recap" in name, name
            assert unit.parameters["settings"]["save_total_limit"] in (1, 2), name


@pytest.mark.parametrize("file", sorted(f for name in GPU for f in PARAMS.glob(f"{name}/0[1-4]*")))
def test_a_gpu_profile_says_what_it_reads_and_where_each_value_is_from(file):
    """Structure needs no source: names of files, sets and variants, and the opening of a block."""
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# Reads "), file
    structure = ("profile", "data_profile", "variant", "train", "pairs_train", "settings", "kind")
    structure += (
        "sources",
        "captioner",
        "recaptioner",
        "assessor",
        "editor",
        "harmful_terms",
        "url",
        "device",
        "model",
    )
    bare = [
        line
        for line in lines
        if (match := re.match(r" *([a-z_0-9]+):", line))
        and "#" not in line
        and match[1] not in structure
        and "revision: main" not in line
    ]
    assert bare == [], file.name
