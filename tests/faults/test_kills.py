"""SIGKILL before every line of the store, inside a resume, at seeded instants, and of a whole run.

After any kill, a rerun gives the same bytes, loses no answer and asks at most one batch again.
"""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import evaluation
import pytest
from evaluation import (
    ONE_BATCH,
    QUESTIONS,
    UNIT,
    asked,
    evaluate,
    judge,
    kill_before,
    start,
    stored,
    write_receipt,
)
from test_run import Project

from sgvl.common import files, paths
from sgvl.run import receipts

# Each kill and what follows takes a tenth of a second, so `make test` tries some of the lines.
EVERY = pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(folder)
    assert asked(folder) == stored(folder) == QUESTIONS
    return folder


def killed(nth, work, folder, *arguments) -> bool:
    """Run the work in a process that dies before its nth line; False if it had finished by then."""
    process = start(kill_before, nth, work, folder, *arguments)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def one_of_each(lines: list[int], random: random.Random) -> list[int]:
    """For every line that was run, when: at one of its turns, counted from 1."""
    turns = {}
    for turn, line in enumerate(lines, start=1):
        turns.setdefault(line, []).append(turn)
    return [random.choice(found) for found in turns.values()]


def lines_of(work, folder, *arguments) -> list[int]:
    """The lines that an undisturbed process runs."""
    assert not killed(0, work, folder, *arguments)
    return json.loads((folder / "lines.json").read_text())


def finish(folder, whole, kills: int) -> int:
    """Rerun to the end and compare with an undisturbed run; how many questions came again."""
    before, notes = stored(folder), len(asked(folder))
    evaluate(folder)
    for name in ("scores.csv", "noting.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not set(before) & set(asked(folder)[notes:]), "a finished answer was asked for again"
    again = len(asked(folder)) - len(QUESTIONS)
    assert 0 <= again <= kills * ONE_BATCH
    return again


def tell(record_property, every: int, measured: str) -> None:
    if every == 1:  # the table is about all lines
        record_property("measured", measured)


@EVERY
def test_killed_before_lines_of_the_store(every, whole, tmp_path, record_property):
    points = one_of_each(lines_of(judge, tmp_path), random.Random(0))
    assert len(points) > 50
    again = []
    for nth in points[::every]:
        folder = tmp_path / str(nth)
        folder.mkdir()
        assert killed(nth, judge, folder)
        again.append(finish(folder, whole, kills=1))
    told = f"{len(again)} kills; most asked again: {max(again)} of {len(QUESTIONS)} questions"
    tell(record_property, every, f"{told} (a batch is {ONE_BATCH})")


@EVERY
def test_killed_before_lines_of_a_resume_and_once_more(every, whole, tmp_path, record_property):
    """The resume begins with a torn line, so that mending it is killed, too."""
    torn = tmp_path / "torn"
    torn.mkdir()
    content = (whole / "noting.jsonl").read_bytes()
    (torn / "noting.jsonl").write_bytes(content[: len(content) // 2])
    first = stored(torn)
    (torn / "notes.txt").write_text("".join(f"{question}\n" for question in first))

    dice = random.Random(1)
    lines = lines_of(judge, shutil.copytree(torn, tmp_path / "lines"))
    points = one_of_each(lines, dice)
    again = []
    for nth in points[::every]:
        folder = shutil.copytree(torn, tmp_path / str(nth))
        kills = 1 + killed(nth, judge, folder)
        assert kills == 2 and stored(folder)[: len(first)] == first
        kills += killed(dice.randrange(1, len(lines)), judge, folder)
        again.append(finish(folder, whole, kills))
    told = f"{len(again)} resumes killed twice; most asked again: {max(again)}"
    tell(record_property, every, f"{told} of {len(QUESTIONS)} questions")


@EVERY
def test_killed_while_a_receipt_is_written(every, tmp_path, monkeypatch, record_property):
    """A receipt is the old one or the new one, whole."""
    watched = files.__file__
    points = one_of_each(lines_of(write_receipt, tmp_path, watched), random.Random(2))[::every]
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    old = receipts.read_receipt(UNIT) | {"status": "running"}
    for nth in points:
        UNIT.receipt.write_text(json.dumps(old))
        assert killed(nth, write_receipt, tmp_path, watched)
        assert receipts.read_receipt(UNIT) in (old, old | {"status": "ok"})
    tell(record_property, every, f"{len(points)} kills")


@pytest.mark.slow
def test_killed_at_seeded_instants_of_runs_and_of_their_resumes(whole, tmp_path, record_property):
    dice, kills, most = random.Random(3), 0, 0
    for round_ in range(30):
        folder = tmp_path / str(round_)
        folder.mkdir()
        of_this = 0
        for _ in range(3):
            process = start(judge, folder, 0.02)
            time.sleep(dice.uniform(0.02, 0.15))
            process.kill()
            process.join()
            of_this += process.exitcode == -signal.SIGKILL
        most = max(most, finish(folder, whole, of_this))
        kills += of_this
    assert kills >= 50
    told = f"{kills} kills in 30 runs; most asked again in a run: {most} of {len(QUESTIONS)}"
    record_property("measured", f"{told} questions")


@pytest.mark.slow
def test_a_series_that_is_killed_goes_on_to_the_same_scores(whole, tmp_path, record_property):
    """The runner, its notebook and its kernel, killed three times while it judges."""
    project = Project(tmp_path)
    path = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})"
    judges = "from evaluation import evaluate, judge\njudge(folder, 0.2)"
    project.notebook("05_benchmark", path, judges, "evaluate(folder)", gives=["scores.csv"])
    project.parameters("05_benchmark")
    folder, dice = tmp_path / "runs" / "nano", random.Random(4)
    for _ in range(3):
        notes = len(asked(folder))
        process = project.start("nano")
        while len(asked(folder)) == notes:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.8))
        process.kill()
        process.communicate()
        assert project.status(4)["05_benchmark"].startswith("interrupted")
    process = project.start("nano")
    assert process.wait() == 0, process.communicate()
    for name in ("scores.csv", "noting.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    again = len(asked(folder)) - len(QUESTIONS)
    assert again <= 3 * ONE_BATCH
    record_property("measured", f"3 kills; asked again: {again} of {len(QUESTIONS)} questions")


def test_the_evaluation_is_worth_killing(whole):
    """What the tests above compare depends on the answers, and a batch is a part of the whole."""
    assert 2 * ONE_BATCH < len(QUESTIONS) == len(set(QUESTIONS))
    rows = [json.loads(line) for line in (whole / "noting.jsonl").read_text().splitlines()]
    assert len({row["rationale"] for row in rows}) == len(QUESTIONS)
    assert {row["verdict"] for row in rows} == {"safe", "unsafe"}
    assert evaluation.NotingJudge(whole).identity() == {"kind": "noting"}
