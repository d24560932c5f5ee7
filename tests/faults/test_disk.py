"""A disk that is full or cannot be written, and runs that want the same file at the same time."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import evaluation
import pytest
import writers
from evaluation import QUESTIONS, asked, attempt, evaluate, start, stored
from test_run import Project

from sgvl.common import paths
from sgvl.common.errors import InputError
from sgvl.judges import ask_all, under
from sgvl.run import __main__ as run


def errors(folder: Path) -> list[str]:
    return [file.read_text() for file in folder.glob("*.error")]


def same_as_undisturbed(folder: Path) -> bool:
    evaluate(folder)
    whole = folder / "whole"
    whole.mkdir()
    evaluate(whole)
    return all(
        (folder / name).read_bytes() == (whole / name).read_bytes()
        for name in ("noting.jsonl", "scores.csv")
    )


@pytest.mark.parametrize("most", [500, 2345, 3456, 7000])
def test_a_write_that_stops_half_way_names_the_file_and_loses_nothing(most, tmp_path):
    """A limit on the size of files, kept by the system, stops a write where a full disk would."""
    start(attempt, tmp_path, 0.0, most).join()
    (said,) = errors(tmp_path)
    assert said.startswith("DiskFault: ") and "noting.jsonl: File too large; " in said
    assert "what is finished is kept" in said
    assert (tmp_path / "noting.jsonl").stat().st_size == most
    before, notes = stored(tmp_path), len(asked(tmp_path))
    assert same_as_undisturbed(tmp_path)
    assert not set(before) & set(asked(tmp_path)[notes:])
    assert len(asked(tmp_path)) - len(QUESTIONS) <= evaluation.ONE_BATCH


MOUNT = 'mount -t tmpfs -o "$1" none "$2" && "${@:3}"'


def on_small_disk(size: str, disk: Path, *command) -> subprocess.CompletedProcess:
    """Run a command that finds a file system of a few bytes or files mounted on ``disk``."""
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", MOUNT, "bash"]
    if not shutil.which("unshare") or subprocess.run([*mounting, size, disk, "true"]).returncode:
        pytest.skip("no file system can be mounted here")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*mounting, size, disk, *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


IN_IT = """\
import shutil, sys
from pathlib import Path
from evaluation import judge
disk, out = map(Path, sys.argv[1:])
(disk / "filler").write_bytes(bytes(126976))
run = disk / "run"
run.mkdir()
(run / "notes.txt").symlink_to(out / "notes.txt")
try:
    judge(run)
except OSError as error:
    (out / "said.txt").write_text(str(error))
shutil.copy(run / "noting.jsonl", out / "when_full.jsonl")
(disk / "filler").unlink()
judge(run)
shutil.copytree(run, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("notes.txt"))
"""


def test_a_full_disk(tmp_path):
    """A file system of 128 KiB, mounted for this test alone, with 4 KiB left."""
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    ended = on_small_disk("size=128k", disk, sys.executable, "-c", IN_IT, disk, out)
    assert ended.returncode == 0, ended.stderr
    said = (out / "said.txt").read_text()
    assert "noting.jsonl: No space left on device; what is finished is kept" in said
    kept = (out / "when_full.jsonl").read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert kept and (out / "noting.jsonl").read_bytes().startswith(kept)
    assert len(QUESTIONS) < len(asked(out)) <= len(QUESTIONS) + evaluation.ONE_BATCH
    assert same_as_undisturbed(out)


def test_every_writer_names_its_file_on_a_full_disk_and_goes_on_later(tmp_path):
    """What was there stays, half a file does not, and the second call writes the same bytes."""
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    python = [sys.executable, writers.__file__, disk, out]
    ended = on_small_disk("size=3m,nr_inodes=200", disk, *python)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((out / "found.json").read_text())
    assert len(found) == 2 * len(writers.WRITERS)
    for writer, row in found.items():
        assert f"{disk}/{writer}/" in row["said"] and "No space left on device" in row["said"]
        assert set(row["left"]) <= {"judge.jsonl", "judge.jsonl.torn"}, (
            "all else is not appended to"
        )
        assert row["same"], writer


RUN = """\
"$1" -m sgvl.run nano; echo "exit code $?"; find runs -type f
mount -o remount,size=50m,nr_inodes=1000 runs
"$1" -m sgvl.run nano > /dev/null; echo "exit code $?"
cat runs/nano/d/a.bin
"""


def sizes():
    """A receipt and a cell meet the first two; the lock, papermill and others meet the rest."""
    few = ["size=50m,nr_inodes=4", "size=64k"]
    more = [f"size={n}k" for n in (4, 8, 12, 16, 24, 32, 48)]
    more += [f"size=50m,nr_inodes={n}" for n in (2, 3, 5, 6, 7, 8)]
    return [*few, *(pytest.param(size, marks=pytest.mark.slow) for size in more)]


@pytest.mark.parametrize("size", sizes())
def test_the_runner_on_a_full_disk_names_the_file_and_goes_on_later(size, tmp_path, monkeypatch):
    project = Project(tmp_path / "kit")
    write = "from sgvl.common.files import write\nwrite(folder / 'd/a.bin', '1' * 60_000)"
    project.notebook("01_data", f"(folder / 'd').mkdir(exist_ok=True)\n{write}", gives=["d/a.bin"])
    project.parameters("01_data")
    (project.root / "runs").mkdir()
    monkeypatch.setenv("SGVL_ROOT", str(project.root))
    monkeypatch.chdir(project.root)
    ended = on_small_disk(size, project.root / "runs", "bash", "-c", RUN, "bash", sys.executable)
    first, later = ended.stdout.split("exit code ")[1:]
    assert first[0] == "4" and later == f"0\n{'1' * 60_000}", ended
    assert re.search(r"runs/nano\S*: No space left on device; what is finished", ended.stderr)
    assert "Traceback" not in ended.stderr and ".part" not in first


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    """A file stands where the folder should be: not even root can write there."""
    (tmp_path / "runs").write_text("not a folder")
    noting = evaluation.NotingJudge(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"runs/noting\.jsonl: cannot be written \("):
        ask_all(noting, under(evaluation.SAMPLES, evaluation.POLICIES), tmp_path / "runs")
    assert asked(tmp_path) == []

    project = Project(tmp_path)
    project.notebook("01_data")
    project.parameters("01_data")
    code, out, err = project.run("nano")
    assert (code, out) == (2, "") and re.fullmatch(r".*/runs/nano: .+\n", err)


def test_runs_that_want_the_same_file_take_turns(tmp_path):
    first = start(attempt, tmp_path, 0.1)
    while not asked(tmp_path):
        time.sleep(0.01)
    rivals = [start(attempt, tmp_path) for _ in range(3)]
    for process in [*rivals, first]:
        process.join()
    said = errors(tmp_path)
    assert len(said) == 3 and all("another run holds it; wait" in line for line in said)
    assert {line.partition(":")[0] for line in said} == {"Busy"}
    assert asked(tmp_path) == QUESTIONS and same_as_undisturbed(tmp_path)


def test_a_lock_that_a_dead_run_left_is_no_lock(tmp_path, monkeypatch):
    """Even where its process number belongs to another process by now: this one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = paths.runs("nano")
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".pid").write_text(str(os.getpid()))
    with run.locked("nano"):
        assert (folder / ".pid").read_text() == str(os.getpid())
