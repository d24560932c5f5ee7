"""Every notebook runs with its defaults, by plain papermill, in an empty working folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sgvl.scenes import render, sample_scene

# The smallest drawn sets that the blind controls of 01_data can be fitted on.
SMALL = (
    "unsafebench_per_category: 1\nllavaguard_images: 11\nllavaguard_test_images: 2\n"
    "following_images: 14\nsft_images: 2\ngeneral_per_task: 1\n"
)
ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder that holds the notebooks and nothing that a run writes."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


def papermill(checkout: Path, name: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", f"{name}.out.ipynb"]
    environment = {"SGVL_ROOT": str(checkout), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, "--no-progress-bar", *options],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_defaults_run(checkout, name):
    """In order: a notebook reads what an earlier one wrote."""
    done = papermill(checkout, name)
    assert done.returncode == 0, done.stderr[-3000:]
    metadata = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())["metadata"]["sgvl"]
    unit = {"03_sft": "03_sft.recap", "04_grpo": "04_grpo.rl"}.get(name, name)
    for path in metadata["gives"]:
        given = checkout / "runs" / "smoke" / path.format(unit=unit)
        assert given.is_file(), f"{name} gives {path}, but did not"


def test_a_misspelt_parameter_stops_plain_papermill(checkout):
    done = papermill(checkout, "00_start_here", "-p", "plase", "beach")
    assert done.returncode != 0
    assert "plase" in done.stderr and "place" in done.stderr


def test_pictures_of_ones_own_go_from_disk_to_a_table(checkout, tmp_path):
    """A folder, a CSV of labels, a policy of text alone, and one parameter file."""
    rng = np.random.default_rng(0)
    names = ["knife", "dog"] * 4
    for k, name in enumerate(names):
        render(sample_scene(rng, "test", [name])).save(tmp_path / f"{k}.jpg")
    labels = "".join(f"{k}.jpg,{'safe' if k % 2 else 'unsafe'}\n" for k in range(len(names)))
    (tmp_path / "labels.csv").write_text("image,label\n" + labels)
    (tmp_path / "house.md").write_text("---\nname: house\ntitle: House\n---\nNo weapons.\n")
    (checkout / "01.yaml").write_text(
        f"profile: mine\n{SMALL}sources:\n  photos:\n    kind: folder\n    path: {tmp_path}\n"
        f"    labels: {tmp_path}/labels.csv\n    policies: [{tmp_path}/house.md]\n"
    )
    judges = "[{kind: always_safe}, {kind: always_unsafe}]"
    own = ["-p", "profile", "mine", "-p", "data", "mine", "-p", "dataset", "photos"]
    for name, options in {
        "01_data": ["-f", "01.yaml"],
        "05_benchmark": [*own, "-y", f"judges: {judges}", "-p", "pairs", "0"],
    }.items():
        done = papermill(checkout, name, *options)
        assert done.returncode == 0, done.stderr[-3000:]
    scores = pd.read_csv(checkout / "runs" / "mine" / "benchmark" / "scores.csv")
    found = scores[scores["policy"] == "house"].set_index("judge")
    assert found["n"].tolist() == [8, 8] and found["positives"].tolist() == [4, 4]
    assert found["accuracy"].tolist() == [50, 50]
    assert found["value"].round(1).tolist() == [0, 66.7]  # F1 of the unsafe class
    shown = (checkout / "01_data.out.ipynb").read_text()
    assert shown.count('"image/png"') == 3  # pairs, one drawn scene, and the blurred gallery


def test_an_unseen_policy_is_judged_tabled_and_plotted(checkout, tmp_path):
    """A file that the project has never seen, named by its path, and no code."""
    quiet = tmp_path / "quiet.md"
    quiet.write_text(
        "---\nname: quiet\ntitle: Quiet\ndefault: permitted\nrules:\n"
        "  - prohibit: [weapons, animals]\n    except: [park]\n    text: Only in the park.\n"
        "---\nKeep it quiet.\n"
    )
    policies = f"policies: [L1, {quiet}]\nprofile: own\n"
    (checkout / "05.yaml").write_text(
        policies + "judges: [{kind: always_unsafe}, {kind: rule}]\npairs: 14\n"
    )
    (checkout / "07.yaml").write_text(policies + "benchmark: own\n")
    for name, file in {"05_benchmark": "05.yaml", "07_figures": "07.yaml"}.items():
        done = papermill(checkout, name, "-f", file)
        assert done.returncode == 0, done.stderr[-3000:]
    table = (checkout / "figures" / "own" / "table6.md").read_text()
    assert "quiet" in table
    assert "quiet" in (checkout / "figures" / "own" / "figure4.csv").read_text()
    assert "quiet" in (checkout / "figures" / "own" / "figure5.csv").read_text()
