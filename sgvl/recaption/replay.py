"""What stage 1 of a small model teaches again beside captions: the model's own replies.

Taught captions alone, a small model may forget how it replies (after pseudorehearsal, Robins 1995;
not in the paper). No label is used, and nothing harmful is asked about or shown.
"""

import numpy as np
from datasets import Dataset, concatenate_datasets

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.judges.base import SpeakingJudge
from sgvl.policies.concepts import CATEGORIES
from sgvl.policies.random_policies import fill, mixed_skeleton
from sgvl.text.verdict import UNPARSEABLE
from sgvl.training.sft import edited
from sgvl.world import sets


def make_replay(
    judge: SpeakingJudge, captions: Dataset, policies: int, per_task: int, seed: int = 0
) -> Dataset:
    """A judge's replies to ``policies`` policies and to ``per_task`` plain questions of each task.

    Columns id, image, asked, reply. Raises InputError if there are fewer pictures for the policies,
    or if no reply to them has a verdict.
    """
    sets = [to_policies(judge, captions, policies, seed)]
    if per_task:
        sets.append(to_questions(judge, per_task, seed))
    return concatenate_datasets(sets)


def to_policies(judge: SpeakingJudge, captions: Dataset, pictures: int, seed: int) -> Dataset:
    """Replies to random policies over harmless categories, one a picture.

    The pictures are spread over those whose caption a minimal edit left as it was. Replies without
    a verdict are left out.
    """
    minimal = edited(captions)
    texts = ["caption", "recaption"]
    whole = minimal.filter(lambda before, after: before == after, input_columns=texts)
    shown = whole.select(store.even_indices(len(whole), pictures))
    rng = np.random.default_rng(seed)
    harmless = [c.name for c in CATEGORIES.values() if c.group != "harmful"]
    given = [fill(rng, mixed_skeleton(rng, longest=12), harmless) for _ in shown["id"]]
    told = judge.judge_cases(list(zip(store.samples(shown), given, strict=True)))
    replies = [
        {"id": row["id"], "image": row["image"]}
        | {"asked": judge.question(policy), "reply": judgement.reply}
        for row, policy, judgement in zip(store.without_decoding(shown), given, told, strict=True)
        if judgement.verdict != UNPARSEABLE
    ]
    if not replies:
        raise InputError(f"{judge.name}: none of {len(told)} replies to make_replay has a verdict")
    return store.from_rows(replies)


def to_questions(judge: SpeakingJudge, per_task: int, seed: int) -> Dataset:
    """Replies to the questions of general ability, on drawn scenes of the training split."""
    plain = sets.general(seed, per_task, split="train").rename_column("question", "asked")
    replies = judge.ask(list(plain["image"]), list(plain["asked"]))
    return plain.select_columns(["id", "image", "asked"]).add_column("reply", replies)
