"""Every notebook runs with its defaults, by plain papermill, in an empty working folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
