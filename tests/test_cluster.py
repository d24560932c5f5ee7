"""Units as jobs of a cluster: what they ask for, shares of a unit, and Snakemake over them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from test_notebooks import SMALL
from test_run import Project

from sgvl.common.errors import Busy, InputError
from sgvl.run import cluster, servers, units

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def paper() -> dict[str, cluster.Job]:
    return {job.name: job for job in cluster.jobs("paper", workers=4, gpus="8xH100")}


def test_a_job_asks_for_what_the_plan_says(paper):
    """docs/GPU.md: 85.1 GPU-hours on eight GPUs with at most 36 GB on each."""
    job = paper["04_grpo.full"]
    assert (job.gpus, job.threads) == (8, 32)
    assert job.minutes == pytest.approx(60 * (2.5 * 85.1 / 8 + 0.5), rel=0.01)
    assert job.mem_mb == pytest.approx(8 * (8_000 + 36_000), rel=0.02)
    assert {"01_data", "03_sft.recap"} <= set(job.after)
    assert paper["01_data"].gpus == 0 and paper["01_data"].minutes == 24 * 60
    names = [job.rule for job in paper.values()]
    assert len(set(names)) == len(names) and all(map(str.isidentifier, names))


def test_a_unit_follows_the_shares_of_its_workers(paper):
    shares = [f"05_benchmark.base.{k}-of-4" for k in range(4)]
    assert paper["05_benchmark.base"].after == [*paper[shares[0]].after, *shares]
    assert [name for name in paper if name.startswith("03_sft.recap")] == ["03_sft.recap"]
    (*_, whole) = cluster.jobs("paper", "05_benchmark.base")
    assert paper[shares[0]].minutes - 30 == pytest.approx((whole.minutes - 30) / 4, abs=1)


def test_a_job_that_cannot_be_is_named():
    known = units.load_units("single")
    for name, said in {
        "03_sft.recap.0-of-2": "03_sft.ipynb takes no `workers`",
        "05_benchmark.bace.0-of-2": r"did you mean 05_benchmark.base\?",
        "05_benchmark.bace": r"did you mean 05_benchmark.base\?",
    }.items():
        with pytest.raises(InputError, match=said):
            units.unit_or_share(name, known)


def test_two_jobs_never_take_the_same_gpu(tmp_path, monkeypatch):
    """Four GPUs, which need not be there, and locks that are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(servers.VISIBLE, raising=False)
    with cluster.taken_gpus(3):
        assert os.environ[servers.VISIBLE] == "0,1,2"
        with cluster.taken_gpus(4):  # as a scheduler has chosen
            assert os.environ[servers.VISIBLE] == "0,1,2"
        second = servers.Server(url="", model="", gpus=[1]).environment()
        assert second == {servers.VISIBLE: "1"}
        monkeypatch.delenv(servers.VISIBLE)
        free = "1 GPUs of this machine are free, and 2 are needed"
        with pytest.raises(Busy, match=free), cluster.taken_gpus(2):
            pass
        with cluster.taken_gpus(1):
            assert os.environ[servers.VISIBLE] == "3"
            server = servers.Server(url="", model="", gpus=[0]).environment()
            assert server == {servers.VISIBLE: "3"}, "counted among those that the job has"
        monkeypatch.setenv(servers.VISIBLE, "0,1,2")
    with cluster.taken_gpus(4):
        assert os.environ[servers.VISIBLE] == "0,1,2,3"
    assert servers.VISIBLE not in os.environ


def test_jobs_run_beside_each_other_and_a_unit_in_one_at_a_time(tmp_path):
    """Two workers wait for each other; then the unit itself, which another job cannot run, too."""
    project = Project(tmp_path / "a {checkout}, non-ASCII é")
    meet = (
        "import time\nPath(f'{worker} of {workers}').touch()\n"
        "while workers > 1 and not Path(f'{1 - worker} of 2').exists():\n    time.sleep(0.05)\n"
        "while workers == 1 and not Path('go on').exists():\n    time.sleep(0.05)"
    )
    ends = "if workers > 1:\n    raise SystemExit(0)"
    project.notebook(
        "01_ask", meet, "ran(f'01_ask.{worker}', '')", ends, "ran('table', 'made')",
        parameters="worker: int = 0\nworkers: int = 1", gives=["table.txt"],
    )  # fmt: skip
    project.parameters("01_ask")
    both = [project.start("nano", "--job", f"01_ask.{k}-of-2") for k in range(2)]
    said = [job.communicate(timeout=300) for job in both]
    assert [job.returncode for job in both] == [0, 0], said
    assert sorted(project.newly_run()) == ["01_ask.0", "01_ask.1"]
    shares = {"01_ask.0-of-2": "ok", "01_ask.1-of-2": "ok"}
    assert project.status(4) == {"01_ask": "not-run"} | shares
    first = project.start("nano", "--job", "01_ask")
    project.wait_for("0 of 1")
    running = {"01_ask": f"running      by process {first.pid}"}
    assert project.status(3) == running | shares
    code, _, err = project.run("nano", "--job", "01_ask")
    assert code == 3 and f"01_ask is being run by process {first.pid}" in err
    (project.root / "go on").touch()
    said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert project.newly_run() == ["01_ask.0", "table"]
    code, out, _ = project.run("nano", "--job", "01_ask.0-of-2")
    assert code == 0 and project.newly_run() == [], "a share that is done is not repeated"
    assert project.status(0) == {"01_ask": "ok"}


