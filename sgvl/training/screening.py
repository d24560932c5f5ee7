"""Screening: the prompts about which the model is not certain before stage 2 begins.

A prompt under which all sampled replies get the same verdict is a dead group: it costs a rollout
and teaches nothing. So the model that training starts from is asked each prompt a few times, and
P(unsafe) is the share of replies that say so. P(unsafe) after one greedy rationale does not serve:
of 200 prompts of the nano profile none had one between 0.1 and 0.9, though half of the groups
sampled from the same model were not dead.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.common.files import write_csv
from sgvl.common.progress import printer
from sgvl.models import loading
from sgvl.models.chat_model import ChatModel
from sgvl.text import prompts, verdict
from sgvl.training.trainer import digest, free_memory

REPLIES = 4  # a prompt: half of the usual group
BATCH = 16  # prompts
# How TRL samples where the settings do not say.
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_completion_length": 256}


def check(keep_p_unsafe: Sequence[float]) -> None:
    """Check the bounds of P(unsafe) between which prompts are kept; none keep all.

    Raises InputError for anything but two numbers from 0 to 1, the lower one first.
    """
    bounds = list(keep_p_unsafe)
    if bounds and (len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= 1):
        raise InputError(
            f"keep_p_unsafe: got {bounds}, expected two numbers from 0 to 1, such as [0.1, 0.9]; "
            "[] keeps every prompt"
        )


def screened(
    rows: Dataset, keep_p_unsafe: Sequence[float], folder: Path, model: str, settings: dict,
    parser: str = "answer", **load,
) -> tuple[Dataset, pd.DataFrame]:  # fmt: skip
    """Keep the prompts whose P(unsafe) lies between two bounds, and list all.

    The list is written to ``folder`` and read from there again, so that a training that was stopped
    goes on with the same prompts.

    Parameters
    ----------
    rows : prompts, as ``grpo.rows_of`` makes them
    keep_p_unsafe : lowest and highest P(unsafe) of a prompt that is kept; none keep all
    model, settings, parser : as ``grpo.train`` takes them
    load : revision, dtype and max_pixels, likewise

    Returns
    -------
    The rows kept, in order, and a frame with one row a prompt: id, label, p_unsafe, kept.

    Raises
    ------
    InputError
        If no prompt is kept.
    """
    listed = pd.DataFrame({"id": rows["id"], "label": rows["label"]})
    if not keep_p_unsafe:
        return rows, listed.assign(p_unsafe=np.nan, kept=True)
    sampling = {name: settings.get(name, usual) for name, usual in SAMPLING.items()}
    seed, weights = settings.get("seed", 42), loading.digest(model, load.get("revision"))
    facts = [digest(rows), weights, load, sampling, seed, parser, REPLIES]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    file = folder / f"{key[:16]}.csv"
    if not file.is_file():
        found = p_unsafe(rows, model, sampling, seed, parser, **load)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(listed.assign(p_unsafe=found), file)
    listed = pd.read_csv(file, dtype={"id": str, "label": str})
    listed["kept"] = listed["p_unsafe"].between(*keep_p_unsafe)
    if not listed["kept"].any():
        raise InputError(
            f"keep_p_unsafe: none of {len(rows)} prompts has P(unsafe) in {list(keep_p_unsafe)}; "
            "set wider bounds"
        )
    return rows.select(np.flatnonzero(listed["kept"])), listed


def p_unsafe(
    rows: Dataset, model: str, sampling: dict, seed: int, parser: str, **load
) -> list[float]:
    """Return the share of sampled replies to each prompt that say unsafe.

    Parameters
    ----------
    sampling : a value for each name in ``SAMPLING``
    seed : of the samples
    """
    import torch

    reader = ChatModel(model, device="cuda" if torch.cuda.is_available() else "cpu", **load)
    torch.manual_seed(seed)
    options = {**sampling, "do_sample": True, "num_return_sequences": REPLIES}
    options["max_new_tokens"] = options.pop("max_completion_length")
    shares: list[float] = []
    say = printer(every=60)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        texts = [_text(reader, turns) for turns in batch["prompt"]]
        replies = reader.generate(batch["image"], texts, **options)
        unsafe = [verdict.parse(reader.text(r), parser).verdict == verdict.UNSAFE for r in replies]
        shares += np.reshape(unsafe, (-1, REPLIES)).mean(axis=1).tolist()
        say(len(shares), len(rows))
    del reader
    free_memory()
    return shares


def _text(reader: ChatModel, turns: Sequence[dict]) -> str:
    """Return the text of a prompt, in which the picture is one token."""
    *opening, user = (prompts.plain(turn["content"]) for turn in turns)
    system = {"system": opening[0]} if opening else {}
    return reader.prompt(prompts.illustrated(user, [True]), **system)
