"""What the rehearsals of both GPU profiles must show; `make rehearse` runs them first."""

import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest

from sgvl.common.paths import ROOT, figures_of, runs
from sgvl.report import reference
from sgvl.report.reasons import Reason
from sgvl.run import receipts
from sgvl.run.receipts import Status
from sgvl.run.rehearsal import published, report
from sgvl.run.rehearsal.hub import Hub
from sgvl.run.rehearsal.parameters import TWO_RANKS
from sgvl.run.units import load_units, parts

pytestmark = pytest.mark.rehearse
SOURCE = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{8}")  # owner/name@commit


@pytest.fixture(params=["single", "paper"])
def name(request):
    name = f"{request.param}_rehearsal"
    assert (runs(name) / "REHEARSAL.md").exists(), f"python -m sgvl.run {request.param} --rehearse"
    return name


@pytest.fixture
def units(name):
    return load_units(name)


def repositories():
    hub = Hub()
    published.publish(hub)
    return set(hub.repos)


def test_every_unit_is_done_and_nothing_was_unavailable(units):
    states = {name: receipts.state(unit, units)[0] for name, unit in units.items()}
    assert set(states.values()) <= {Status.OK, Status.OLD_CODE}, states
    whole = ("01_data", "02_recaption", "06_ablations", "07_figures", "08_classroom")
    assert set(whole) <= set(units)


def test_the_report_names_units_keys_and_what_it_cannot_show(name, units):
    text = (runs(name) / "REHEARSAL.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Rehearsal of {name.removesuffix('_rehearsal')}\n")
    assert all(f"| {unit} | " in text for unit in units)
    assert "- `profile`: every unit\n" in text and "- `settings.max_steps`: 03_sft.L1" in text
    assert "- memory: " in text and "- ZeRO-3" in text


def test_there_are_thirteen_artefacts(name):
    assert report.missing(name) == []
    text = (figures_of(name) / "REPORT.md").read_text(encoding="utf-8")
    assert "Not run." not in text.partition("## Trained with other seeds")[0]


def test_no_row_of_a_drawn_set_is_trained_on_judged_or_tabled(name, units):
    """Drawn rows have tags, which no published one has; drawing one is refused in these runs."""
    assert units["01_data"].parameters["drawn"] is False
    folder = runs(name)
    files = [*folder.glob("data/*.parquet"), *folder.glob("recaption/*.parquet")]
    known = repositories() | {"sets"}  # the folder that stands for one of the user's own
    for file in [*files, *folder.glob("training/*.job/rows.parquet")]:
        table = pyarrow.parquet.read_table(file)
        assert "tags" not in table.column_names, file
        if "source" in table.column_names:
            sources = {source.partition("@")[0] for source in table["source"].to_pylist()}
            assert {
                Path(source).name if "/sets" in source else source for source in sources
            } <= known
    assert len(files) >= 10


def ids_of(folder, name):
    return set(pyarrow.parquet.read_table(folder / f"{name}.parquet")["id"].to_pylist())


def test_every_judgement_is_of_a_row_of_its_published_set(name, units):
    folder, roles = runs(name), ("bench", "content", "own")
    for unit in units.values():
        if unit.name.startswith("05_benchmark"):
            place = folder / "benchmark" / unit.name.partition(".")[2]
            for role, frame in zip(roles, ("levels", "content", "own"), strict=True):
                judged = set(pd.read_csv(place / f"{frame}.csv", dtype=str)["id"])
                if judged:
                    assert judged <= ids_of(folder / "data", unit.parameters[role])


def test_every_trained_model_is_read_by_05(name, units):
    trained = {
        f"runs/{name}/training/{unit}/model" for unit in units if unit.startswith(("03_", "04_"))
    }
    panels = [unit for unit in units.values() if unit.name.startswith("05_benchmark")]
    asked = {
        part["model"]: (unit.name.partition(".")[2], part["id"])
        for unit in panels
        for part in parts(unit.parameters)
        if isinstance(part, dict) and part.get("kind") == "chat" and "model" in part
    }
    assert len(trained) == 16 and trained <= asked.keys()
    for model in trained:
        panel, judge = asked[model]
        judges = pd.read_csv(runs(name) / "benchmark" / panel / "judges.csv")["judge"]
        assert judge in set(judges)


def test_the_sources_under_the_artefacts_are_of_the_hub(name):
    text = (figures_of(name) / "REPORT.md").read_text(encoding="utf-8")
    found = {source.partition("@")[0] for source in SOURCE.findall(text)}
    assert {"tyodd/SafeEditBench", "yiting/UnsafeBench", "AIML-TUDA/LlavaGuard"} <= found
    assert found <= repositories()
    assert "nano" not in {source.partition("-")[2] for source in re.findall(r"\w+-nano", text)}


@pytest.mark.parametrize("table", [f"table{k}" for k in range(2, 7)])
def test_a_table_has_the_papers_rows_and_columns_and_no_empty_cell(name, table):
    ours = pd.read_csv(figures_of(name) / f"{table}.csv", dtype=str, keep_default_na=False)
    paper = reference.table(table)
    assert list(ours)[: len(paper.columns)] == list(paper)
    ours = ours.iloc[: len(paper)][list(paper)]
    numbers = set(reference.table("columns").query("table == @table")["column"])
    reasons = tuple(map(str, Reason))
    for column in paper:
        if column not in numbers:
            assert list(ours[column]) == list(paper[column]), column
            continue
        cells = [cell for cell in ours[column] if not re.match(r"\d+\.\d", cell)]
        assert all(cell.startswith(reasons) for cell in cells), (column, set(cells))
        assert len(cells) < len(paper), f"{column}: not one score"
        if name == "paper_rehearsal":
            assert set(cells) <= {Reason.NOT_PRINTED, Reason.NO_QUESTIONS}, (column, set(cells))


def test_two_processes_trained_in_each_stage():
    """Each of them saves the state of its random numbers."""
    for unit in TWO_RANKS:
        folder = ROOT / "runs" / "paper_rehearsal" / "training" / unit
        states = {file.name for file in folder.glob("checkpoint-*/rng_state_*.pth")}
        assert states == {"rng_state_0.pth", "rng_state_1.pth"}
        identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        assert identity["settings"]["max_steps"] == 2
