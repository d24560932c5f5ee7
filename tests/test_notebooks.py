"""Every notebook runs with its defaults, in an empty working folder; some by plain papermill."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.cbook import get_sample_data
from sklearn.datasets import load_sample_images

from sgvl.data.sources.general import REPOS
from sgvl.data.sources.registry import DRAWN, SOURCES

# The smallest drawn sets that the blind controls of 01_data can be fitted on.
SMALL = (
    "unsafebench_per_category: 1\nllavaguard_images: 11\nllavaguard_test_images: 2\n"
    "following_images: 14\nsft_images: 2\ngeneral_per_task: 1\n"
)
ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


# The variant that the defaults of a notebook are.
UNITS = {"01b_safeedit": "01b_safeedit.train", "03_sft": "03_sft.recap", "04_grpo": "04_grpo.rl"}


def new_checkout(folder: Path) -> Path:
    """Fill a folder with the notebooks, the parameter files and nothing that a run writes."""
    for part in "notebooks", "params", "examples":
        shutil.copytree(ROOT / part, folder / part)
    # As for the units of sgvl.run: papermill and kernels start in a second and a half less.
    site = "import gc, sys\nsys.modules['rfc3987_syntax'] = None\ngc.set_threshold(100_000)\n"
    (folder / "sitecustomize.py").write_text(site)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return new_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def series(checkout) -> subprocess.CompletedProcess:
    """A run of a profile whose parameter files are empty; its kernels import libraries once."""
    (checkout / "params/smoke").mkdir()
    for name in NAMES:
        if not name.startswith("09"):
            (checkout / f"params/smoke/{UNITS.get(name, name)}.yaml").touch()
    return in_checkout(checkout, "sgvl.run", "smoke")


def papermill(checkout: Path, name: str, *options: str, **more) -> subprocess.CompletedProcess:
    files = f"notebooks/{name}.ipynb", f"{name}.out.ipynb"
    return in_checkout(checkout, "papermill", *files, "--no-progress-bar", *options, **more)


def in_checkout(checkout: Path, module: str, *arguments: str, **more):
    path = os.pathsep.join(map(str, (checkout, ROOT)))
    environment = {"SGVL_ROOT": str(checkout), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=checkout,
        env={**os.environ, **environment, **more},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("09")])
def test_defaults_run(series, checkout, name):
    """Its receipt would not be "ok" without all that the notebook gives."""
    receipt = checkout / f"runs/smoke/{UNITS.get(name, name)}.json"
    assert json.loads(receipt.read_text())["status"] == "ok", series.stderr[-3000:]
    if name == "01_data":
        sets = json.loads((checkout / "runs/smoke/data/manifest.json").read_text())["sets"]
        assert list(sets) == list(DRAWN)


@pytest.fixture(scope="module")
def other_checkout(tmp_path_factory) -> Path:
    return new_checkout(tmp_path_factory.mktemp("other"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_defaults_run_by_plain_papermill(other_checkout, name):
    """In order: a notebook reads what an earlier one wrote."""
    checkout = other_checkout
    done = papermill(checkout, name)
    assert done.returncode == 0, done.stderr[-3000:]
    metadata = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())["metadata"]["sgvl"]
    unit = UNITS.get(name, name)
    variant = "train/" if name == "01b_safeedit" else ""
    for path in metadata["gives"]:
        given = path.replace("{unit}", unit).replace("{variant}/", variant)
        assert [*(checkout / "runs" / "smoke").glob(given)], f"{name} gives {path}, but did not"


def test_a_misspelt_parameter_stops_plain_papermill(checkout):
    done = papermill(checkout, "00_start_here", "-p", "plase", "beach")
    assert done.returncode != 0
    assert "plase" in done.stderr and "place" in done.stderr


@pytest.fixture
def served(
    serve_safeedit, safeedit_rows, serve_unsafebench, unsafebench_rows, serve_policyshift,
    serve_llavaguard, serve_general,
):  # fmt: skip
    """A hub on this machine that has every published source."""
    serve_safeedit(safeedit_rows)
    serve_unsafebench(unsafebench_rows, unsafebench_rows[:2])
    serve_policyshift()
    for name in REPOS:
        serve_general(name)
    return serve_llavaguard()


def photographs(folder: Path) -> list[str]:
    """Real photographs, as they come with two libraries: whole, and in quarters. Their names."""
    whole = dict(zip(("china", "flower"), load_sample_images()["images"], strict=True))
    with get_sample_data("grace_hopper.jpg") as file:
        whole["hopper"] = np.asarray(PIL.Image.open(file))
    folder.mkdir()
    for name, pixels in whole.items():
        height, width = (side // 2 for side in pixels.shape[:2])
        parts = [pixels, pixels[:height, :width], pixels[height:, width:]]
        for k, part in enumerate(parts):
            PIL.Image.fromarray(part).save(folder / f"{name}{k}.jpg")
    return [f"{name}{k}.jpg" for k in range(3) for name in whole]


def test_real_data_goes_from_disk_and_hub_to_a_table(checkout, tmp_path, served):
    """Photographs with a CSV of labels, every published source, and one parameter file."""
    names = photographs(tmp_path / "photos")
    labels = "".join(f"{name},{'unsafe' if 'hopper' in name else 'safe'}\n" for name in names)
    (tmp_path / "photos" / "page.jpg").write_text("<html>Not found</html>")
    labels += "page.jpg,safe\n"
    (tmp_path / "labels.csv").write_text("image,label\n" + labels)
    (tmp_path / "house.md").write_text(
        "---\nname: house\ntitle: House\ndefault: permitted\n"
        "rules:\n  - {prohibit: [music], text: No instruments.}\n---\nPlay nothing.\n"
    )
    sources = "".join(
        f"  real_{kind}: {{kind: {kind}}}\n"
        for kind in SOURCES
        if kind not in ("folder", "pictures", "general", "llavaguard")
    )
    sources += "  real_llavaguard: {kind: llavaguard, private: true}\n"  # the hub is this machine
    sources += "".join(f"  {name}: {{kind: general, benchmark: {name}}}\n" for name in REPOS)
    (checkout / "01.yaml").write_text(
        f"profile: mine\n{SMALL}sources:\n  photos: {{kind: folder, path: {tmp_path}/photos, "
        f"labels: {tmp_path}/labels.csv, policies: [{tmp_path}/house.md]}}\n{sources}"
    )
    online = {"HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = papermill(checkout, "01_data", "-f", "01.yaml", **online)
    assert done.returncode == 0, done.stderr[-3000:]
    sets = json.loads((checkout / "runs/mine/data/manifest.json").read_text())["sets"]
    rows = {name: sets[name]["rows"] for name in sets if name not in DRAWN}
    assert rows == {
        "photos": 10, "real_safeeditbench": 5, "real_unsafebench": 3,
        "real_policyshift": 3, "real_llavaguard": 5,
        "mmmu": 2, "realworldqa": 2, "blink": 1, "mmt": 1,
    }  # fmt: skip
    shown = (checkout / "01_data.out.ipynb").read_text()
    assert "http_404" in shown and "hf_" not in shown
    assert shown.count('"image/png": "') == 3  # pairs, one drawn scene, and the blurred gallery

    (checkout / "05.yaml").write_text(
        "profile: mine\ndata_profile: mine\nbench: photos\npairs: 0\nrows: 4\n"
        "judges: [{kind: always_safe}, {kind: chat, max_new_tokens: 8}, {kind: always_unsafe}]\n"
        f"questions: [general, {', '.join(REPOS)}]\nconvention: lmms_eval\n"
    )
    folder = checkout / "runs" / "mine" / "benchmark"
    worker = ("-p", "worker", "1", "-p", "workers", "2")
    done = papermill(checkout, "05_benchmark", "-f", "05.yaml", *worker)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [file.name for file in folder.iterdir()] == ["answers"], "a worker makes no table"
    names = [f"{name}.1-of-2.jsonl" for name in ("always_safe", "always_unsafe", "chat")]
    names += ["chat.replies.1-of-2.jsonl"]
    assert sorted(file.name for file in (folder / "answers").glob("*.jsonl")) == sorted(names)
    done = papermill(checkout, "05_benchmark", "-f", "05.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    left_out = pd.read_csv(folder / "left_out.csv")
    assert left_out.values.tolist() == [["page.jpg", "image_decode"]]
    scores = pd.read_csv(folder / "scores.csv")
    found = scores[scores["policy"] == "house"].set_index("judge")
    assert set(found["n"]) == {9} and set(found["positives"]) == {3}
    constant = found.loc[["always_safe", "always_unsafe"]]
    assert constant["accuracy"].round(1).tolist() == [66.7, 33.3]
    assert constant["value"].round(1).tolist() == [0, 50]  # F1 of the unsafe class
    able = pd.read_csv(folder / "general_scores.csv")
    assert set(able["judge"]) == {"chat"} and set(able["convention"]) == {"lmms_eval"}
    assert able.set_index("task")["n"].to_dict() == {
        **dict.fromkeys(("presence", "counting", "place", "choice"), 1),
        **{"mmmu": 2, "realworldqa": 2, "blink": 1, "mmt": 1},
    }
    assert able["unparseable"].between(0, 100).all()


PUBLISHED = """
profile: real
drawn: false
sources:
  safeeditbench: {kind: safeeditbench}
  unsafebench: {kind: unsafebench}
  unsafebench_train: {kind: unsafebench, split: train}
  llavaguard: {kind: llavaguard, split: train, private: true}
  llavaguard_test: {kind: llavaguard, private: true}
  safeedit_train: {kind: safeeditbench, path: nowhere, split: train, optional: true}
  mmmu: {kind: general, benchmark: mmmu}
