"""README.md and docs/: their links lead somewhere, their commands run, their numbers are published.

    python tests/test_documents.py

writes the scores of figures/nano into the README.
"""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import mistune
import nbformat
import pandas as pd
import pytest
from scripted_server import Server

from sgvl.report.artefacts import fingerprint
from sgvl.widgets.export import FILES, KERNEL
from sgvl.widgets.parts import style

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = ROOT / "figures" / "nano"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINKING = [*PAGES, ROOT / "CREDITS.md", ROOT / "sgvl/nano/model/README.md"]
LINKING += [PUBLISHED / "REPORT.md", *NOTEBOOKS]

names = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    """The text of a file; of a notebook, its prose."""
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


# ---- links ---------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text_of(page))
    heads = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_and_their_anchors_lead_somewhere(page):
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        scheme, host, path, _, anchor = urlsplit(link)
        target = page.parent / path if path else page
        if scheme:
            good = scheme == "https" and "." in host
        else:
            good = target.exists() and (not anchor or anchor in anchors(target))
        wrong += [link] * (not good)
    assert not wrong, f"{page.name} links to {wrong}"


# ---- numbers -------------------------------------------------------------------------------------

SHOWN = {
    "base": "base model",
    "Ours (SFT)": "after stage 1 (SFT)",
    "Ours (RL)": "stage 2 alone (RL)",
    "Ours (Full)": "both stages (Full)",
    "the rule": "the rule: given what is in the picture",
    "blind, best macro": "blind: the best without reading the policy",
}
MARKS = "<!-- scores -->", "<!-- end of scores -->"


