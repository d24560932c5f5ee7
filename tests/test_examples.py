"""The page about one's own data, and its examples."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sgvl.data import store
from sgvl.data.sources import folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "YOUR_DATA.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*columns passed over")
def test_the_same_labels_in_every_format():
    photos, policy = ROOT / "examples" / "photos", str(ROOT / "examples" / "quiet.md")
    tables = []
    for name in ("labels.csv", "labels.jsonl", "label_studio.json"):
        rows = folder.load(str(photos), str(ROOT / "examples" / name), [policy])
        tables.append(dict(zip(rows["id"], store.labels(rows), strict=True)))
        assert set(rows["status"]) == {"ok"}
    assert tables[0] == tables[1] == tables[2] and len(tables[0]) == 6
    assert sorted(tables[0]) == sorted(
        str(file.relative_to(photos).as_posix()) for file in photos.rglob("*.*")
    )


def test_the_page_names_every_column_and_format_of_labels():
    for name in (*folder.COLUMNS, *folder.READERS):
        assert f"`{name}`" in PAGE


@pytest.mark.slow
def test_the_example_goes_from_photographs_to_a_table(tmp_path):
    for name in ("examples", "notebooks", "params"):
        shutil.copytree(ROOT / name, tmp_path / name)
    env = os.environ | {"SGVL_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sgvl.run", "examples"]
    subprocess.run(command, check=True, cwd=tmp_path, env=env, timeout=600)
    scores = pd.read_csv(tmp_path / "runs/examples/benchmark/scores.csv")
    quiet = scores[scores["policy"] == "quiet"].set_index("judge")
    assert list(quiet.index) == ["always_unsafe", "base", "blind_macro", "blind_pooled"]
    assert set(quiet["n"]) == {6} and quiet["value"]["always_unsafe"] == 50.0  # 2 of 6
