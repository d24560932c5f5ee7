"""The runner, on small real notebooks that papermill really executes.

Starting a kernel takes seconds, so each test tells a whole story over one project.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sgvl.common.processes import usable_cores
from sgvl.run import receipts, unit_process, units
from sgvl.run.units import _filled

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# What the notebooks share: each logs that it ran and writes what it gives.
PRELUDE = """\
from pathlib import Path
folder = Path("runs/nano")
def ran(unit, text):
    with open("log.txt", "a") as log:
        log.write(unit + "\\n")
    (folder / f"{unit}.txt").write_text(text)
"""


class Project:
    """A checkout with notebooks and parameter files of its own, and the runner at work on it."""

    def __init__(self, root: Path):
        self.root = root
        (root / "notebooks").mkdir(parents=True)
        (root / "params/nano").mkdir(parents=True)

    def notebook(self, name, *cells, parameters="x: int = 1", needs=(), gives=()):
        tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = new_notebook(
            cells=[
                new_markdown_cell("# A title\n\n![a](../figures/a.png)"),
                tagged,
                new_code_cell(PRELUDE),
                *map(new_code_cell, cells),
            ]
        )
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
        notebook.metadata.sgvl = {"needs": list(needs), "gives": list(gives)}
        nbformat.write(notebook, self.root / f"notebooks/{name}.ipynb")

    def parameters(self, unit, text=""):
        (self.root / f"params/nano/{unit}.yaml").write_text(text)

    def edit(self, name, change):
        path = self.root / f"notebooks/{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        nbformat.write(notebook, path)

    def start(self, *arguments, stdout=subprocess.PIPE):
        environment = os.environ | {
            "SGVL_ROOT": str(self.root),
            "PYTHONPATH": str(PACKAGE_PARENT),
        }
        environment.pop("OMP_NUM_THREADS", None)  # the runner's to set
        return subprocess.Popen(
            [sys.executable, "-m", "sgvl.run", *arguments],
            cwd=self.root.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments):
        """Exit code, standard output, standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def newly_run(self):
        """The units that have run since the last call."""
        log = self.root / "log.txt"
        units = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return units

    def status(self, expected):
        code, out, err = self.run("nano", "--status")
        assert code == expected, out + err
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}

    def receipt(self, unit):
        return json.loads((self.root / f"runs/nano/{unit}.json").read_text())

    def wait_for(self, file):
        for _ in range(1200):
            if (self.root / file).exists():
                return (self.root / file).read_text()
            time.sleep(0.1)
        raise AssertionError(f"{file} never came")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "a {checkout}, non-ASCII é")


def test_a_dry_run_lists_a_notebook_of_several_processes(project):
    """05 asks several judges at the same time; it is no training, whose processes have a layout."""
    project.notebook("05_ask", "ran('05_ask', '')", parameters="processes: int = 1")
    project.parameters("05_ask", "processes: 2\n")
    code, out, err = project.run("nano", "--dry-run")
    assert (code, err) == (0, "") and out.startswith("papermill notebooks/05_ask.ipynb ")


