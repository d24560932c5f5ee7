"""Stage 1: supervised fine-tuning with TRL's ``SFTTrainer``, loss on the answer only.

Rows are ``prompt``, ``completion`` and ``image``. What they teach is the variant: to say what
pictures show (``captions``), to classify under one level (``classify``), or to fill in the form of
one fixed taxonomy (``taxonomy``).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset, concatenate_datasets

from sgvl.common.errors import need_known
from sgvl.data import store
from sgvl.policies.concepts import CATEGORIES
from sgvl.policies.policy import LEVELS, Policy, load
from sgvl.text import prompts
from sgvl.training import trainer


def turns(image, prompt: str, completion: str, **more) -> dict:
    """One row: TRL puts the image before the first words of the user."""
    said = {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}
    return {"image": image, "prompt": [said[0]], "completion": [said[1]], **more}


VARIANTS = ("recap", "no_recap", "taxonomy", *LEVELS)


def rows_of(variant: str, data: Path, replay: bool = False) -> Dataset:
    """The training rows of a variant, from the folder of a run that has 01_data and 02_recaption.

    ``recap`` and ``no_recap``: captions after and before a minimal edit. ``taxonomy``: the pictures
    and policies of stage 2, answered in JSON. ``L1`` .. ``L5``: edited pairs under that level.
    With ``replay`` the replies that 02_recaption kept come on top.
    """
    rows = _taught(variant, data)
    if not replay:
        return rows
    kept = store.without_decoding(store.read("replay", data / "recaption"))
    replies = (turns(row["image"], row["asked"], row["reply"], id=row["id"]) for row in kept)
    return concatenate_datasets([rows, store.from_rows(replies)])


def _taught(variant: str, data: Path) -> Dataset:
    need_known("variant", variant, VARIANTS)
    if variant in ("recap", "no_recap"):
        rows = edited(store.read("captions", data / "recaption"))
        return captions(rows, "recaption" if variant == "recap" else "caption")
    if variant == "taxonomy":
        return taxonomy(store.read("llavaguard", data / "data"))
    return classify(store.read("safeedit_train", data / "data"), load(variant))


def captions(rows: Dataset, column: str, wordings: Sequence[str] = prompts.CAPTION) -> Dataset:
    """Rows that teach the captions in ``column``, asked for in each wording in turn."""
    return store.from_rows(
        turns(row["image"], wordings[i % len(wordings)], row[column], id=row["id"])
        for i, row in enumerate(store.without_decoding(rows))
    )


def edited(captions: Dataset) -> Dataset:
    """Of pictures that several prompts recaptioned, the rows of the paper's minimal edit."""
    return captions.filter(lambda prompt: prompt == "minimal_edit", input_columns="prompt")


def classify(rows: Dataset, policy: Policy) -> Dataset:
    """Rows that teach the bare verdict of one policy, as guards trained on one taxonomy do."""
    text = prompts.judge_prompt(policy.render("brief"))
    return store.from_rows(
        turns(row["image"], text, f"Answer: {policy.label(row['tags']).label}", id=row["id"])
        for row in store.without_decoding(rows)
    )


def taxonomy(rows: Dataset) -> Dataset:
    """Rows that teach one fixed taxonomy in its JSON form, as LlavaGuard and QwenGuard are taught.

    Each row brings its own policy: the nine categories with some declared as not violating.
    """
    return store.from_rows(
        turns(
            row["image"],
            prompts.judge_prompt(policy.render("brief"), "taxonomy"),
            rating(policy, row["tags"]),
            id=row["id"],
        )
        for row, policy in zip(store.without_decoding(rows), store.policies(rows), strict=True)
    )


def rating(policy: Policy, tags: Sequence[str]) -> str:
    """A guard's JSON reply on a scene: rating, category of the first violation, rationale."""
    ruling = policy.label(tags)
    fired = [item for item in ruling.items if item.status == "prohibited"]
    category = CATEGORIES[fired[0].category].llavaguard if fired else ""
    reply = {
        "rating": ruling.label.capitalize(),
        "category": category or "NA: None applying",
        "rationale": " ".join(item.explain() for item in fired or ruling.items),
    }
    return json.dumps(reply)


def train(
    rows: Dataset, model: str, folder: Path, settings: dict, lora: dict | None = None,
    dtype: str = "float32",
) -> pd.DataFrame:  # fmt: skip
    """Fine-tune ``model`` on ``rows``, save it as ``folder``/model, and return the log.

    A killed training continues from its newest checkpoint and ends with the same weights, bit by
    bit. A finished one of the same rows, model and settings is not repeated: its log is returned.

    Parameters
    ----------
    rows : with the columns prompt, completion, image, id
    model : "nano", a folder, or a hub id
    settings : fields of ``trl.SFTConfig``
    lora : fields of ``peft.LoraConfig``; None trains all weights of the language model
    dtype : of the weights in training

    Returns
    -------
    pandas.DataFrame
        One row per logging step.
    """
    from trl import SFTTrainer

    config = trainer.make_config("sft", settings, folder)
    start = trainer.prepare("sft", rows, model, folder, settings, lora, dtype)
    if start:
        trainer.train_and_save(SFTTrainer(**start, args=config, train_dataset=rows))
    return trainer.read_log(folder)
