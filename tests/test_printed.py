"""Tables in the paper's rows and columns: scores, reasons, differences where they are allowed."""

import math
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from sgvl.report import printed, reference
from sgvl.report.printed import Judges, Tables, as_printed
from sgvl.report.reasons import Reason
from sgvl.run.parameters import load_yaml

BASE = "Qwen/Qwen2.5-VL-7B-Instruct"
SOURCES = {name: f"{hub}@1a2b3c4d" for name, hub in reference.hub("set").items()}
NAMES = {
    "base": "Qwen2.5-VL-7B",
    "full": "Ours (Full)",
    "always_safe": "always safe",
    "released": "SafeGuard-VL-RL (released)",
}
JUDGES = Judges(
    NAMES,
    {"base": BASE, "full": "runs/p/training/04_grpo.full/model", "always_safe": ""}
    | {"released": "tyodd/SafeGuard-VL-RL"},
    {"qwenguard_7b": "04_x: no access; ask for it", "rl_safeedit": "04_y: never released"},
    BASE,
)


def scores(by, judges, values):
    return pd.DataFrame(
        {"judge": judge, by: name, "metric": "f1", "n": 10, "positives": 5, "value": value}
        | {"low": value - 10, "high": value + 10, "missing": "", "unparseable": 0.0}
        for judge in judges
        for name, value in values.items()
    )


@pytest.fixture
def numbers():
    categories = {"Hate": 20.0, "Harassment": 90.0, "Self-harm": 40.0, "Illegal activity": 37.0}
    sets = {"UnsafeBench": 41.0, "LlavaGuard": 57.0, "SafeEditBench": 1.0}
    tasks = {"mmmu": 45.0, "realworldqa": 60.0, "blink": 55.0, "mmt": 60.0}
    levels = {f"L{k}": 50.0 for k in range(1, 6)}
    safety = scores("set", NAMES, sets)
    return {
        "table2": scores("policy", NAMES, categories | {"macro": 47.0, "pooled": 41.0}),
        "table3": scores("policy", ["base", "sft_L2"], levels | {"macro": 50.0}),
        "table4": pd.concat([safety, scores("set", ["base", "full", "released"], tasks)]),
        "table5": scores("set", ["base", "full"], {"UnsafeBench": 41.0, "General": 55.0}),
        "table6": scores("policy", NAMES, levels | {"macro": 50.0, "pooled": 48.0}),
    }


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5", "table6"])
def test_rows_and_columns_are_the_papers_and_no_cell_is_empty(name, numbers):
    judges = JUDGES._replace(names=NAMES | {"sft_L2": "SFT on L2"})
    table, paper = as_printed(name, numbers, judges, SOURCES), reference.table(name)
    own = [printed.MACRO] * (name in ("table2", "table6")) + [printed.MODEL]
    assert [table.index.name, *table.columns] == [*paper.columns, *own]
    assert list(table.index[: len(paper)]) == list(paper.iloc[:, 0])
    below = list(table.index[len(paper) :])
    assert not below or below[0] == printed.BELOW and len(below) > 1
    reasons = tuple(Reason)
    for row in table[: len(paper)].itertuples(index=False):
        cells = dict(zip(table.columns, row, strict=True))
        for column in printed._columns(name):
            cell = cells[column]
            assert cell[0].isdigit() or cell.startswith(reasons), (row, column)


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5", "table6"])
def test_every_row_of_the_paper_has_a_judge_of_the_paper_profile(name):
    panels = [load_yaml(file) for file in sorted(Path("params/paper").glob("05_*.yaml"))]
    specs = [*chain(*(p["judges"] for p in panels), *(p.get("level_judges", []) for p in panels))]
    asked = {spec["id"] for spec in specs if "id" in spec}
    rows = {row for judge in asked for row in reference.ROWS.get(judge, ())}
    assert set(reference.table(name).iloc[:, 0]) <= rows


def test_a_cell_without_a_score_says_why(numbers):
    table2 = as_printed("table2", numbers, JUDGES, SOURCES)
    assert table2.loc["NudeNet", "Sexual"] == "not asked in this profile"
    assert table2.loc["NudeNet", "Hate"] == "not printed"
    assert table2.loc["NudeNet", printed.MACRO] == "not asked in this profile"
    assert table2.loc["QwenGuard-7B", "Hate"] == "unavailable: 04_x: no access"
    assert table2.loc["Ours (SFT)", "Spam"] == "not asked in this profile"
    assert table2.loc["Qwen2.5-7B", "Spam"] == "no such rows in this profile"
    table4 = as_printed("table4", numbers, JUDGES, SOURCES)
    assert table4.loc["always safe", "MMMU"] == "asked no questions"
    own = numbers["table4"]
    numbers["table4"] = own[own["set"] != "mmmu"]
    base = as_printed("table4", numbers, JUDGES, SOURCES).loc["Qwen2.5-7B"]
    assert base["MMMU"] == base["General Overall"] == "no such rows in this profile"
    hate = (numbers["table2"]["judge"] == "base") & (numbers["table2"]["policy"] == "Hate")
    numbers["table2"].loc[hate, ["value", "low", "high"]] = float("nan")
    table2 = as_printed("table2", numbers, JUDGES, SOURCES)
    assert table2.loc["Qwen2.5-7B", "Hate"] == "not defined on these rows"