def scores() -> str:
    """Make the README's table of the published scores of nano, and the count of claims."""
    table = pd.read_csv(PUBLISHED / "table6.csv", dtype=str).set_index("judge")
    above = pd.read_csv(PUBLISHED / "blind_ceiling.csv", dtype=str).set_index("judge")
    levels = [column for column in table if re.match(r"L\d ", column)]
    ahead = next(column for column in above if column.startswith("macro"))
    heads = ["judge", *(level[:2] for level in levels), "mean", "points above blind"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " + "| ---: " * 7 + "|"]
    for judge, shown in SHOWN.items():
        cells = [shown, *(table.loc[judge, level].partition(" ")[0] for level in levels)]
        cells.append(table.loc[judge, "Overall (macro)"])
        cells.append(above[ahead].get(judge, "").partition(":")[0])
        lines.append(f"| {' | '.join(cells)} |")
    outcomes = pd.read_csv(PUBLISHED / "claims.csv")["outcome"]
    kinds = ("holds", "does not hold", "cannot tell", "vacuous")
    counted = ", ".join(f"{kind} {(outcomes == kind).sum()}" for kind in kinds)
    n = table.columns[-1].partition("n=")[2].partition(",")[0]
    note = (
        "F1 of the unsafe class; accuracy under L1, where all is safe. 95 % intervals, one\n"
        f"training run, n = {n} answers a judge. The paper's {len(outcomes)} claims, tested on\n"
        f"all scores of this run: {counted}."
    )
    return "\n".join([*lines, "", note])


def filled(text: str) -> str:
    """Put the scores into their place in the README."""
    start, end = MARKS
    return re.sub(f"{start}.*{end}", f"{start}\n{scores()}\n{end}", text, flags=re.S)


def test_the_scores_of_the_readme_are_the_published_ones():
    text = text_of(README)
    assert all(mark in text for mark in MARKS)
    assert text == filled(text), "write them anew: python tests/test_documents.py"


# ---- the lesson ----------------------------------------------------------------------------------


def test_the_shipped_lesson_is_that_of_the_notebook():
    """Its prose, style and scripts are those of the tree; its pictures and answers are of a run."""
    page = text_of(PUBLISHED / "classroom.html")
    prose = mistune.create_markdown(escape=False, plugins=["table"])
    stale = "python -m sgvl.run nano, then python -m sgvl.report nano --publish"
    plain = re.sub(r'<h2 id="part-\d+">', "<h2>", page)
    for cell in nbformat.read(ROOT / "notebooks" / "08_classroom.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown" and KERNEL not in cell.metadata.get("tags", []):
            assert prose(cell.source.partition("\n| needs |")[0]) in plain, stale
    assert style() in page, stale
    for name in ("page.js", "clauses.js"):
        assert text_of(FILES / name) in page, stale
    assert (PUBLISHED / "classroom.html").stat().st_size < 1e6
    assert "figures/nano/classroom.html" in text_of(README).partition("\n## ")[0], "at the top"


# ---- commands ------------------------------------------------------------------------------------

BARE = ""  # run as printed
CANNOT = "cannot be run in a test: "
# Every command of the pages, and what is added to it where a test runs it, or why none does.
COMMANDS = {
    "make run": "-n", "make test": "-n", "make env": "-n", "make lab": "-n",
    "source .venv/bin/activate": CANNOT + "tests run in an environment",
    "python3.11 -m venv .venv && source .venv/bin/activate": CANNOT + "likewise",
    **dict.fromkeys(
        [f'pip install -e ".[{extra}]"' for extra in ("classroom", "gpu,dev", "cluster", "edit")],
        CANNOT + "it would change this environment; its extras are checked",
    ),
    "export HF_TOKEN=hf_...": CANNOT + "it needs a token",
    "voila notebooks/08_classroom.ipynb": CANNOT + "make test-browser does",
    "voila notebooks/08_classroom.ipynb --Voila.ip=0.0.0.0 "
    "--MappingKernelManager.cull_idle_timeout=60 --MappingKernelManager.cull_interval=30":
        CANNOT + "make test-browser opens it without the options",
    "voila annotate.ipynb": CANNOT + "make test-browser does",
    "python -m sgvl.run nano --only 00_start_here": BARE,
    "python -m sgvl.run nano --only 06_ablations": "--dry-run",
    "python -m sgvl.run nano --jobs 2": "--dry-run",
    "python -m sgvl.run nano --status": BARE,
    "papermill notebooks/05_benchmark.ipynb out.ipynb -f params/nano/05_benchmark.yaml":
        "--prepare-only",
    "python -m sgvl.run examples": CANNOT + "tests/test_examples.py does",
    "python -m sgvl.report nano --compare": BARE,
    "python -m sgvl.report.audit": BARE,
    'PYTHONPATH=tests python -c "import test_layout; test_layout.write_budget()"':
        CANNOT + "it writes docs/BUDGET.md",
    # pictures and a policy
    "python -m sgvl.judge examples/photos --policy examples/quiet.md": BARE,
    "python -m sgvl.judge photos --policy house.md --against old.md": BARE,
    "python -m sgvl.judge photos --policy house.md --labels labels.csv --risk 0.05 ...": BARE,
    "python -m sgvl.judge photos --policy house.md --model Qwen/Qwen2.5-VL-7B-Instruct "
    "--set device=cuda": BARE,
    "python -m sgvl.judge photos --policy house.md --server https://HOST/v1 --model NAME "
    "--set key_variable=API_KEY": "--yes",
    "python -m sgvl.judge photo.jpg --policy house.md --at 2026-03-01": BARE,
    "python -m sgvl.diff examples/quiet.md examples/quiet_edited.md --judge rule": BARE,
    "python -m sgvl.diff old.md house.md --server URL --model NAME": "--yes --pictures 8",
    "python -m sgvl.diff --history house.md": BARE,
    "python -m sgvl.diff --lint examples/untidy.md": BARE,
    "for k in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$k papermill notebooks/05_benchmark.ipynb "
    "worker$k.ipynb -f params/mine/05_benchmark.yaml -p worker $k -p workers 4 & done; wait":
        CANNOT + "params/mine is yours; tests/test_notebooks.py has a worker",
    "papermill notebooks/05_benchmark.ipynb table.ipynb -f params/mine/05_benchmark.yaml":
        CANNOT + "params/mine is yours",
    # GPU profiles
    "python -m sgvl.run paper --plan": "--gpus 8xH100",
    'python -m sgvl.run single --plan --gpus "1xRTX 4090"': BARE,
    "vllm serve zai-org/glm-4v-9b --trust-remote-code --hf-overrides "
    """'{"architectures": ["GLM4VForCausalLM"]}' --port 8003""":
        CANNOT + "it needs a GPU; the rehearsal asks a stand-in",
    "python -m sgvl.run paper --rehearse": "--dry-run",
    "python -m sgvl.run paper --rehearse --jobs 2": "--dry-run",
    "python -m sgvl.run paper --only '01_data' '05_benchmark*'": "--dry-run",
    "python -m sgvl.run paper": "--dry-run",
    "python -m sgvl.run paper --status": BARE,
    **{
        f"python -m sgvl.run paper --workers 8 --snakemake --profile sgvl/run/profiles/{place}":
            CANNOT + "tests/test_cluster.py runs units by Snakemake"
        for place in ("box", "box -n", "slurm")
    },
    "python -m sgvl.run single --only '01*'": "--dry-run",
    "papermill --prepare-only notebooks/01c_annotate.ipynb annotate.ipynb "
    "-f params/single/01c_annotate.yaml -p page True": BARE,
    "python -m sgvl.run single --only 01d_release --force": "--dry-run",
    "mkdir -p data && cp -r runs/single/release/safeedit_train data/safeedit_train":
        CANNOT + "it needs a release of single",
}  # fmt: skip
# Exit codes other than 0: units that never ran, flips that a server misses, a GPU too small.
CODES = {"--status": 4, "sgvl.diff old.md": 1, "1xRTX 4090": 2}
STAND_INS = {
    "Qwen/Qwen2.5-VL-7B-Instruct": "nano",
    "device=cuda": "device=cpu",
    " ...": "",
}


def commands(page: Path) -> list[str]:
    """The commands of a page's shell blocks, a continued line as one, without comments."""
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```", text_of(page))
    lines = "".join(blocks).replace("\\\n  ", "").splitlines()
    return [bare for line in lines if (bare := re.sub(r"(^|\s+)# .*$", "", line))]


def test_every_command_is_listed_with_how_it_is_run():
    printed = {command for page in PAGES for command in commands(page)}
    assert printed == set(COMMANDS), "list it in COMMANDS, or drop it there"


@names
def test_options_targets_and_extras_that_a_page_names_exist(page, capsys):
    text = text_of(page)
    for module, rest in re.findall(r"python -m (sgvl[\w.]*)([^`\n#|]*)", text):
        file = ROOT / module.replace(".", "/")
        door = module if file.with_suffix(".py").exists() else f"{module}.__main__"
        with pytest.raises(SystemExit):
            importlib.import_module(door).main(["--help"])
        known = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", rest.partition("--snakemake ")[0]):
            assert option in known, f"{module} has no {option}"
    makefile = text_of(ROOT / "Makefile")
    for target in re.findall(r"`make ([\w-]+)`|(?m:^make ([\w-]+))", text):
        assert re.search(rf"(?m)^{''.join(target)}:", makefile), target
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for named in re.findall(r'pip install -e "\.\[([\w,]+)\]"', text):
        assert set(named.split(",")) <= set(extras), named


@pytest.mark.parametrize("command", [c for c, added in COMMANDS.items() if added == "-n"])
def test_a_make_target_names_commands_that_are_there(command):
    made = [f"{command} -n", f"VENV={Path(sys.executable).parents[1]}"]
    done = subprocess.run(" ".join(made), shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """What the commands speak of: a checkout with photographs, policies, labels and a history."""
    desk = tmp_path_factory.mktemp("desk")
    for name in ("examples", "notebooks", "params"):
        shutil.copytree(ROOT / name, desk / name)
    shutil.copytree(ROOT / "examples" / "photos", desk / "photos")
    shutil.copy(desk / "photos" / "park" / "1.jpg", desk / "photo.jpg")
    shutil.copy(ROOT / "examples" / "labels.csv", desk)
    for name, policy in {"old": "quiet", "house": "quiet_edited"}.items():
        shutil.copy(ROOT / "examples" / f"{policy}.md", desk / f"{name}.md")
    day = {f"GIT_{who}_DATE": "2026-02-01T00:00:00" for who in ("AUTHOR", "COMMITTER")}
    git = "git init -q && git add house.md && git -c user.name=a -c user.email=a@b commit -qm a"
    subprocess.run(git, shell=True, check=True, cwd=desk, env=os.environ | day)
    shutil.copytree(PUBLISHED, desk / "figures" / "nano")
    run = desk / "runs" / "nano" / "figures"
    shutil.copytree(PUBLISHED, run)
    digests = {file.name: fingerprint(file)["sha256"] for file in run.iterdir()}
    (run / "07_figures.json").write_text(json.dumps(digests))
    return desk


@pytest.fixture(scope="module")
def address():
    server = Server()
    server.plain = "\nAnswer: safe"  # to whatever it is asked
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.url
    server.shutdown()


def environment(desk: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"SGVL_ROOT": str(desk), "PYTHONPATH": str(ROOT), "PATH": path, "API_KEY": "secret"}
    return os.environ | own | {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1"}


RUN = [c for c, added in COMMANDS.items() if added != "-n" and not added.startswith(CANNOT)]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_command_runs(command, desk, address):
    line = f"{command} {COMMANDS[command]}"
    for name, stand_in in {**STAND_INS, "https://HOST/v1": address, "URL": address}.items():
        line = line.replace(name, stand_in)
    done = subprocess.run(
        line, shell=True, cwd=desk, env=environment(desk), capture_output=True, text=True
    )
    code = next((code for part, code in CODES.items() if part in command), 0)
    assert done.returncode == code, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert done.stdout or done.stderr


@pytest.mark.slow
def test_make_lab_opens_the_first_notebook(desk):
    """The command of the target, without a browser: the page that it would open is there."""
    made = ["make", "-n", "lab", f"VENV={Path(sys.executable).parents[1]}", "LAB=--no-browser"]
    shown = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = [*shlex.split(shown.splitlines()[-1]), "--allow-root", "--IdentityProvider.token="]
    log = desk / "lab.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, "--port=0"], cwd=desk, env=environment(desk), stderr=file
        ) as server,
    ):
        try:
            for _ in range(240):
                if said := re.search(r"is running at:\n.* (http://\S+)\n", log.read_text()):
                    break
                time.sleep(0.5)
            assert urlsplit(said[1]).path == "/lab/tree/notebooks/00_start_here.ipynb"
            assert urllib.request.urlopen(said[1], timeout=60).status == 200
        finally:
            server.terminate()


if __name__ == "__main__":
    README.write_text(filled(text_of(README)), encoding="utf-8")
