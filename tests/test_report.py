import json
import re

import pandas as pd
import pytest
from PIL import Image

from sgvl.common import paths
from sgvl.report import page
from sgvl.report.tables import write_table


def scores(judge, name, value, low, high, n=40, **more):
    return {"judge": judge, "set": name, "value": value, "low": low, "high": high, "n": n, **more}


@pytest.fixture
def table5():
    return pd.DataFrame(
        [
            scores("Ours (SFT)", "UnsafeBench", 66.0, 60.0, 70.0),  # printed: 66.96
            scores("Ours (SFT)", "General", 60.0, 58.0, 62.0),  # printed: 53.37
            scores("base", "UnsafeBench", 41.0, 40.0, 41.5),  # printed as Qwen2.5-7B: 41.71
            scores("base", "General", float("nan"), float("nan"), float("nan")),
            scores("mine", "UnsafeBench", 50.0, 45.0, 55.0),  # no such row in the paper
        ]
    )


@pytest.fixture
def folder(tmp_path, table5):
    """What 07_figures leaves, as far as it was run: one table and one figure."""
    folder = tmp_path / "figures" / "nano"
    write_table(table5.set_index("judge"), folder, "table5", "Recaption and RL", "seed 0")
    Image.new("RGB", (8, 8), "red").save(folder / "figure6.png")
    return folder


def test_ours_the_papers_and_the_difference(table5):
    table = page.beside("table5", table5)
    sft, base = table.loc["Ours (SFT)"], table.loc["base"]
    inside = '<span class="inside">paper 66.96, -1.0</span>'
    assert sft["UnsafeBench n=40"] == f"66.0 [60.0, 70.0]<br>{inside}"
    assert sft["General n=40"] == "60.0 [58.0, 62.0]<br>paper 53.37, +6.6"
    assert base["UnsafeBench n=40"] == "41.0 [40.0, 41.5]<br>paper 41.71, -0.7"
    assert base["General n=40"] == "n/a"
    assert table.loc["mine", "UnsafeBench n=40"] == "50.0 [45.0, 55.0]"
    assert table.loc["mine", "General n=40"] == "n/a"


def test_the_mean_over_levels_stands_beside_the_papers_overall():
    rows = [("L2", 20.0), ("macro", 50.0), ("pooled", 60.0)]
    ours = pd.DataFrame(
        {"judge": "base", "policy": p, "n": 84, "value": v, "low": v - 1, "high": v + 1}
        for p, v in rows
    )
    cells = page.beside("table6", ours).loc["base"]
    assert "paper 20.59, -0.6" in cells["L2 n=84"]
    assert "paper 48.68, +1.3" in cells["macro n=84"]
    assert "paper" not in cells["pooled n=84"]


def test_another_models_values_are_never_subtracted(folder, table5):
    report, _ = page.write(folder, "nano", {"table5": table5})
    text = report.read_text(encoding="utf-8")
    assert "stand in blocks of their own" in text
    assert "Other models, as printed" in text
    assert "66.96" in text and "paper 66.96" not in text


def test_the_same_models_are_compared(folder, table5):
    report, _ = page.write(folder, "paper", {"table5": table5}, same_models=True)
    text = report.read_text(encoding="utf-8")
    assert "paper 66.96, -1.0" in text and "grey while the paper's value lies inside" in text


def test_every_table_and_figure_has_a_place_and_the_missing_say_so(folder, table5):
    report, _ = page.write(folder, "nano", {"table5": table5})
    text = report.read_text()
    sections = dict(re.findall(r"^## (\S+ \S+?):.*?\n(.*?)(?=^## )", text, re.M | re.S))
    names = [f"Table {k}" for k in range(1, 7)] + [f"Figure {k}" for k in range(1, 8)]
    assert list(sections) == names
    assert "seed 0" in sections["Table 5"] and "Not run." not in sections["Table 5"]
    assert "![figure6](figure6.png)" in sections["Figure 6"]
    assert "Not run." in sections["Figure 7"] and "Not run." in sections["Table 2"]


def test_the_audit_is_part_of_the_report(folder, table5):
    text = page.write(folder, "nano", {"table5": table5})[0].read_text(encoding="utf-8")
    assert re.search(r"\d+ findings: .*\d+ contradicts", text)


def test_the_document_stands_alone(folder, table5):
    _, document = page.write(folder, "nano", {"table5": table5})
    text = document.read_text(encoding="utf-8")
    assert text.count("<table>") > 5 and "data:image/png;base64," in text
    assert not re.search(r'src="(?!data:)', text) and "href=" not in text
    assert "<td" in text and "| ---" not in text  # every table of the page is a table here


def test_the_same_run_gives_the_same_bytes(folder, table5):
    first = [path.read_bytes() for path in page.write(folder, "nano", {"table5": table5})]
    assert [p.read_bytes() for p in page.write(folder, "nano", {"table5": table5})] == first


def test_what_was_not_run_and_why(tmp_path, monkeypatch, table5):
    monkeypatch.setattr(page, "PARAMS", tmp_path / "params")
    monkeypatch.setattr(page, "runs", lambda profile: tmp_path / "runs" / profile)
    (tmp_path / "params" / "nano").mkdir(parents=True)
    (tmp_path / "runs" / "nano").mkdir(parents=True)
    receipts = {
        "03_sft.recap": {"status": "ok", "reason": ""},
        "03_sft.L1": {"status": "failed", "reason": "loss is nan"},
        "03_sft.L2": None,
    }
    for name, receipt in receipts.items():
        (tmp_path / "params" / "nano" / f"{name}.yaml").touch()
        if receipt:
            (tmp_path / "runs" / "nano" / f"{name}.json").write_text(json.dumps(receipt))
    gaps = page.not_run("nano", {"table5": table5}).set_index("what")["why"]
    assert "03_sft.recap" not in gaps
    assert gaps["03_sft.L1"] == "failed: loss is nan"
    assert gaps["03_sft.L2"] == "not run yet"
    assert gaps["04_grpo.rl"] == "no parameter file params/nano/04_grpo.rl.yaml"
    assert gaps["table5: w/o Recap (SFT), Ours (Full)"] == "no judge of this name was asked"


def test_every_head_that_is_renamed_is_one_of_the_papers():
    for name, heads in page.HEADS.items():
        head = (
            (paths.PACKAGE / "report" / "reference" / f"{name}.csv")
            .read_text()
            .splitlines()[1]
            .split(",")
        )
        assert set(heads.values()) <= set(head)
