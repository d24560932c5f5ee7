"""Judgements of a few pictures, for widgets that compare judges or follow a training."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset
from filelock import FileLock, Timeout

from sgvl.data import store
from sgvl.data.cases import label_cases
from sgvl.judges import Judge, ask_all, make_judge, under
from sgvl.policies import Policy
from sgvl.training import folders


def judgements(
    judges: Sequence[Judge], pictures: Dataset, policies: Sequence[Policy], folder: Path
) -> pd.DataFrame:
    """Ask judges about every drawn picture under every policy.

    Answers are stored in ``folder``, one file per judge; those that are there are not asked again.

    Returns
    -------
    pandas.DataFrame
        A judgement frame, see ``sgvl.scores.metrics``, with the judges' names.
    """
    samples = store.samples(pictures)
    frames = [
        pd.DataFrame(ask_all(judge, under(samples, policies), folder)).assign(judge=judge.name)
        for judge in judges
    ]
    return pd.concat(frames).merge(label_cases(pictures, policies), on=["id", "policy"])


def along_training(
    start: Judge, training: Path, pictures: Dataset, policies: Sequence[Policy], folder: Path
) -> pd.DataFrame:
    """Ask the judge that a training started from, and each of its checkpoints.

    Parameters
    ----------
    start : the judge before the first step
    training : folder of the training
    pictures, policies, folder : as for ``judgements``

    Returns
    -------
    pandas.DataFrame
        A judgement frame with a column ``step``, 0 for ``start``.
    """
    frames = [judgements([start], pictures, policies, folder).assign(step=0)]
    for step, path in folders.checkpoints(training).items():
        judge = make_judge({"kind": "chat", "id": f"step-{step}", "model": str(path)})
        frames.append(judgements([judge], pictures, policies, folder).assign(step=step))
    return pd.concat(frames)


def wait_for_turn(folder: Path) -> FileLock:
    """Wait until no other kernel prepares the lesson in ``folder``, and return the lock to release.

    Of several who open the page at once, the first trains and judges, and the others then read what
    is stored. The system frees the lock of a kernel that dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", is_singleton=True)  # a cell that is run again does not wait
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Another page is preparing the lesson; this one waits for it.", flush=True)
        lock.acquire()
    return lock
