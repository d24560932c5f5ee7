"""Replay: the model's own replies, which stage 1 of a small model learns beside captions.

A small model that learns captions alone may forget how to reply to other requests. Training on its
own earlier replies prevents that (pseudorehearsal, Robins 1995; not in the paper). Replay uses no
label, no harmful picture and no policy about harmful things.
"""

from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from sgvl.common.errors import InputError
from sgvl.data import arrow, store
from sgvl.judges import ask_all, check_judges
from sgvl.judges.base import SpeakingJudge
from sgvl.policies.concepts import CATEGORIES
from sgvl.policies.random_policies import fill, mixed_skeleton
from sgvl.text.verdict import UNPARSEABLE
from sgvl.training.sft import edited
from sgvl.world import sets


def check_replay_judge(spec: dict) -> None:
    """Check the options of the chat judge that replies; no model loads."""
    check_judges([{"kind": "chat", **spec}])


def make_replay(
    judge: SpeakingJudge,
    captions: Dataset,
    policies: int,
    per_task: int,
    folder: Path,
    seed: int = 0,
) -> Dataset:
    """Collect a judge's replies to random policies and to plain questions.

    Parameters
    ----------
    captions : recaptioned training pictures, as ``sgvl.recaption.to_dataset`` returns them
    policies : number of policies over harmless categories; each is asked about its own picture
    per_task : number of questions of each of the four tasks; 0 leaves questions out
    folder : where each reply is stored as it comes
    seed : of the policies and questions

    Returns
    -------
    Dataset
        Columns id, image, request, reply.

    Raises
    ------
    InputError
        If there are fewer pictures than policies, or if no reply to a policy has a verdict.
    """
    parts = [_replies_to_policies(judge, captions, policies, folder, seed)]
    if per_task:
        parts.append(_replies_to_questions(judge, per_task, folder, seed))
    return concatenate_datasets(parts)


def _replies_to_policies(
    judge: SpeakingJudge, captions: Dataset, pictures: int, folder: Path, seed: int
) -> Dataset:
    """Collect replies to random policies over harmless categories, one policy per picture.

    The pictures are evenly spread over those whose caption the minimal edit did not change. Replies
    without a verdict are left out.
    """
    minimal = edited(captions)
    columns = ["caption", "recaption"]
    unchanged = minimal.filter(lambda before, after: before == after, input_columns=columns)
    chosen = unchanged.select(store.even_indices(len(unchanged), pictures))
    rng = np.random.default_rng(seed)
    harmless = [c.name for c in CATEGORIES.values() if c.group != "harmful"]
    policies = [fill(rng, mixed_skeleton(rng, longest=12), harmless) for _ in chosen["id"]]
    answers = ask_all(judge, zip(store.samples(chosen), policies, strict=True), folder)
    requests = map(judge.request, policies)
    replies = [
        (place, request, answer["reply"])
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
        if answer["verdict"] != UNPARSEABLE
    ]
    if not replies:
        raise InputError(f"{judge.id}: none of {len(answers)} replies to replay has a verdict")
    places, requests, texts = map(list, zip(*replies, strict=True))
    pictures = chosen.select_columns(["id", "image"])
    return arrow.join(pictures, {"request": requests, "reply": texts}, places)


def _replies_to_questions(judge: SpeakingJudge, per_task: int, folder: Path, seed: int) -> Dataset:
    """Collect replies to the questions of general ability, on drawn training scenes."""
    questions = sets.general(seed, per_task, split="train").rename_column("question", "request")
    cases = zip(store.samples(questions), questions["request"], strict=True)
    replies = [answer["reply"] for answer in ask_all(judge, cases, folder)]
    return arrow.join(questions.select_columns(["id", "image", "request"]), {"reply": replies})