def test_runs_in_order_and_again_only_what_changed(project):
    score = "ran(f'02_score.{split}', (folder / '01_data.txt').read_text() + split)"
    split = 'split: str = "none"'
    project.notebook("02_score", score, parameters=split, needs=["01_*"], gives=["{unit}.txt"])
    project.notebook("01_data", "ran('01_data', str(x))", gives=["{unit}.txt"])
    project.parameters("02_score.a", "split: a\n")
    project.parameters("01_data", "x: 7\n")

    code, out, err = project.run("nano", "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == (
        "papermill notebooks/02_score.ipynb runs/nano/02_score.a.ipynb "
        "-f params/nano/02_score.a.yaml  # not-run; after 01_data"
    )
    assert not (project.root / "runs").exists()

    code, out, err = project.run("nano")
    assert (code, err) == (0, "")
    assert project.newly_run() == ["01_data", "02_score.a"]
    executed = (project.root / "runs/nano/02_score.a.ipynb").read_text()
    assert "(../../figures/a.png)" in executed, "links of the prose lead on from there"
    table = out[out.index("unit  ") :].splitlines()
    assert [line.split()[:2] for line in table[1:3]] == [["01_data", "ok"], ["02_score.a", "ok"]]
    assert table[3].startswith("sum of the units")
    assert table[-1] == "executed notebooks: runs/nano/"
    again = project.run("nano", "--only", "01_data")[1].splitlines()
    assert again[-3:] == [
        "01_data                  ok             not run again",
        "",
        "executed notebook: runs/nano/01_data.ipynb",
    ]

    receipt = project.receipt("02_score.a")
    assert receipt["status"] == "ok"
    assert receipt["parameters"] == {"split": "a"}
    assert receipt["outputs"]["02_score.a.txt"]["bytes"] == len("7a")
    assert {"started", "seconds", "python", "platform", "packages", "commit"} <= receipt.keys()
    executed = nbformat.read(project.root / "runs/nano/02_score.a.ipynb", as_version=4)
    assert executed.metadata.papermill.exception is None

    # A reader opens a notebook, runs it, writes a note and saves: nothing that counts has changed.
    def read(notebook):
        notebook.cells[0].source = "# Another title"
        notebook.cells[2].outputs = [new_output("stream", text="hello")]
        notebook.cells[2].execution_count = 3

    project.edit("01_data", read)
    project.parameters("01_data", "# The same value, written in another way.\nx:   7\n")
    assert project.run("nano")[0] == 0
    assert project.newly_run() == []

    project.parameters("02_score.a", "split: c\n")
    assert project.status(4)["02_score.a"] == "stale        parameters (split)"
    project.parameters("02_score.a", "split: a\n")
    (project.root / "runs/nano/02_score.a.txt").write_text("other")
    assert project.status(4)["02_score.a"] == "stale        outputs (02_score.a.txt)"

    # A changed cell reaches all that build on it; --only runs what the chosen unit needs.
    def change(notebook):
        notebook.cells[-1].source = "ran('01_data', str(x + 1))"

    (project.root / "runs/nano/02_score.a.txt").write_text("7a")
    project.edit("01_data", change)
    assert project.status(4) == {
        "01_data": "stale        code",
        "02_score.a": "stale        upstream (01_data)",
    }
    code, out, _ = project.run("nano", "--only", "02_*a")
    assert code == 0 and out.startswith("also runs 1 unit that 02_*a needs: 01_data\n")
    assert project.newly_run() == ["01_data", "02_score.a"]
    assert (project.root / "runs/nano/02_score.a.txt").read_text() == "8a"

    # sgvl itself has changed: shown, not rerun, unless forced.
    receipt = project.receipt("02_score.a") | {"sgvl": "another version"}
    (project.root / "runs/nano/02_score.a.json").write_text(json.dumps(receipt))
    assert project.status(0)["02_score.a"].startswith("old-code")
    assert project.run("nano")[0] == 0
    assert project.newly_run() == []
    (project.root / "runs/nano/figures").mkdir()
    (project.root / "runs/nano/figures/REPORT.html").touch()
    code, out, _ = project.run("nano", "--only", "02_score.a", "--force")
    assert code == 0 and "also runs" not in out, "what it needs is done"
    assert out.endswith("\nreport: runs/nano/figures/REPORT.html\n")
    assert project.newly_run() == ["02_score.a"]
    assert project.status(0)["02_score.a"] == "ok"


