"""Many items by several workers over one folder: time, memory, a kill, and nothing asked twice."""

import hashlib
import json
import resource
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from evaluation import POLICIES, start
from PIL import Image

from sgvl.data import Sample
from sgvl.judges import Judge, Judgement, ask_all, under
from sgvl.models.reply import Reply
from sgvl.recaption import caption_all
from sgvl.recaption.base import Captioner, Item

BATCH = 64  # requests that an engine answers together


class Engine(Captioner, Judge):
    """Answers at once. A note of each question, in a file of its worker, outlives the process."""

    id = name = "engine"
    prompt = "caption"
    pictures_at_once = BATCH

    def __init__(self, folder: Path, worker: tuple[int, int], seconds: float = 0.0):
        self.file = folder / f"asked.{worker[0]}-of-{worker[1]}.txt"
        self.seconds = seconds  # for a batch

    def identity(self):
        return {"kind": "engine"}

    def note(self, questions: list[str]) -> None:
        time.sleep(self.seconds)
        with self.file.open("a") as notes:
            notes.writelines(f"{question}\n" for question in questions)

    def results(self, items):
        if isinstance(items[0], Item):
            for k in range(0, len(items), BATCH):
                part = items[k : k + BATCH]
                self.note([item.id for item in part])
                yield [(k + i, Reply(f"I see {item.id}. " * 20), "") for i, item in enumerate(part)]
        else:
            yield from Judge.results(self, items)

    def judge(self, cases):
        self.note([f"{sample.id} {policy.name}" for sample, policy in cases])
        return [Judgement("safe", 0.25, None, "safe") for _ in cases]


class Pictures(Sequence):
    """Items that are made when they are asked for."""

    def __init__(self, n: int):
        self.numbers = range(n)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at):
        if isinstance(at, slice):
            return [self[k] for k in self.numbers[at]]
        id = f"picture {self.numbers[at]}"
        return Item(id, hashlib.sha256(id.encode()).hexdigest(), open)


def captions(engine: Engine, n: int, folder: Path, worker: tuple[int, int]) -> Sequence[dict]:
    return caption_all(engine, Pictures(n), folder / "caption.jsonl", worker=worker)


def verdicts(engine: Engine, n: int, folder: Path, worker: tuple[int, int]) -> Sequence[dict]:
    """One picture at a time is in memory."""
    colours = ((k % 256, k // 256 % 256, k // 65536) for k in range(n))
    samples = (Sample(f"{c}", Image.new("RGB", (2, 2), c)) for c in colours)
    return ask_all(engine, under(samples, POLICIES[:1]), folder, worker=worker)


WORK = {"captions": captions, "verdicts": verdicts}


def work(kind: str, n: int, folder: Path, worker: tuple[int, int], seconds: float = 0.0) -> None:
    """Do a worker's share, and write how long it took, and the most memory, in bytes."""
    began = time.process_time()
    rows = WORK[kind](Engine(folder, worker, seconds), n, folder, worker)
    assert sum("reply" in row for row in rows) == len(rows)  # read one after the other
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {"seconds": time.process_time() - began, "bytes": 1024 * used.ru_maxrss}
    (folder / "used.json").write_text(json.dumps(result))


def lines(folder: Path, names: str) -> list[str]:
    """The whole lines of some files."""
    texts = (file.read_text() for file in sorted(folder.glob(names)))
    return [line for text in texts for line in text[: text.rfind("\n") + 1].splitlines()]


def keys(folder: Path) -> list[str]:
    return [json.loads(line)["key"] for line in lines(folder, "*.jsonl")]


def shared(kind: str, n: int, folder: Path, seconds: float) -> None:
    """Three workers, one of them killed in the middle, then two, then one that reads."""
    workers = [start(work, kind, n, folder, (k, 3), seconds) for k in range(3)]
    while len(lines(folder, "*.1-of-3.jsonl")) < n / 6 and workers[1].is_alive():
        time.sleep(n / 1e6)
    workers[1].kill()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, -9, 0]
    assert n / 6 <= len(lines(folder, "*.1-of-3.jsonl")) and len(keys(folder)) < n
    workers = [start(work, kind, n, folder, (k, 2)) for k in range(2)]
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    stored, asked = keys(folder), lines(folder, "asked.*")
    assert len(stored) == len(set(stored)) == len(set(asked)) == n
    assert len(asked) - n <= BATCH, "but for the batch that was cut"
    rows = WORK[kind](Engine(folder, (0, 1)), n, folder, (0, 1))
    assert len(rows) == n and len(lines(folder, "asked.*")) == len(asked)


@pytest.mark.parametrize("kind", WORK)
def test_any_number_of_workers_asks_everything_once(kind, tmp_path):
    shared(kind, 3_000, tmp_path, 0.02)


@pytest.mark.parametrize("kind", WORK)
def test_memory_does_not_hold_the_answers(kind, tmp_path, monkeypatch):
    """An index of 100 bytes an item at most, where an answer and its row have over 1,000."""
    monkeypatch.setattr("sgvl.common.spool.IN_MEMORY", 10_000)
    monkeypatch.setattr("sgvl.recaption.batch.TOGETHER", 128)
    peaks = []
    for n in (500, 2_500):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        tracemalloc.start()
        rows = WORK[kind](Engine(folder, (0, 1)), n, folder, (0, 1))
        assert sum("reply" in row for row in rows) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2_000 < 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORK)
def test_a_hundred_thousand_items(kind, tmp_path, record_property):
    used = {}
    for n in (20_000, 100_000):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        for again in ("", " again"):
            process = start(work, kind, n, folder, (0, 1))
            process.join()
            assert process.exitcode == 0
            used[f"{n}{again}"] = json.loads((folder / "used.json").read_text())
    record_property("measured", f"{kind}: {used}")
    print(kind, used)
    for again in ("", " again"):
        few, many = used[f"20000{again}"], used[f"100000{again}"]
        assert many["seconds"] / few["seconds"] < 6
        assert (many["bytes"] - few["bytes"]) / 80_000 < 100
    shared(kind, 100_000, tmp_path, 0.0)
