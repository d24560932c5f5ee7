"""Several workers at one data set: each has a file of its own, and none asks what another has."""

import json

import pytest
from evaluation import POLICIES, QUESTIONS, asked, evaluate, judge, start

from sgvl.common.errors import Busy, InputError
from sgvl.judges.records import Records


def answered(folder) -> list[str]:
    """Every question that is answered in any file, once for each line."""
    files = sorted(folder.glob("noting*.jsonl"))
    rows = (json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1])
    return [f"{row['id']} {row['policy']}" for row in rows]


def share(folder, k, n) -> list[dict]:
    return judge(folder, worker=(k, n))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a single worker's run."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(folder)
    return folder


def finished_as_if_alone(folder, whole) -> bool:
    """A run of one worker over what the others left; it asks for what they did not."""
    evaluate(folder)
    return (folder / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


def test_shares_are_disjoint_and_make_up_the_whole(whole, tmp_path):
    rows = [row for k in range(3) for row in share(tmp_path, k, 3)]
    assert sorted(asked(tmp_path)) == sorted(answered(tmp_path)) == sorted(QUESTIONS)
    assert all(asked(tmp_path).count(question) == 1 for question in QUESTIONS)
    names = [f"noting.{k}-of-3.jsonl" for k in range(3)]
    assert sorted(file.name for file in tmp_path.glob("*.jsonl")) == names
    assert all((tmp_path / name).stat().st_size for name in names), "everybody had something to do"
    assert sorted(r["rationale"] for r in rows) == sorted(r["rationale"] for r in judge(whole))
    assert finished_as_if_alone(tmp_path, whole) and len(asked(tmp_path)) == len(QUESTIONS)


@pytest.mark.parametrize("then", [1, 2, 5])
def test_a_killed_worker_and_another_number_that_goes_on(then, whole, tmp_path):
    """Three processes at the same time, one of them killed in the middle; then another number."""
    workers = [start(judge, tmp_path, 0.3, (k, 3), 1) for k in range(3)]
    while not (tmp_path / "noting.1-of-3.jsonl").exists() or not answered(tmp_path):
        assert any(process.is_alive() for process in workers)
    workers[1].kill()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, -9, 0]
    before = answered(tmp_path)
    assert 0 < len(before) < len(QUESTIONS) and len(before) == len(set(before))
    notes = len(asked(tmp_path))
    workers = [start(judge, tmp_path, 0.0, (k, then), 1) for k in range(then)]
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0] * then
    assert not set(before) & set(asked(tmp_path)[notes:]), "a stored answer was asked for again"
    assert sorted(answered(tmp_path)) == sorted(QUESTIONS)
    assert len(asked(tmp_path)) - len(QUESTIONS) <= len(POLICIES), "but for the batch that was cut"
    notes = len(asked(tmp_path))
    assert finished_as_if_alone(tmp_path, whole) and len(asked(tmp_path)) == notes


@pytest.mark.parametrize("rivals", [(0, 1), (0, 3), (1, 3)])
def test_another_number_of_workers_at_the_same_time_is_refused(rivals, tmp_path):
    share(tmp_path, 1, 3)  # an old file of another number is no worker
    with Records(tmp_path / "noting.jsonl", {"kind": "noting"}, worker=(1, 2)):
        with pytest.raises(Busy, match=r"noting\.1-of-2\.jsonl: another run holds it; wait"):
            share(tmp_path, *rivals)
        with pytest.raises(Busy, match="1-of-2"):
            share(tmp_path, 1, 2)
        share(tmp_path, 0, 2)
    assert len(share(tmp_path, *rivals)) > 0


def test_a_single_worker_at_it_keeps_several_away(tmp_path):
    with (
        Records(tmp_path / "noting.jsonl", {"kind": "noting"}),
        pytest.raises(Busy, match=r"noting\.jsonl: another run"),
    ):
        share(tmp_path, 0, 2)


def test_torn_and_broken_lines_of_other_workers(whole, tmp_path):
    """A torn end is a worker that was killed, or one that writes just now: not read, not mended."""
    for k in range(2):
        share(tmp_path, k, 2)
    torn = tmp_path / "noting.1-of-2.jsonl"
    content = torn.read_bytes()[:-7]
    torn.write_bytes(content)
    notes = len(asked(tmp_path))
    assert finished_as_if_alone(tmp_path, whole)
    assert len(asked(tmp_path)) == notes + 1 and torn.read_bytes() == content
    torn.write_bytes(b"{}\n" + content)
    with pytest.raises(InputError, match=r"noting\.1-of-2\.jsonl, line 1 is not a record"):
        judge(tmp_path)


def test_workers_that_contradict_each_other_are_named(tmp_path):
    share(tmp_path, 0, 2)
    first = tmp_path / "noting.0-of-2.jsonl"
    row = json.loads(first.read_text().splitlines()[0]) | {"p_unsafe": 0.123}
    (tmp_path / "noting.0-of-7.jsonl").write_text(json.dumps(row) + "\n")
    where = r"noting\.0-of-2\.jsonl, line 1 and .*noting\.0-of-7\.jsonl, line 1 contradict"
    with pytest.raises(InputError, match=where):
        judge(tmp_path)


def test_files_of_other_judges_are_left_alone(tmp_path):
    for name in ("noting.mine.jsonl", "noting.0-of-2.jsonl.torn", "notingx.0-of-2.jsonl"):
        (tmp_path / name).write_text("not records\n")
    assert len(judge(tmp_path)) == len(QUESTIONS)


@pytest.mark.parametrize("worker", [(0, 0), (2, 2), (-1, 2)])
def test_a_worker_that_cannot_be_is_named(worker, tmp_path):
    with pytest.raises(InputError, match="a worker is a number from 0"):
        share(tmp_path, *worker)
    assert not list(tmp_path.iterdir())