def test_pictures_travel_with_an_executed_notebook(tmp_path, monkeypatch):
    """One that is missing keeps its link, as it leads from the folder of the run."""
    monkeypatch.setattr(unit_process, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/a.png").write_bytes(b"a picture")
    prose = "![a](../figures/a.png) ![b](../figures/b.png) [c](../docs/c.md)"
    notebook = new_notebook(cells=[new_markdown_cell(prose), new_code_cell("1")])
    moved = nbformat.from_dict(unit_process._with_moved_links(notebook))
    cell = moved["cells"][0]
    assert cell["source"] == (
        "![a](attachment:figures-a.png) ![b](../../figures/b.png) [c](../../docs/c.md)"
    )
    assert cell["attachments"] == {"figures-a.png": {"image/png": "YSBwaWN0dXJl"}}
    nbformat.validate(moved)
    page, _ = HTMLExporter().from_notebook_node(moved)
    assert '<img alt="a" src="data:image/png;base64,YSBwaWN0dXJl"' in page


@pytest.mark.parametrize("reason", ["loss is nan", "HTTP 400 (``` \n```\n<script>x</script>\n```)"])
def test_the_reason_of_a_failure_is_text_whatever_a_server_said(reason, tmp_path, monkeypatch):
    file = tmp_path / "01_data.running.ipynb"
    nbformat.write(new_notebook(), file)
    monkeypatch.setattr(unit_process, "_unfinished", lambda unit: file)
    unit = SimpleNamespace(executed=tmp_path / "01_data.ipynb")
    unit_process._publish(unit, unit_process.Status.FAILED, reason)
    html, _ = HTMLExporter(template_name="basic").from_filename(str(unit.executed))
    assert "<script>x" not in html and "did not finish: failed" in html
    assert ("script" in reason) == ("&lt;script&gt;x" in html)


def test_a_failure_is_named_and_the_next_run_goes_on(project):
    says = "import os\nos.write(2, b'out of memory')\n"
    dies = says + "if not Path('mended').exists():\n    os.kill(os.getpid(), 9)"
    project.notebook("01_dies", dies, "ran('01_dies', 'x')", gives=["01_dies.txt"])
    project.notebook("02_silent", "ran('02_silent', 'x')", gives=["02_other.txt"])
    refuses = "raise InputError(['data: no images', 'data: no labels'])"
    refuses = f"ran('03_refuses', '')\nfrom sgvl.common.errors import InputError\n{refuses}"
    project.notebook("03_refuses", refuses, needs=["01_dies"])
    for unit in ("01_dies", "02_silent", "03_refuses"):
        project.parameters(unit)

    code, _, err = project.run("nano")
    assert code == 4
    assert project.newly_run() == ["02_silent"]
    assert "03_refuses skipped: needs 01_dies" in err
    assert "see runs/nano/01_dies.ipynb" in err
    assert "out of memory" in err, "what the kernel's process said is shown where it died"
    status = project.status(4)
    assert status["01_dies"].startswith("failed       the kernel was killed")
    assert status["02_silent"] == "failed       declared but not written: 02_other.txt"
    assert status["03_refuses"] == "not-run"
    died = nbformat.read(project.root / "runs/nano/01_dies.ipynb", as_version=4)
    assert "did not finish: failed" in died.cells[0].source
    assert "the kernel was killed" in died.cells[0].source

    # What it stumbled over is mended; a notebook's own InputError counts as bad input.
    (project.root / "mended").touch()
    code, _, err = project.run("nano", "--only", "03_refuses")
    assert code == 2
    assert project.newly_run() == ["01_dies", "03_refuses"]
    assert "03_refuses bad-input: data: no images\ndata: no labels\n" in err
    assert "out of memory" not in err, "and kept back where the notebook ended well"
    assert project.receipt("01_dies")["status"] == "ok"


def test_what_cannot_be_had_is_left_out_and_the_rest_goes_on(project):
    """Its unit is done, with the reason; once there is something new to try, it runs again."""
    gone = "from sgvl.common.errors import Unavailable\n"
    gone += "if not Path('released').exists():\n    raise Unavailable('a_set: never released')\n"
    drawn = "import os\nran('01', os.environ.get('SGVL_DRAWN', '1'))"
    project.notebook("01_data", drawn, parameters="drawn: bool = True", gives=["01.txt"])
    project.notebook("03_sft", gone, "ran('03_sft', '')", needs=["01_data"], gives=["{unit}.txt"])
    ask = (
        "import os\n(folder / 'guards').mkdir()\nran('guards/table', str(os.getenv('SGVL_DRAWN')))"
    )
    project.notebook("05_ask", ask, needs=["03_sft"], gives=["{variant}/table.txt"])
    project.edit("05_ask", lambda notebook: notebook.metadata.sgvl.update(draws=True))
    project.parameters("01_data", "drawn: false")
    project.parameters("03_sft")
    project.parameters("05_ask.guards")

    code, _, err = project.run("nano")
    assert code == 0, err
    assert "03_sft unavailable: a_set: never released" in err
    assert (project.root / "runs/nano/01.txt").read_text() == "0", "nothing may be drawn"
    assert (project.root / "runs/nano/guards/table.txt").read_text() == "None", "a lesson may"
    assert "guards/table.txt" in project.receipt("05_ask.guards")["outputs"]
    assert project.status(0)["03_sft"] == "unavailable  a_set: never released"
    project.newly_run()
    assert project.run("nano")[0] == 0 and project.newly_run() == [], "all of it is done"

    (project.root / "released").touch()
    project.parameters("01_data", "drawn: true")
    assert project.run("nano", "--only", "03_sft")[0] == 0
    assert project.newly_run() == ["01", "03_sft"]
    assert project.status(4)["05_ask.guards"] == "stale        upstream (03_sft)"
    assert _filled("benchmark/{variant}/a.csv", "05_ask") == "benchmark/a.csv"


SLEEPS = """\
import os, time
Path("new").write_text(str(os.getpid()))
Path("new").replace("kernel")  # never seen empty
try:
    time.sleep(100)
finally:
    Path("tidied").touch()
"""


def test_one_run_at_a_time_and_a_signal_reaches_the_kernel(project):
    project.notebook("01_sleeps", SLEEPS)
    project.notebook("02_next", "ran('02_next', '')")
    project.parameters("01_sleeps")
    project.parameters("02_next")
    first = project.start("nano")
    kernel = int(project.wait_for("kernel"))

    code, _, err = project.run("nano")
    assert code == 3
    assert f"process {first.pid}" in err
    assert project.status(3)["01_sleeps"] == f"running      by process {first.pid}"

    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 4, out + err
    assert "1 of 2 units were not reached" in err
    assert (project.root / "tidied").exists()
    assert not psutil.pid_exists(kernel)
    assert project.receipt("01_sleeps")["status"] == "interrupted"
    assert project.newly_run() == []


def test_two_units_at_a_time_and_what_needs_them_after(project):
    meets = (
        "import os, time\nPath('{0}').touch()\nwhile not Path('{1}').exists():\n    time.sleep(0.1)"
    )
    project.notebook("01_one", meets.format(1, 2), "ran('01', os.environ['OMP_NUM_THREADS'])")
    project.notebook("02_two", meets.format(2, 1), "ran('02', os.environ['OMP_NUM_THREADS'])")
    alone = "import os\nran('03', os.environ.get('OMP_NUM_THREADS', 'all'))"
    project.notebook("03_both", alone, needs=["01_one", "02_two"])
    for unit in ("01_one", "02_two", "03_both"):
        project.parameters(unit)
    code, _, err = project.run("nano", "--jobs", "2")
    assert (code, err) == (0, "")
    assert project.newly_run()[2:] == ["03"]
    share = max(1, usable_cores() // 2)
    assert (project.root / "runs/nano/01.txt").read_text() == str(share)
    assert project.receipt("01_one")["threads"] == share
    assert (project.root / "runs/nano/03.txt").read_text() == "all", "nothing runs beside it"
    code, _, err = project.run("nano", "--jobs", "0")
    assert (code, "expected 1 or more, got 0" in err) == (2, True)


@pytest.mark.parametrize(
    ("own", "said"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_threads_wait_asleep_also_without_the_runner_unless_a_user_says_otherwise(own, said):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(PACKAGE_PARENT)} | own
    say = "import os, sys, sgvl; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", say], env=environment, text=True)
    assert out.split() == [said, "False"], "torch reads it when it is imported"


def test_the_cores_of_a_process_are_those_it_may_run_on(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores() == 64


def test_a_unit_needs_what_its_parameters_name_and_the_longest_chain_starts_first(project):
    save = "place = folder / unit\nplace.mkdir(exist_ok=True)\n(place / 'weights').touch()"
    train = "unit = f'01_sft.{split}'", "ran(unit, '')", save
    tune = "ran('02_grpo', '')\nassert Path(model, 'weights').exists()"
    project.notebook("01_sft", *train, parameters="split: str = 'a'", gives=["{unit}/weights"])
    project.notebook("02_grpo", tune, parameters="model: str = 'nano'")
    project.parameters("01_sft.a", "split: a")
    project.parameters("01_sft.b", "split: b")
    project.parameters("01_sft.c", "split: c")
    project.parameters("02_grpo.b", "model: runs/nano/01_sft.b")
    code, out, err = project.run("nano", "--jobs", "2")
    assert code == 0, err
    assert out.splitlines()[:2] == ["01_sft.b ...", "01_sft.c ..."], "of equal ones, the last"

    project.edit("01_sft", lambda notebook: notebook.cells.append(new_code_cell("1")))
    project.newly_run()
    assert project.status(4)["02_grpo.b"] == "stale        upstream (01_sft.b)"
    assert project.run("nano", "--only", "02_*")[0] == 0
    assert project.newly_run() == ["01_sft.b", "02_grpo"]


def test_a_signal_reaches_every_kernel(project):
    for unit in ("01_one", "02_two"):
        project.notebook(unit, SLEEPS.replace('"kernel"', f'"{unit}"'))
        project.parameters(unit)
    run = project.start("nano", "--jobs", "2")
    kernels = [int(project.wait_for(unit)) for unit in ("01_one", "02_two")]
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 4, out + err
    assert not any(map(psutil.pid_exists, kernels))
    assert {project.receipt(u)["status"] for u in ("01_one", "02_two")} == {"interrupted"}


def test_a_killed_run_takes_its_kernel_along_and_frees_the_folder(project):
    project.notebook("01_sleeps", SLEEPS)
    project.parameters("01_sleeps")
    first = project.start("nano")
    kernel = int(project.wait_for("kernel"))
    first.kill()
    first.communicate()
    for _ in range(100):
        if not psutil.pid_exists(kernel):
            break
        time.sleep(0.1)
    assert not psutil.pid_exists(kernel)
    assert project.status(4)["01_sleeps"].startswith("interrupted")


ASSERTS_WARM = """\
import multiprocessing, os, random, sys, time
assert "trl" in sys.modules, "imported before the fork"
import datasets.fingerprint, numpy, pandas, torch, transformers
assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
assert pandas.get_option("display.max_columns") == 20, "as in a kernel that imports it"
assert multiprocessing.get_start_method(allow_none=True) is None
assert os.readlink("/proc/self/fd/0") == os.devnull
transformers.utils.logging.get_logger("transformers.a").warning("warned %s", unit)
child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=[0])
child.start(), child.join()
assert child.exitcode == 0
drawn = random.random(), numpy.random.rand(), datasets.fingerprint.generate_random_fingerprint()
drawn += (torch.rand(1).item(),)
ran(unit, " ".join(map(str, drawn)))"""


THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
def test_kernels_are_forks_of_one_process_and_end_with_the_run(project):
    for unit in ("01_one", "02_two"):
        project.notebook(unit, ASSERTS_WARM.replace("unit", repr(unit)))
    dies = "import sys\nprint('last words', file=sys.__stderr__, flush=True)\n"
    project.notebook("03_dies", dies + "import os; os.kill(os.getpid(), 9)")
    project.notebook("04_sleeps", SLEEPS, needs=["01_one", "02_two"])
    for unit in ("01_one", "02_two", "03_dies", "04_sleeps"):
        project.parameters(unit)
    checks = {"sgvl.common.paths:need_checkout": []}
    project.edit("01_one", lambda notebook: notebook.metadata.sgvl.update(checks=checks))
    run = project.start("nano", "--jobs", "2")
    kernel = int(project.wait_for("kernel"))
    while project.receipt("03_dies")["status"] == "running":
        time.sleep(0.1)
    others = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    err = run.communicate()[1]
    assert [project.receipt(unit)["status"] for unit in ("01_one", "02_two")] == ["ok", "ok"], err
    one, two = ((project.root / f"runs/nano/{n}.txt").read_text() for n in ("01_one", "02_two"))
    assert not set(one.split()) & set(two.split()), "forks draw different numbers"
    assert "warned 01_one" in (project.root / "runs/nano/01_one.ipynb").read_text()
    assert project.receipt("03_dies")["reason"].startswith("the kernel was killed")
    assert "last words" in err
    gone, alive = psutil.wait_procs(others, timeout=30)
    assert not alive and kernel in {process.pid for process in gone}
    assert (project.root / "tidied").exists(), "it was interrupted first"


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
@pytest.mark.parametrize(
    ("library", "method"),
    [("", "forkserver"), (f"import threading\n{THREAD}", "spawn"), ("1 / 0", "spawn")],
    ids=["nothing", "a thread", "an error"],
)
def test_units_are_forked_only_from_a_process_of_one_thread(library, method, tmp_path):
    (tmp_path / "library.py").write_text(library)
    code = "from sgvl.run import warm\nwarm.LIBRARIES = ['library']\nwarm.start()\n"
    code += "print(warm.context().get_start_method())"
    path = os.pathsep.join([str(tmp_path), str(PACKAGE_PARENT)])
    command = [sys.executable, "-c", code]
    out = subprocess.check_output(command, env=os.environ | {"PYTHONPATH": path}, text=True)
    assert out == f"{method}\n"


FORKS_LATER = """\
import multiprocessing, psutil
from pathlib import Path
from sgvl.common import files
from sgvl.run import warm

def say():
    print(warm.context().get_start_method(), Path("threads").read_text())

warm.LIBRARIES, files.PACKAGE = ["library"], Path("package")
warm.start()
say()
for child in psutil.Process().children():
    if "forkserver" in str(child.cmdline()):
        child.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            pass
Path("threads").unlink()
say()
Path("package/module.py").write_text("changed = True")
say()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
def test_forks_are_of_the_code_on_the_disk_also_after_their_source_was_killed(tmp_path):
    library = 'import os\nopen("threads", "w").write(os.environ["OMP_NUM_THREADS"])'
    (tmp_path / "library.py").write_text(library)
    (tmp_path / "package").mkdir()
    environment = os.environ | {"PYTHONPATH": str(PACKAGE_PARENT), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORKS_LATER]
    out = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert out.splitlines() == ["forkserver 1", "forkserver 1", "spawn 1"]


def test_a_server_that_does_not_answer_is_its_own_line_and_a_reason_to_run_again(project):
    raises = (
        "from sgvl.common.errors import Unreachable\nraise Unreachable('http://x: no connection')"
    )
    project.notebook("01_ask", raises)
    project.parameters("01_ask")
    code, _, err = project.run("nano")
    assert code == 4 and err.strip().splitlines()[0] == "01_ask failed: http://x: no connection"


def test_bad_input_stops_everything_before_anything_runs(project):
    project.notebook("01_data", "ran('01_data', '')", parameters="lr: float = 0.1")
    project.notebook("02_score", parameters="split: str = 'a'", needs=["01_data"])
    project.parameters("01_data", "lr: 1e-5\n")
    project.parameters("02_score.a", "splt: b\nsplit: 3\n")
    project.parameters("02_score.b", "split: a\nsplit: b\n")
    code, out, err = project.run("nano")
    assert (code, out) == (2, "")
    text = "got the text '1e-5', expected float: YAML takes 1e-5 and '1' for text; write 1.0e-05"
    assert err.splitlines() == [
        f"params/nano/01_data.yaml: lr: {text}",
        "params/nano/02_score.a.yaml: split: got 3, expected str",
        "params/nano/02_score.a.yaml: splt: no such parameter; did you mean split?",
        f"{project.root}/params/nano/02_score.b.yaml, line 2: split is set twice",
    ]
    assert not (project.root / "runs").exists()

    assert "did you mean nano?" in project.run("naon")[2]
    assert project.run("naon")[0] == 2
    for unit in ("01_data", "02_score.a", "02_score.b"):
        project.parameters(unit)
    code, _, err = project.run("nano", "--only", "02_scor.a")
    assert (code, "did you mean 02_score.a?" in err) == (2, True)


def test_a_typo_inside_a_parameter_is_found_with_all_others_before_anything_runs(project):
    def declare(checks):
        return lambda notebook: notebook.metadata.sgvl.update(checks=checks)

    project.notebook("01_data", "ran('01_data', '')", parameters="sources: dict = {}")
    project.notebook(
        "03_sft", "ran('03_sft', '')", parameters="settings: dict = {}\nlora: dict = {}"
    )
    project.notebook("05_benchmark", parameters="judges: list[dict] = []\nlevels: list[dict] = []")
    project.edit("01_data", declare({"sgvl.data.sources.registry:check_sources": ["sources"]}))
    project.edit("03_sft", declare({"sgvl.training.trainer:check_sft": ["settings", "lora"]}))
    project.edit("05_benchmark", declare({"sgvl.judges:check_judges": ["judges", "levels"]}))
    project.parameters(
        "01_data", "sources: {mine: {kind: folder, path: a, labels: b, policies: c}}"
    )
    project.parameters("03_sft.a", "settings: {learning_rat: 1}\nlora: {r: '8'}\n")
    judges = "judges: [{kind: chat, modle: nano}, {kind: rule}]\nlevels: [{kind: rule}]\n"
    project.parameters("05_benchmark", judges)
    code, out, err = project.run("nano")
    assert (code, out) == (2, "")
    expected = """\
01_data.yaml: sources: mine: source 'folder': policies: got 'c', expected list[str]
03_sft.a.yaml: settings: 'learning_rat': did you mean learning_rate?
03_sft.a.yaml: lora: r: got the text '8', expected int: YAML takes 1e-5 and '1' for text; write 8
05_benchmark.yaml: judge 'chat' has no option 'modle'; did you mean model?
05_benchmark.yaml: two judges have the id 'rule'; give each an `id`"""
    problems = [line for line in err.splitlines() if line.startswith("params/")]
    assert problems == [f"params/nano/{line}" for line in expected.splitlines()]
    assert not (project.root / "runs").exists()
    code, out, err = project.run("nano", "--only", "01_data", "--dry-run")
    assert (code, out) == (2, "") and "policies: got 'c'" in err
    project.parameters("01_data")
    code, out, _ = project.run("nano", "--only", "01_data", "--dry-run")
    assert code == 0 and "01_data.yaml" in out, "only what is to run is checked"


def test_a_parameter_file_is_of_its_folder_and_ends_in_yaml(project):
    for name in ("01_data", "02_score", "03_other"):
        project.notebook(name, f"ran('{name}', '')", parameters="profile: str = 'smoke'")
    project.parameters("01_data", "profile: other\n")
    project.parameters("02_score")  # the default would be used
    (project.root / "params/nano/03_other.yml").write_text("profile: nano\n")
    code, out, err = project.run("nano")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "params/nano/03_other.yml would not be run; rename it to 03_other.yaml",
        "params/nano/01_data.yaml: profile: got 'other', expected 'nano', as its folder",
        "params/nano/02_score.yaml: profile: got 'smoke', expected 'nano', as its folder",
    ]
    assert not (project.root / "runs").exists()
    for file in (project.root / "params/nano").glob("*.yaml"):
        file.unlink()
    assert "rename it to 03_other.yaml" in project.run("nano", "--dry-run")[2]


def test_a_model_that_is_replaced_makes_its_unit_stale(project):
    """One of the run itself does not: it is not there before its training."""
    project.notebook("05_ask", "ran('05_ask', '')", parameters="judges: list[dict] = []")
    project.parameters(
        "05_ask", "judges: [{model: models/mine}, {model: runs/nano/training/03/model}]"
    )
    weights = project.root / "models/mine/model.safetensors"
    weights.parent.mkdir(parents=True)
    (weights.parent / "config.json").write_text("{}")
    weights.write_bytes(b"old")
    assert project.run("nano")[0] == 0
    own = project.root / "runs/nano/training/03/model"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    assert project.status(0)["05_ask"].startswith("ok")
    weights.write_bytes(b"other")
    assert project.status(4)["05_ask"].startswith("stale") and project.run("nano")[0] == 0
    assert project.newly_run() == ["05_ask"] * 2


def test_a_receipt_of_another_shape_makes_its_unit_stale(project, monkeypatch):
    for name in ("01_data", "02_score", "03_other"):
        project.notebook(name, f"ran('{name}', '')")
        project.parameters(name)
    runs = project.root / "runs/nano"
    runs.mkdir(parents=True)
    unit = SimpleNamespace(receipt=runs / "01_data.json")
    monkeypatch.setattr(receipts, "ROOT", project.root)
    note = "runs/nano/01_data.json is no receipt; the next run writes one"
    for shape in ("{}", "[]", "null", "{", '{"status": "ok", "outputs": []}', '{"status": "ok"}'):
        unit.receipt.write_text(shape)
        assert receipts.read_receipt(unit) == {"status": receipts.Status.STALE, "reason": note}
    assert project.status(4)["01_data"] == f"stale        {note}"
    (runs / "02_score.json").mkdir()
    code, _, err = project.run("nano")
    assert (code, project.newly_run()) == (2, ["01_data", "03_other"])
    assert "02_score bad-input: runs/nano/02_score.json is a folder; remove it" in err
    assert project.receipt("01_data")["status"] == "ok"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, 'expected metadata "sgvl"'),
        ({"sgvl": {"needs": "01_data", "gives": []}}, 'expected metadata "sgvl"'),
        ({"sgvl": {"needs": ["01_dat"], "gives": []}}, "did you mean 01_data?"),
        ({"sgvl": {"needs": ["02_*"], "gives": []}}, "does not run before"),
        ({"sgvl": {"needs": [], "gives": ["../x"]}}, "outside the run folder"),
        ({"sgvl": {"needs": [], "gives": ["same.txt"]}}, "as 01_data does"),
    ],
)
def test_a_notebook_must_tell_its_place(tmp_path, metadata, said, monkeypatch):
    from sgvl.common.errors import InputError
    from sgvl.run import units

    project = Project(tmp_path / "kit")
    project.notebook("01_data", gives=["same.txt"])
    project.notebook("02_score")
    project.edit("02_score", lambda notebook: notebook.update(metadata=metadata))
    project.parameters("01_data")
    project.parameters("02_score")
    monkeypatch.setattr(units, "NOTEBOOKS", project.root / "notebooks")
    monkeypatch.setattr(units, "PARAMS", project.root / "params")
    with pytest.raises(InputError, match="02_score") as caught:
        units.load_units("nano")
    assert said in str(caught.value)


def test_a_file_that_a_parameter_names_is_part_of_the_work(project):
    """A reader's own policy, say: when its text changes, what was made from it is stale."""
    read = "ran('01_data', Path(policy).read_text())"
    project.notebook("01_data", read, parameters='policy: str = ""', gives=["{unit}.txt"])
    project.parameters("01_data", "policy: own.md\n")
    (project.root / "own.md").write_text("one")
    assert project.run("nano")[0] == 0
    assert project.status(0)["01_data"].startswith("ok")
    (project.root / "own.md").write_text("two")
    assert project.status(4)["01_data"].split() == ["stale", "files", "(own.md)"]


def test_a_folder_of_the_readers_own_is_part_of_the_work(project):
    """Also where it is named deep in a parameter, and whatever changes in it."""
    project.notebook(
        "01_data", "ran('01_data', '')", parameters="sources: dict[str, dict] = {}",
        gives=["{unit}.txt"],
    )  # fmt: skip
    project.parameters("01_data", "sources: {mine: {kind: folder, path: photos}}")
    below = project.root / "photos" / "below"
    below.mkdir(parents=True)
    (below / "a.jpg").write_text("one")
    assert project.run("nano")[0] == 0
    one, other = below / "a.jpg", below / "b.jpg"
    written = one.stat().st_mtime_ns

    def restore():
        one.write_text("one")
        os.utime(one, ns=(written, written))

    changes = {
        "content": (lambda: one.write_text("two"), restore),
        "name": (lambda: one.rename(other), lambda: other.rename(one)),
        "number": (lambda: other.write_text("three"), other.unlink),
    }
    for change, undo in changes.values():
        change()
        assert project.status(4)["01_data"].split() == ["stale", "files", "(photos/)"]
        undo()
    assert project.status(0)["01_data"].startswith("ok")


def test_data_of_another_profile_is_part_of_the_work(project):
    """Its manifest holds the digests of its sets."""
    project.notebook("05_ask", "ran('05_ask', '')", parameters='data_profile: str = "nano"')
    project.parameters("05_ask", "data_profile: other\n")
    manifest = project.root / "runs/other/data/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"sets": {"a": "1"}}')
    assert project.run("nano")[0] == 0
    assert project.status(0)["05_ask"].startswith("ok")
    manifest.write_text('{"sets": {"a": "2"}}')
    assert project.status(4)["05_ask"] == "stale        files (runs/other/data/manifest.json)"


@pytest.mark.parametrize("output", ["closed pipe", "/dev/full"])
def test_output_that_nobody_takes_ends_a_command_without_a_traceback(output, project):
    project.notebook("01_data")
    project.parameters("01_data")
    if output == "closed pipe":  # as after `| head -0`
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(output, os.O_WRONLY)
    process = project.start("nano", "--status", stdout=writer)
    os.close(writer)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, "missing, or not said"
    full = "standard output: No space left on device; what is finished is kept, so mend this"
    assert said.startswith("" if output == "closed pipe" else full) and said.count("\n") < 2


def test_a_package_that_is_not_installed_from_a_checkout_finds_the_notebooks_own(project):
    """Jupyter works in the notebook's folder; papermill where it was called, which may be far."""
    site = project.root.parent / "site"
    for part in ("__init__.py", "common", "run"):
        source = PACKAGE_PARENT / "sgvl" / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (site / "sgvl").mkdir(parents=True, exist_ok=True)
        copy(source, site / "sgvl" / part)
    project.notebook("01_data")
    environment = {k: v for k, v in os.environ.items() if k != "SGVL_ROOT"}
    environment["PYTHONPATH"] = str(site)
    code = "x = 1\nfrom sgvl.run import check\ncheck('01_data', globals())"
    for folder, right in ((project.root / "notebooks", True), (site, False)):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert (done.returncode == 0) == right, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.endswith("or set SGVL_ROOT to one") and str(site) in said


def test_a_file_of_the_package_that_a_notebook_reads_is_part_of_the_work(project):
    project.notebook("01_data", "ran('01_data', '')", gives=["{unit}.txt"])
    project.parameters("01_data")
    assert project.run("nano")[0] == 0
    project.edit(
        "01_data", lambda notebook: notebook.metadata.sgvl.update(reads=["policies/L*.md"])
    )
    stale = project.status(4)["01_data"]
    assert stale.startswith("stale") and "policies/L2.md" in stale


def test_status_tells_why_at_once_and_loads_nothing_heavy(project):
    project.notebook(
        "01_data", "from sgvl.data.images import load_image\nload_image(b'', name='s7')"
    )
    project.parameters("01_data")
    assert project.status(4) == {"01_data": "not-run"}
    assert project.run("nano")[0] == 2
    assert project.status(2)["01_data"].startswith("bad-input    s7: not a PNG")

    look = "import sys; from sgvl.run.__main__ import main; "
    look += "main(['nano', '--status']); print(*sys.modules)"
    environment = os.environ | {"SGVL_ROOT": str(project.root), "PYTHONPATH": str(PACKAGE_PARENT)}
    before = os.times()
    out = subprocess.check_output([sys.executable, "-c", look], env=environment, text=True)
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert spent < 1, "seconds at the processor, whatever else the machine does"
    heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "papermill", "nbformat"}
    assert not heavy & set(out.split())


def test_a_pattern_stands_for_every_file_that_it_matched(tmp_path, monkeypatch):
    for module in (receipts, units):
        monkeypatch.setattr(module, "runs", lambda profile: tmp_path)
    unit = units.Unit("01_data", "p", {}, {}, "", {}, (), ("data/*.parquet", "card.md"), "key")
    assert receipts.missing_outputs(unit) == ["data/*.parquet", "card.md"]
    (tmp_path / "data").mkdir()
    for file in ("data/a.parquet", "data/b.parquet", "card.md"):
        (tmp_path / file).write_text(file)
    assert receipts.missing_outputs(unit) == []
    receipts.write_receipt(unit, {}, receipts.Status.OK, sgvl=receipts.package_digest())
    assert receipts.state(unit, {}) == (receipts.Status.OK, "")
    (tmp_path / "data/c.parquet").write_text("of somebody else")
    assert receipts.state(unit, {}) == (receipts.Status.OK, "")
    (tmp_path / "data/b.parquet").write_text("damaged")
    assert receipts.state(unit, {}) == (receipts.Status.STALE, "outputs (data/b.parquet)")
