"""A run's artefacts beside the published ones: hand-worked cells, real files, the command line."""

import json
from pathlib import Path

import pandas as pd
import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from sgvl.common import paths
from sgvl.common.errors import InputError
from sgvl.report import artefacts
from sgvl.report.__main__ import main
from sgvl.report.artefacts import Artefacts, Cell, differences
from sgvl.report.figures import charts
from sgvl.run import __main__ as run
from sgvl.run import parameters, receipts, unit_process, units

SCORES = pd.DataFrame(
    {
        "judge": ["base", "base", "sft"],
        "policy": ["L1", "L2", "L1"],
        "n": [84, 84, 84],
        "value": [50.0, 20.0, 75.0],
        "low": [40.0, 10.0, 70.0],
        "high": [60.0, 30.0, 80.0],
    }
)


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """An empty checkout in which every module looks for its folders."""
    for module in (paths, artefacts, receipts, unit_process, units, run):
        monkeypatch.setattr(module, "ROOT", tmp_path, raising=False)
    monkeypatch.setattr(artefacts, "FIGURES", tmp_path / "figures")
    for module in (units, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(units, "PARAMS", tmp_path / "params")
    return tmp_path


def text(frame):
    """A frame as ``compare`` reads it."""
    return frame.map(lambda value: "" if pd.isna(value) else str(value))


def changed(row, column, value):
    frame = SCORES.copy()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return text(frame)


@pytest.mark.parametrize(
    ("row", "column", "value", "cells"),
    [
        (0, "value", 60.0, []),  # on the edge of 40 to 60
        (0, "value", 60.1, [Cell("base, L1", "value", "50.0", "60.1")]),
        (1, "value", 10.0, []),
        (0, "value", 50.004, []),
        (2, "low", 1.0, []),  # a run's own interval is not compared
        (2, "n", 83, [Cell("sft, L1", "n", "84", "83")]),
        (0, "value", float("nan"), [Cell("base, L1", "value", "50.0", "")]),
    ],
)
def test_a_value_must_lie_in_the_published_interval_and_the_rest_be_equal(
    row, column, value, cells
):
    assert differences(text(SCORES), changed(row, column, value)) == cells


def test_cells_of_a_table_carry_their_interval():
    head = "L2 (F1) n=84"
    published = pd.DataFrame({"judge": ["base", "sft"], head: ["20.0 [10.0, 30.0]", "n/a"]})
    assert differences(published, published.replace("20.0 [10.0, 30.0]", "29.9 [5.0, 99.0]")) == []
    outside = published.replace("20.0 [10.0, 30.0]", "30.1 [5.0, 99.0]")
    assert differences(published, outside) == [
        Cell("base", head, "20.0 [10.0, 30.0]", "30.1 [5.0, 99.0]")
    ]
    measured = published.replace("n/a", "1.0 [0.0, 2.0]")
    assert differences(published, measured) == [Cell("sft", head, "n/a", "1.0 [0.0, 2.0]")]
    other_n = published.rename(columns={head: "L2 (F1) n=60"})
    assert differences(published, other_n) == [
        Cell("(whole column)", head, "present", "absent"),
        Cell("(whole column)", "L2 (F1) n=60", "absent", "present"),
    ]


def test_numbers_without_an_interval_agree_after_rounding():
    log = pd.DataFrame({"step": ["5", "10"], "loss": ["1.23456", "8.1e-06"]})
    near = pd.DataFrame({"step": ["5", "10"], "loss": ["1.23001", "0.0"]})
    assert differences(log, near) == []
    far = pd.DataFrame({"step": ["5", "10"], "loss": ["1.24", "0.0"]})
    assert differences(log, far) == [Cell("5", "loss", "1.23456", "1.24")]


def test_a_claim_with_another_outcome_is_outside_even_where_its_effect_is_inside():
    head = ["name", "statement", "outcome", "effect", "low", "high"]
    published = pd.DataFrame([["a", "A.", "cannot tell", "3.0", "-1.0", "7.0"],
                              ["b", "B.", "cannot tell", "", "", ""]], columns=head)  # fmt: skip
    run = pd.DataFrame([["a", "A.", "holds", "5.0", "1.0", "9.0"],
                        ["b", "B.", "cannot tell", "", "", ""]], columns=head)  # fmt: skip
    assert differences(published, run) == [Cell("a", "outcome", "cannot tell", "holds")]


def test_rows_are_matched_by_their_labels_and_the_lost_and_the_new_are_named():
    assert differences(text(SCORES), text(SCORES.iloc[::-1])) == []
    other = text(SCORES.replace("sft", "full"))
    assert differences(text(SCORES), other) == [
        Cell("sft, L1", "(whole row)", "present", "absent"),
        Cell("full, L1", "(whole row)", "absent", "present"),
    ]


def test_rows_with_the_same_labels_are_matched_in_order():
    seeds = pd.DataFrame({"judge": ["sft", "sft"], "value": ["1.0", "2.0"], "seed": ["1", "2"]})
    assert differences(seeds, seeds.assign(value=["1.0", "2.5"])) == [
        Cell("sft, 2", "value", "2.0", "2.5")
    ]


def write_all(profile, scores=SCORES):
    """What a notebook leaves: a table, a figure with its numbers, the manifest."""
    out = Artefacts(profile, "07_figures")
    out.table("table6", scores.set_index("judge"), "Judges", "seed 0")
    shares = scores.drop_duplicates("policy").drop(columns="judge")
    out.figure("figure4", charts.unsafe_share(shares), shares)
    return out.finish()


def test_the_command_names_each_artefact_and_every_cell_that_is_outside(kit, capsys):
    write_all("nano")
    (kit / "figures").mkdir()
    (kit / "runs/nano/figures").rename(kit / "figures/nano")
    write_all("nano")
    assert main(["nano", "--compare"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "runs/nano/figures, compared with figures/nano",
        "",
        "figure4                  same bytes",
        "table6                   same bytes",
        "2 artefacts: 2 same bytes",
    ]
    write_all("nano", SCORES.assign(value=[51.0, 20.0, 81.0]))
    assert main(["nano", "--compare"]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "figure4                  inside the intervals",
        "table6                   outside: 1 cell",
        "    row 'sft, L1', column 'value': published 75.0, this run 81.0",
        "2 artefacts: 1 inside the intervals, 1 outside",
    ]
    out = Artefacts("nano", "07_figures")
    out.table("table6", SCORES.set_index("judge"), "Judges", "seed 0")
    out.table("table7", SCORES.set_index("judge"), "More", "seed 0")
    out.finish()
    assert main(["nano", "--compare"]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "figure4                  missing",
        "table6                   same bytes",
        "table7                   new",
        "3 artefacts: 1 same bytes, 1 missing, 1 new",
    ]


def test_only_the_first_cells_are_printed(kit):
    cells = [Cell(str(k), "loss", "1", "2") for k in range(10)]
    lines = artefacts.show([artefacts.Comparison("curves", "outside", cells)]).splitlines()
    assert lines[0].endswith("outside: 10 cells") and lines[-2] == "    and 2 more"
    assert len(lines) == 11


def test_bad_input_is_one_line(kit, capsys):
    write_all("nano")
    assert main(["nano", "--compare"]) == 2
    assert capsys.readouterr().err.endswith("figures/nano: nothing is published; known: none\n")
    (kit / "figures").mkdir()
    (kit / "runs/nano/figures").rename(kit / "figures/nano")
    assert main(["naon", "--compare"]) == 2
    assert capsys.readouterr().err.endswith("did you mean nano?\n")
    assert main(["nano", "--compare"]) == 2
    error = capsys.readouterr().err
    assert error == "runs/nano/figures: no notebook has finished writing its artefacts\n"
    write_all("nano")
    (kit / "runs/nano/figures/table6.csv").write_text("changed")
    assert main(["nano", "--compare"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("runs/nano/figures/table6.csv is not the file that the run wrote; run")


@pytest.fixture
def one_unit(kit):
    """A profile of one unit, which writes artefacts as a notebook does; returns a way to end it."""
    (kit / "notebooks").mkdir()
    (kit / "params/nano").mkdir(parents=True)
    cell = new_code_cell("x: int = 1", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[cell])
    notebook.metadata.sgvl = {"needs": [], "gives": ["figures/{unit}.json"]}
    write(notebook, kit / "notebooks/07_figures.ipynb")
    (kit / "params/nano/07_figures.yaml").write_text("x: 2\n")

    def end(status):
        known = units.load_units("nano")
        facts = {"reason": "", **receipts.environment()}
        receipts.write_receipt(known["07_figures"], known, status, **facts)

    return end


def test_publish_replaces_the_published_copy(kit, one_unit, capsys):
    write_all("nano")
    one_unit("ok")
    (kit / "figures/nano").mkdir(parents=True)
    (kit / "figures/nano/table6_variants.csv").write_text("of an older version")
    assert main(["nano", "--publish"]) == 0
    assert capsys.readouterr().out == "6 files copied from runs/nano/figures to figures/nano\n"
    names = {"table6.md", "table6.tex", "table6.csv", "figure4.pdf", "figure4.png", "figure4.csv"}
    assert {path.name for path in (kit / "figures/nano").iterdir()} == names
    for name in names:
        same = (kit / "figures/nano" / name, kit / "runs/nano/figures" / name)
        assert same[0].read_bytes() == same[1].read_bytes()
    assert main(["nano", "--compare"]) == 0


@pytest.mark.parametrize("spoil", ["status", "parameters", "artefact"])
def test_publish_refuses_an_incomplete_run(kit, one_unit, capsys, spoil):
    write_all("nano")
    one_unit("failed" if spoil == "status" else "ok")
    if spoil == "parameters":
        (kit / "params/nano/07_figures.yaml").write_text("x: 3\n")
    if spoil == "artefact":
        (kit / "runs/nano/figures/figure4.png").unlink()
    assert main(["nano", "--publish"]) == 2
    error = capsys.readouterr().err
    expected = {
        "status": "07_figures is failed\nnothing was published",
        "parameters": "07_figures is stale: parameters (x)\nnothing was published",
        "artefact": "runs/nano/figures/figure4.png is not the file that the run wrote",
    }
    assert error.startswith(expected[spoil]) and not (kit / "figures").exists()


def test_the_manifest_comes_last_and_each_notebook_has_its_own(kit):
    digests = write_all("nano")
    folder = kit / "runs/nano/figures"
    assert json.loads((folder / "07_figures.json").read_text()) == digests.to_dict()
    assert len(digests) == 6
    seeds = Artefacts("nano", "09_seeds")
    seeds.table("seeds", SCORES.set_index("judge"), "Seeds", "five")
    assert artefacts._manifests(folder).keys() == set(digests.index), "09 has not finished"
    seeds.finish()
    assert len(artefacts._manifests(folder)) == 9
    Artefacts("nano", "07_figures")  # the next run begins
    assert len(artefacts._manifests(folder)) == 3
    (folder / "09_seeds.json").unlink()
    with pytest.raises(InputError, match="no notebook has finished"):
        artefacts._manifests(folder)


def test_no_notebook_writes_to_the_published_copy():
    """So a run leaves ``git status`` clean."""
    for notebook in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        assert "FIGURES" not in code and "figures/" not in code, notebook.name