"""


def test_a_run_of_published_data_alone_draws_nothing(checkout, tmp_path, served):
    (checkout / "01.yaml").write_text(PUBLISHED)
    online = {"HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = papermill(checkout, "01_data", "-f", "01.yaml", SGVL_DRAWN="0", **online)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = checkout / "runs/real/data"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["sets"]) == [
        *("safeeditbench", "unsafebench", "unsafebench_train", "llavaguard", "llavaguard_test"),
        "mmmu",
    ]
    assert manifest["absent"]["safeedit_train"].endswith("nowhere: no such folder")
    assert all("tags" not in part["columns"] for part in manifest["sets"].values())
    assert pd.read_csv(folder / "controls.csv").empty
    assert "not here: " in (folder / "README.md").read_text()
    shown = (checkout / "01_data.out.ipynb").read_text()
    assert shown.count('"image/png": "') == 3  # a blurred pair, one picture, and the gallery
    assert "The text of L5" in shown and "Compare &lt;image 1&gt;" in shown


def test_an_unseen_policy_is_judged_tabled_and_plotted(series, checkout, tmp_path):
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
    artefacts = checkout / "runs" / "own" / "figures"
    assert "quiet" in (artefacts / "table6.md").read_text()
    assert "quiet" in (artefacts / "figure4.csv").read_text()
    assert "quiet" in (artefacts / "figure5.csv").read_text()
