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

from sgvl.data.sources import DRAWN, KINDS
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


def papermill(checkout: Path, name: str, *options: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", f"{name}.out.ipynb"]
    environment = {"SGVL_ROOT": str(checkout), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, "--no-progress-bar", *options],
        cwd=checkout,
        env={**os.environ, **environment, **more},
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


@pytest.fixture
def served(
    serve_safeedit, safeedit_rows, serve_unsafebench, unsafebench_rows, serve_policyshift,
    serve_llavaguard,
):  # fmt: skip
    """A hub on this machine that has every published source."""
    serve_safeedit(safeedit_rows)
    serve_unsafebench(unsafebench_rows)
    serve_policyshift()
    return serve_llavaguard()


def test_real_data_goes_from_disk_and_hub_to_a_table(checkout, tmp_path, served):
    """A folder with a CSV of labels, every published source, and one parameter file."""
    rng = np.random.default_rng(0)
    names = ["knife", "dog"] * 4
    for k, name in enumerate(names):
        render(sample_scene(rng, "test", [name])).save(tmp_path / f"{k}.jpg")
    labels = "".join(f"{k}.jpg,{'safe' if k % 2 else 'unsafe'}\n" for k in range(len(names)))
    (tmp_path / "page.jpg").write_text("<html>Not found</html>")
    labels += "page.jpg,safe\n"
    (tmp_path / "labels.csv").write_text("image,label\n" + labels)
    (tmp_path / "house.md").write_text("---\nname: house\ntitle: House\n---\nNo weapons.\n")
    sources = "".join(f"  real_{kind}: {{kind: {kind}}}\n" for kind in KINDS if kind != "folder")
    (checkout / "01.yaml").write_text(
        f"profile: mine\n{SMALL}sources:\n  photos:\n    kind: folder\n    path: {tmp_path}\n"
        f"    labels: {tmp_path}/labels.csv\n    policies: [{tmp_path}/house.md]\n{sources}"
    )
    online = {"HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = papermill(checkout, "01_data", "-f", "01.yaml", **online)
    assert done.returncode == 0, done.stderr[-3000:]
    sets = json.loads((checkout / "runs/mine/data/manifest.json").read_text())["sets"]
    rows = {name: sets[name]["rows"] for name in sets if name not in DRAWN}
    assert rows == {
        "photos": 9, "real_safeeditbench": 5, "real_unsafebench": 3,
        "real_policyshift": 3, "real_llavaguard": 5,
    }  # fmt: skip
    shown = (checkout / "01_data.out.ipynb").read_text()
    assert "http_404" in shown and "hf_" not in shown
    assert shown.count('"image/png"') == 3  # pairs, one drawn scene, and the blurred gallery

    own = ["-p", "profile", "mine", "-p", "data", "mine", "-p", "dataset", "photos"]
    judges = "judges: [{kind: always_safe}, {kind: always_unsafe}]"
    own += ["-y", judges, "-p", "pairs", "0"]
    folder = checkout / "runs" / "mine" / "benchmark"
    done = papermill(checkout, "05_benchmark", *own, "-p", "worker", "1", "-p", "workers", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    names = ["always_safe.1-of-2.jsonl", "always_unsafe.1-of-2.jsonl"]
    assert sorted(file.name for file in folder.iterdir()) == names, "a worker makes no table"
    done = papermill(checkout, "05_benchmark", *own)
    assert done.returncode == 0, done.stderr[-3000:]
    left_out = pd.read_csv(folder / "left_out.csv")
    assert left_out.values.tolist() == [["page.jpg", "image_decode"]]
    scores = pd.read_csv(folder / "scores.csv")
    found = scores[scores["policy"] == "house"].set_index("judge")
    assert found["n"].tolist() == [8, 8] and found["positives"].tolist() == [4, 4]
    assert found["accuracy"].tolist() == [50, 50]
    assert found["value"].round(1).tolist() == [0, 66.7]  # F1 of the unsafe class


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
