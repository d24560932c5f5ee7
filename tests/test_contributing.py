"""CONTRIBUTING.md: its four examples, run as they are printed; the files for those who carry on."""

import ast
import doctest
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import check_jsonschema
import pytest
import yaml
from PIL import Image

import sgvl.data.sources
import sgvl.judges
from sgvl import diff
from sgvl import judge as judge_door
from sgvl.common.errors import ExitCode, InputError
from sgvl.common.paths import NOTEBOOKS
from sgvl.data import store
from sgvl.data.sources import registry
from sgvl.experiments import benchmark, claims
from sgvl.experiments.claims import paper
from sgvl.run.parameters import validate
from sgvl.scores.metrics import score_table
from sgvl.world import pairs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = {name: text for name, text in re.findall(r"(?ms)^```\w+ (\S+)\n(.*?)^```$", PAGE)}


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The modules of the page as part of the package, and their lines in the registries."""
    for name in ("sgvl/judges/redness.py", "sgvl/data/sources/label_folders.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(BLOCKS[name], encoding="utf-8")
    for package in (sgvl.judges, sgvl.data.sources):
        folder = str(tmp_path / package.__name__.replace(".", "/"))
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    for known, name in [
        (sgvl.judges.JUDGES, "sgvl/judges/__init__.py"),
        (registry.SOURCES, "sgvl/data/sources/registry.py"),
    ]:
        for kind, place in ast.literal_eval(f"{{{BLOCKS[name]}}}").items():
            monkeypatch.setitem(known, kind, place)
    yield tmp_path
    for name in ("sgvl.judges.redness", "sgvl.data.sources.label_folders"):
        sys.modules.pop(name, None)


@pytest.fixture
def photos(tmp_path):
    """A green picture in both folders, a red one among the unsafe, and what is no picture."""
    for label, colours in {"safe": ["green"], "unsafe": ["red", "green"]}.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for colour in colours:
            file = tmp_path / "photos" / label / f"{colour}.png"
            Image.new("RGB", (30 + 5 * len(label), 30), colour).save(file)
    (tmp_path / "photos" / "safe" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_a_judge_has_thirty_lines_and_its_rows_reach_a_table(added, photos, monkeypatch, capsys):
    assert len(BLOCKS["sgvl/judges/redness.py"].splitlines()) <= 30
    monkeypatch.chdir(added)
    command = re.search(r"python -m sgvl.judge (.*)", PAGE)[1].replace("examples/photos", "photos")
    assert judge_door.main(command.split()) == ExitCode.DONE
    assert "1 unsafe, 2 safe" in capsys.readouterr().out
    (table,) = (added / "judged").glob("*.csv")
    rows = table.read_text(encoding="utf-8")
    assert "unsafe/red.png" in rows and "100% of the picture is red" in rows
    with pytest.raises(InputError, match="threshold"):
        sgvl.judges.make_judge({"kind": "redness", "threshold": 2})


def test_a_source_becomes_a_set_that_a_judge_is_scored_on(added, photos, monkeypatch):
    monkeypatch.chdir(added)
    data, asks = (
        yaml.safe_load(BLOCKS[f"params/mine/{name}.yaml"]) for name in ("01_data", "05_benchmark")
    )
    loaded = registry.load_sources(data["sources"])
    store.save(loaded.pictures, added / "data", seed=0)
    named = {key: asks[key] for key in ("bench", "content", "own", "following", "questions")}
    sets = benchmark.read_sets(added / "data", pairs=asks["pairs"], **named)
    panel = benchmark.ask_panel(asks["judges"], [], sets, [], added / "answers")
    table = score_table(panel.frames["levels"], resamples=10)
    rows = table[table["policy"] == "L3"].set_index("judge")["value"].round(1)
    assert rows.to_dict() == {"always_unsafe": 80.0, "redness": 66.7}  # F1: 2 of 3, 1 of 2 found


def test_a_policy_labels_and_passes_the_linter(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harbour.md").write_text(BLOCKS["harbour.md"], encoding="utf-8")
    printed = re.search(r"(?ms)^```python\n(>>> .*?)^```$", PAGE)[1]
    examples = doctest.DocTestParser().get_doctest(printed, {}, "CONTRIBUTING.md", None, None)
    assert len(examples.examples) == 3 and not doctest.DocTestRunner().run(examples).failed
    command = re.search(r"python -m sgvl.diff (--lint .*)", PAGE)[1]
    assert diff.main(command.split()) == ExitCode.DONE, capsys.readouterr().out
    text = BLOCKS["harbour.md"].replace(", unless they are shown in a museum", "")
    (tmp_path / "harbour.md").write_text(text, encoding="utf-8")
    assert diff.main(command.split()) == ExitCode.DIFFERS


@pytest.mark.parametrize(
    ("before", "outcome"), [("always_unsafe", "holds"), ("rule", "cannot tell")]
)
def test_a_claim_is_a_row_of_the_table(before, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "CLAIMS", [])
    monkeypatch.setattr(claims, "CLAIMS", paper.CLAIMS)
    exec(BLOCKS["sgvl/experiments/claims/paper.py"], vars(paper) | {})
    store.save({"safeeditbench": pairs.safeeditbench(per_category=1)}, tmp_path, seed=0)
    sets = benchmark.read_sets(tmp_path, content="", own="", following=[], questions=[])
    judges = [{"kind": "rule", "id": "full"}, {"kind": before, "id": "base"}]
    panel = benchmark.ask_panel([], judges, sets, [], tmp_path / "answers")
    (row,) = claims.claims({"levels": panel.frames["levels"]}, "test", resamples=200).to_dict(
        "records"
    )
    assert row["statement"] == "SFT and RL together beat the base under L3 (Table 6)."
    assert row["outcome"] == outcome and row["n"] > 0


def test_the_examples_have_the_style_of_the_package(tmp_path):
    for name, text in BLOCKS.items():
        if name.endswith(".py") and text.startswith('"""'):
            (tmp_path / Path(name).name).write_text(text, encoding="utf-8")
    config = ["--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_parameters_of_the_page_are_those_of_the_notebooks(added):
    for name in ("01_data", "05_benchmark"):
        values = yaml.safe_load(BLOCKS[f"params/mine/{name}.yaml"])
        assert validate(NOTEBOOKS / f"{name}.ipynb", values, name)["profile"] == "mine"


def test_files_and_pages_that_are_named_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    named = re.findall(r"`((?:sgvl|tests|docs)/[\w./]+)`", PAGE)
    tests = [f"tests/{name}" for name in re.findall(r"`(test_\w+\.py)`", PAGE)]
    missing = [name for name in {*links, *named, *tests} if not (ROOT / name).exists()]
    assert not missing


# ---- the files that GitHub reads -----------------------------------------------------------------


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("file", [".github/workflows/checks.yml", "examples/policy_check.yml"])
def test_actions_are_pinned(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", name) for name in used)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-workflows", "examples/policy_check.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_fit_their_schema(schema, files, capsys):
    """By the schemas that check-jsonschema brings along."""
    found = [str(file) for file in ROOT.glob(files)]
    options = ["--builtin-schema", f"vendor.{schema}", "--default-filetype", "yaml"]
    code = check_jsonschema.main([*options, *found], standalone_mode=False)
    assert found and code == 0, capsys.readouterr().out


def test_the_citation_is_of_this_version_and_of_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["version"] == project["version"] == sgvl.__version__
    assert cited["license"] == project["license"]
    assert cited["preferred-citation"]["url"] == "https://arxiv.org/abs/2603.01228"
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