# -- Snakemake -------------------------------------------------------------------------------------

PARAMETERS = {
    "01_data": SMALL.replace("sft_images: 2", "sft_images: 120"),
    "02_recaption": "captioner: {kind: chat, model: nano, max_tokens: 60}\n",
    "05_benchmark": "judges: [{kind: always_unsafe}, {kind: chat, id: base, max_new_tokens: 8}]\n",
}


def checkout(folder: Path) -> Path:
    """A checkout with three units of the nano profile, small."""
    (folder / "params/nano").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    for unit, text in PARAMETERS.items():
        shutil.copy(ROOT / f"notebooks/{unit}.ipynb", folder / "notebooks")
        text = f"profile: nano\n{text}"
        text += "data_profile: nano\n" if unit != "01_data" else ""
        (folder / f"params/nano/{unit}.yaml").write_text(text)
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    own = {"SGVL_ROOT": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sgvl.run", "nano", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=os.environ | own, **pipes)


def outputs(folder: Path) -> dict[str, str]:
    """The digests of everything that the units have given."""
    receipts = [json.loads((folder / f"runs/nano/{unit}.json").read_text()) for unit in PARAMETERS]
    return {path: file["sha256"] for r in receipts for path, file in r["outputs"].items()}


def assert_same_artefacts(one: Path, other: Path) -> None:
    """The same bytes, but for times and the last digits of P(unsafe): shares make other batches."""
    digests, others = outputs(one), outputs(other)
    assert digests.keys() == others.keys() and len(digests) > 30
    for path in digests:
        if digests[path] != others[path]:
            tables = [pd.read_csv(folder / "runs/nano" / path) for folder in (one, other)]
            if "p_unsafe" in tables[0]:
                apart = (tables[0].pop("p_unsafe") - tables[1].pop("p_unsafe")).abs().max()
                assert apart < 1e-5, path
            else:
                assert tables[0].pop("seconds").notna().any() and "seconds" in tables[1], path
                del tables[1]["seconds"]
            pd.testing.assert_frame_equal(*tables, check_exact=True)


def job_process(folder: Path, name: str) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, own = process.info["cmdline"] or [], process.info["environ"] or {}
        if "--job" in line and name in line and own.get("SGVL_ROOT") == str(folder):
            return process
    return None


@pytest.mark.slow
def test_snakemake_gives_what_the_runner_gives_though_a_job_is_killed(tmp_path):
    pytest.importorskip("snakemake")
    plain, other = checkout(tmp_path / "plain"), checkout(tmp_path / "snakemake")
    alone = start(plain)
    said, _ = alone.communicate()
    assert alone.returncode == 0, said
    # A unit that the runner has done is done for Snakemake.
    for name in ("data", "01_data.json"):
        copy = shutil.copytree if name == "data" else shutil.copy2
        (other / "runs/nano").mkdir(parents=True, exist_ok=True)
        copy(plain / "runs/nano" / name, other / "runs/nano" / name)
    # The second attempt of the killed job goes on where the first stopped.
    jobs = start(other, "--workers", "2", "--snakemake", "--cores", "2", "--retries", "1")
    share = other / "runs/nano/recaption/caption.1-of-2.jsonl"
    while not share.exists() or share.read_bytes().count(b"\n") < 3:
        assert jobs.poll() is None, jobs.communicate()[0]
        time.sleep(0.01)
    before = share.read_bytes()
    job_process(other, "02_recaption.1-of-2").kill()
    said, _ = jobs.communicate()
    assert jobs.returncode == 0, said
    assert "Trying to restart job" in said and "rule unit_01_data" not in said
    assert share.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    captions = (other / "runs/nano/recaption").glob("caption.*.jsonl")
    rows = [json.loads(line) for file in captions for line in file.read_text().splitlines()]
    assert len(rows) == len({row["key"] for row in rows}) == 120, "no picture is asked about twice"
    assert_same_artefacts(plain, other)
    again = start(other, "--workers", "2", "--snakemake", "--cores", "2")
    said, _ = again.communicate()
    assert again.returncode == 0 and "rule unit_" not in said, "nothing is to be done"
    # What a job finds stale is run again, and what it no longer changes is not.
    receipt, changed = (
        other / "runs/nano/02_recaption.json",
        other / "params/nano/02_recaption.yaml",
    )
    before = (other / "runs/nano/05_benchmark.json").read_text()
    changed.write_text(f"{changed.read_text()}examples: 2\n")
    again = start(other, "--snakemake", "--cores", "2")
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert json.loads(receipt.read_text())["parameters"]["examples"] == 2
    assert (other / "runs/nano/05_benchmark.json").read_text() == before
