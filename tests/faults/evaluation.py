"""A small evaluation to be killed: a real judge, the real store, and scores in a file.

Its processes are forked from a server that has imported everything, so that hundreds of them cost
little more than one start of Python.
"""

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from PIL import Image

from sgvl.common import paths
from sgvl.judges import Judge, Judgement, Sample, ask_all, records, under
from sgvl.run import receipts
from sgvl.run.units import Unit
from sgvl.scores import metrics
from sgvl.text.verdict import SAFE, UNSAFE


class Policy(NamedTuple):
    name: str
    digest: str


POLICIES = [Policy(f"L{i}", f"{i}" * 64) for i in (2, 3, 4)]
SAMPLES = [Sample(f"s{i}", Image.new("RGB", (2, 2), (i, 0, 0))) for i in range(10)]
QUESTIONS = [f"{sample.id} {policy.name}" for sample in SAMPLES for policy in POLICIES]
BATCH = 4  # pictures
ONE_BATCH = BATCH * len(POLICIES)  # questions
UNIT = Unit("01_data", "nano", {}, {}, "code", {}, (), (), "key")

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([Path(__file__).stem])


class NotingJudge(Judge):
    """Answers by digest. Each question leaves a note that outlives the process."""

    id = "noting"

    def __init__(self, notes: Path, seconds: float = 0.0):
        self.notes, self.seconds = notes, seconds  # a picture's share of the time

    def identity(self):
        return {"kind": "noting"}

    def judge(self, cases):
        time.sleep(self.seconds * len({id(sample) for sample, _ in cases}))
        with self.notes.open("a") as notes:
            notes.writelines(f"s{s.image.getpixel((0, 0))[0]} {p.name}\n" for s, p in cases)
        return [self.answer(sample.image, policy) for sample, policy in cases]

    def answer(self, image, policy) -> Judgement:
        digest = hashlib.sha256(image.tobytes() + policy.digest.encode()).digest()
        p = digest[0] / 255
        return Judgement(UNSAFE if p > 0.5 else SAFE, p, digest.hex(), "Antwort: …")


def judge(
    folder: Path, seconds: float = 0.0, worker: tuple[int, int] = (0, 1), batch: int = BATCH
) -> list[dict]:
    """Judge everything, or a worker's share of it, into ``folder/noting.jsonl``."""
    noting, cases = NotingJudge(folder / "notes.txt", seconds), under(SAMPLES, POLICIES)
    return ask_all(noting, cases, folder, batch_size=batch, worker=worker)


def evaluate(folder: Path) -> None:
    """Judge everything, and write the scores into ``folder/scores.csv``."""
    frame = pd.DataFrame(judge(folder)).assign(judge="noting")
    frame["pair"], frame["label"] = frame["id"], [SAFE, UNSAFE, UNSAFE] * len(SAMPLES)
    metrics.score_table(frame, resamples=20).to_csv(folder / "scores.csv")


def attempt(folder: Path, seconds: float = 0.0, most: int = resource.RLIM_INFINITY) -> None:
    """Judge where files may hold ``most`` bytes; a file ``*.error`` says what went wrong."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        judge(folder, seconds)
    except Exception as error:
        (folder / f"{os.getpid()}.error").write_text(f"{type(error).__name__}: {error}")


def write_receipt(folder: Path) -> None:
    """Write the receipt of ``UNIT``, done, in a project of its own."""
    paths.ROOT = folder
    UNIT.receipt.parent.mkdir(parents=True, exist_ok=True)
    receipts.write_receipt(UNIT, {}, "ok", sgvl="digest")


def asked(folder: Path) -> list[str]:
    """Every question that any process asked, in order."""
    notes = folder / "notes.txt"
    return notes.read_text().splitlines() if notes.exists() else []


def stored(folder: Path) -> list[str]:
    """The questions whose answers are whole in the file."""
    path = folder / "noting.jsonl"
    content = path.read_bytes() if path.exists() else b""
    rows = map(json.loads, content[: content.rfind(b"\n") + 1].splitlines())
    return [f"{row['id']} {row['policy']}" for row in rows]


def start(work: Callable, *arguments) -> multiprocessing.Process:
    with pytest.MonkeyPatch.context() as patch:  # a server started by Python 3.11 has no sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    process = processes.Process(target=work, args=arguments)
    process.start()
    return process


def kill_before(nth: int, work: Callable, folder: Path, watched: str = records.__file__) -> None:
    """Do the work, but SIGKILL this process before the nth line of the file ``watched`` is run.

    With 0 nothing is killed. A finished work leaves ``lines.json``: the lines, as they were run.
    """
    lines = []

    def trace(frame, event, argument):
        if frame.f_code.co_filename != watched:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    work(folder)
    sys.settrace(None)
    (folder / "lines.json").write_text(json.dumps(lines))
