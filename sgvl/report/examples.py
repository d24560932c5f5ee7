"""Choose the pictures and texts that Figures 1, 2, 3, 5 and 7 show."""

from collections.abc import Mapping, Sequence

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.policies.policy import Policy
from sgvl.text.verdict import UNSAFE
from sgvl.world.scenes import Scene, render


def matched_pairs(bench: Dataset, edits: Mapping[str, str]) -> list[dict]:
    """Take the first pair of each category and edit, to show in Figure 2.

    Parameters
    ----------
    bench : SafeEditBench; the safe counterpart of a picture is the row after it
    edits : way of editing by category

    Returns
    -------
    What ``figures.show_pairs`` takes. Raises InputError if a category has no such pair.
    """
    first = {}
    for row, case in enumerate(zip(bench["category"], bench["edit"], strict=True)):
        first.setdefault(case, row)
    pairs = []
    for category, edit in edits.items():
        if (category, edit) not in first:
            raise InputError(f"Figure 2: no pair of category {category!r} has the edit {edit!r}")
        row = first[category, edit]
        original, counterpart = bench[row], bench[row + 1]
        title = f"{category}: {edit.replace('_', ', still ')}"
        pairs.append(
            {"unsafe": original["image"], "safe": counterpart["image"], "box": original["box"],
             "title": title}
        )  # fmt: skip
    return pairs


def verdicts(
    scenes: Mapping[str, Scene], policies: Sequence[Policy]
) -> tuple[list[dict], pd.DataFrame]:
    """Label each scene under each policy, for Figure 5.

    Returns what ``figures.show_verdicts`` takes, and a row for each picture and policy.
    """
    examples, rows = [], []
    for title, scene in scenes.items():
        rulings = {policy.name: policy.label(scene.tags) for policy in policies}
        labels = [{"policy": n, "label": r.label, "rule": r.rule} for n, r in rulings.items()]
        examples.append({"image": render(scene), "title": title, "verdicts": labels})
        rows += [{"picture": title, **label} for label in labels]
    return examples, pd.DataFrame(rows)


def recaptions(captions: Dataset, words: pd.DataFrame) -> tuple[list[dict], pd.DataFrame]:
    """Pair captions with their recaptions, for Figure 3.

    Parameters
    ----------
    captions : rows with id, image, caption and recaption
    words : the words of some recaptions: id, prompt, word and change

    Returns
    -------
    What ``figures.show_recaptions`` takes, and both texts of each example
    """
    words = words[words["prompt"] == "minimal_edit"]
    changes = {
        id: list(own[["word", "change"]].itertuples(index=False)) for id, own in words.groupby("id")
    }
    rows = captions.filter(lambda id: id in changes, input_columns="id")
    examples = [
        {"image": row["image"], "before": row["caption"], "after": changes[row["id"]]}
        for row in rows
    ]
    return examples, pd.DataFrame({"before": rows["caption"], "after": rows["recaption"]})


def stages(
    captions: Dataset, logs: Mapping[str, pd.DataFrame], policies: Sequence[Policy]
) -> list[dict]:
    """Describe the stages of the method as this run did them, for Figure 1.

    Parameters
    ----------
    captions : rows with image, caption and recaption; the first that differs is the example
    logs : training logs, stage 1 first and stage 2 last

    Returns
    -------
    What ``figures.pipeline`` takes
    """
    example = next(row for row in captions if row["caption"] != row["recaption"])
    steps = [f"{int(log['step'].max())} steps" for log in logs.values()]
    return [
        {"title": "1 Caption", "text": example["caption"], "image": example["image"]},
        {"title": "2 Recaption", "text": example["recaption"]},
        {"title": "Stage 1: SFT", "text": f"on {len(captions)} recaptions, {steps[0]}"},
        {"title": "Stage 2: GRPO", "text": f"reward: right under the policy, {steps[-1]}"},
        {
            "title": "Judge",
            "text": "one picture, any policy: " + ", ".join(policy.name for policy in policies),
        },
    ]


def replies(bench: Dataset, answers: pd.DataFrame) -> tuple[list[dict], pd.DataFrame]:
    """Take the replies about the first unsafe picture with weapons under L2 and L4, for Figure 7.

    Parameters
    ----------
    bench : the pictures, with their ids
    answers : rows with id, policy, judge, verdict, label and reply

    Returns
    -------
    What ``figures.show_replies`` takes, and the rows shown. Raises InputError if there are none.
    """
    answers = answers[answers["policy"].isin(["L2", "L4"])]
    unsafe = answers[answers["id"].str.startswith("weapons") & (answers["label"] == UNSAFE)]
    if unsafe.empty:
        raise InputError("Figure 7: no answers about an unsafe picture with weapons under L2 or L4")
    picture = unsafe["id"].iloc[0]
    rows = answers.loc[answers["id"] == picture, ["policy", "judge", "verdict", "label", "reply"]]
    image = bench[list(bench["id"]).index(picture)]["image"]
    return [{"image": image, "title": picture, "replies": rows.to_dict("records")}], rows