def test_a_value_is_subtracted_only_where_model_and_data_are_the_papers(numbers):
    table6 = as_printed("table6", numbers, JUDGES, SOURCES)
    assert table6.loc["Qwen2.5-VL-7B", "Policy L2"] == "50.0 [40.0, 60.0]; paper 20.59, +29.4"
    overall = "48.0 [38.0, 58.0]; paper 48.68, -0.7 (inside)"
    assert table6.loc["Qwen2.5-VL-7B", "Overall"] == overall, "beside pooled"
    assert table6.loc["Qwen2.5-VL-7B", printed.MACRO] == "50.0 [40.0, 60.0]"
    released = table6.loc["SafeGuard-VL-RL (released)"]
    assert released["Policy L1"] == "50.0 [40.0, 60.0]; paper 44.07, +5.9 (inside)"
    assert released[printed.MODEL] == "tyodd/SafeGuard-VL-RL"
    full = as_printed("table5", numbers, JUDGES, SOURCES).loc["Ours (Full)"]
    assert full["Unsafebench"] == "41.0 [31.0, 51.0]", "trained here, so not the paper's weights"
    assert full[printed.MODEL] == f"{BASE}, then 04_grpo.full"
    drawn = SOURCES | {"SafeEditBench": "drawn"}
    assert not as_printed("table6", numbers, JUDGES, drawn).stack().str.contains("paper ").any()
    mixed = as_printed("table4", numbers, JUDGES, drawn).loc["Qwen2.5-7B"]
    assert "paper 57.08" in mixed["LlavaGuard"] and "paper" not in mixed["Safety Overall"]


def test_table_4_has_the_pooled_score_and_both_means(numbers):
    base = as_printed("table4", numbers, JUDGES, SOURCES).loc["Qwen2.5-7B"]
    assert base["SafeEditBench"].startswith("48.0 ")
    assert base["Safety Overall"].startswith("48.7 [42.9, 54.4]")  # 10 / sqrt(3) on either side
    assert base["General Overall"].startswith("55.0 [50.0, 60.0]")


def test_table_4_has_the_rates_of_llavaguards_authors_beside_ours(numbers):
    rates = pd.DataFrame(
        [("base", 800, 61.0, 62.5, 70.25), ("released", 0, *[math.nan] * 3)],
        columns=["judge", "n", "f1", "accuracy", "balanced_accuracy"],
    )
    made = Tables(numbers, JUDGES, SOURCES, "paper", 0, 100, True, rates)
    table, _, text = made.table("table4")
    plain, _, _ = made._replace(rates=rates[:0]).table("table4")
    more = "; of 800 replies with a rating: F1 61.0, accuracy 62.5, balanced 70.2"
    assert table.loc["Qwen2.5-7B", "LlavaGuard"] == plain.loc["Qwen2.5-7B", "LlavaGuard"] + more
    table.loc["Qwen2.5-7B", "LlavaGuard"] = plain.loc["Qwen2.5-7B", "LlavaGuard"]
    assert table.equals(plain), "no other cell has changed"
    assert "does not say which rate" in text and "which rate" not in made.table("table6")[2]


def test_categories_that_the_paper_leaves_out_are_left_out(numbers):
    table = as_printed("table2", numbers, JUDGES, SOURCES)
    assert "Harassment" not in table and table.loc["Qwen2.5-7B", "Self-Harm"].startswith("40.0")
    assert table.loc["Qwen2.5-7B", "Illegal"].startswith("37.0 [27.0, 47.0]; paper 37.5")


def test_captions_and_notes_name_the_data(numbers):
    made = Tables(numbers, JUDGES, SOURCES, "paper", 3, 200, as_printed=True)
    _, caption, note = made.table("table6")
    assert caption.endswith("SafeEditBench: tyodd/SafeEditBench@1a2b3c4d")
    assert "Policy L1 10" in note and "seed 3" in note and "tyodd/SafeEditBench" in note
    ours = made._replace(as_printed=False, sources={"SafeEditBench": "drawn"})
    table, caption, note = ours.table("table6")
    assert caption == "Judges on drawn" and "200 resamples" in note
    assert "Overall (macro)" in table.columns and list(table.index) == list(NAMES.values())
    assert ours.table("table2")[1] == "none by category"
