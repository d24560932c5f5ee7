"""05 to 07 on published rows, as child processes that may draw nothing."""

import shutil

import pandas as pd
import pytest
import real_run
import yaml
from test_notebooks import ROOT, papermill

from sgvl.report import reference
from sgvl.report.reasons import Reason

HEAD = {"profile": "real", "data_profile": "real", "resamples": 100}
QUESTIONS = ["mmmu", "blink"]
NANO = {"kind": "chat", "model": "nano", "policy_form": "full", "max_new_tokens": 20}
NEVER = NANO | {"id": "rl_safeedit", "model": "runs/real/training/04_grpo.rl_safeedit/model"}
PANELS = {
    "base": [{"kind": "always_unsafe"}, {**NANO, "id": "base", "with_p_unsafe": False}],
    "trained": [{"kind": "always_safe", "id": "full"}, NEVER],
}


@pytest.mark.slow
def test_panels_become_the_papers_tables_and_figures(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    real_run.write(tmp_path / "runs" / "real")
    asked = {"following": [], "questions": QUESTIONS, "pairs": 0, "rows": 0}
    units = [
        ("05_benchmark", HEAD | asked | {"panel": name, "judges": judges})
        for name, judges in PANELS.items()
    ]
    panels = {"panels": list(PANELS)}
    about = {"profile": "real", "resamples": 100, **panels}
    judges = ["base", "full", "rl_safeedit", "always_unsafe"]
    units.append(("06_ablations", about | {"benchmark_profile": "real", "judges": judges}))
    shown = {"stages": ["03_sft.recap", "04_grpo.full"], "form_judges": ["gone", "base"]}
    of_run = {"benchmark": "real", "method": "real", "questions": QUESTIONS, "as_printed": True}
    units.append(("07_figures", HEAD | of_run | shown | panels))
    for name, values in units:
        (tmp_path / "unit.yaml").write_text(yaml.safe_dump(values))
        done = papermill(tmp_path, name, "-f", "unit.yaml", SGVL_DRAWN="0")
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
    folder = tmp_path / "runs" / "real" / "figures"
    made = {file.stem for file in folder.glob("*")}
    assert {f"table{k}" for k in range(2, 7)} | {f"figure{k}" for k in range(1, 8)} <= made
    for k in range(2, 7):
        table = pd.read_csv(folder / f"table{k}.csv", dtype=str, keep_default_na=False)
        paper = reference.table(f"table{k}")
        assert list(table)[: paper.shape[1]] == list(paper)
        assert list(table.iloc[: len(paper), 0]) == list(paper.iloc[:, 0])
    row = table.set_index("Model").loc["Ours (RL+SafeEditTrain)"]
    assert row["Policy L1"].startswith(f"{Reason.UNAVAILABLE}: 04_grpo.rl_safeedit: safeedit_train")
    report = (folder / "REPORT.md").read_text(encoding="utf-8")
    assert report.count(f"SafeEditBench: {real_run.BENCH}") >= 8 and "drawn" not in report
