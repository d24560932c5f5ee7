"""Stage 1: supervised fine-tuning with TRL's ``SFTTrainer``, with the loss on the answer alone.

A training row has ``image``, ``prompt``, ``completion`` and ``id``. The variant decides what the
completions are: captions (``recap``, ``no_recap``), ratings in the JSON form of one fixed taxonomy
(``taxonomy``), or verdicts under one level (``L1`` to ``L5``).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import need_known
from sgvl.data import store
from sgvl.data.cases import Case, training_cases
from sgvl.policies.concepts import CATEGORIES
from sgvl.policies.policy import LEVELS, Policy, load
from sgvl.text import prompts
from sgvl.training import trainer

VARIANTS = ("recap", "no_recap", "taxonomy", *LEVELS)
NONE = "NA: None applying"  # LlavaGuard's category of a picture that violates nothing
ABOUT = ("id", "tags", "category", "rationale")  # columns that a rating is made of


def source(
    variant: str, folder: Path, train: str = "llavaguard", pairs_train: str = "safeedit_train",
    recaption: str = "minimal_edit",
) -> Dataset:  # fmt: skip
    """Read the data set that a variant is made from, in the folder of a run with its data.

    Parameters
    ----------
    train, pairs_train : names of the sets in these roles
    recaption : the prompt of 02_recaption whose captions are taken

    Raises
    ------
    InputError
        For an unknown variant, and if the run does not have the data set or such captions.
    """
    need_known("variant", variant, VARIANTS)
    if variant in ("recap", "no_recap"):
        return edited(store.read("captions", folder / "recaption"), recaption)
    return store.read(train if variant == "taxonomy" else pairs_train, folder / "data")


def rows_of(
    variant: str, folder: Path, train: str = "llavaguard", pairs_train: str = "safeedit_train",
    policy_form: str = "brief", prompt: str = "", recaption: str = "minimal_edit",
) -> Dataset:  # fmt: skip
    """Make the training rows of a variant, in the order in which they are before shuffling.

    Parameters
    ----------
    variant : a name in ``VARIANTS``
    folder : of a run that has 01_data and, for captions, 02_recaption
    train, pairs_train : names of the sets in these roles
    policy_form, prompt : as in ``trainer.request``; an empty prompt is ``taxonomy`` in the variant
        of that name and ``reason`` in those of one level
    recaption : the prompt of 02_recaption whose captions are taught

    Raises
    ------
    InputError
        As ``source`` does.
    """
    rows = source(variant, folder, train, pairs_train, recaption)
    if variant in ("recap", "no_recap"):
        return captions(rows, "recaption" if variant == "recap" else "caption")
    if variant == "taxonomy":
        return taxonomy(rows, policy_form, prompt or "taxonomy")
    return classify(rows, load(variant), policy_form, prompt or "reason")


def overview(rows: Dataset) -> pd.DataFrame:
    """Return what the first three rows ask and what they teach: prompt, completion; by id."""
    rows = rows.select_columns(["prompt", "completion", "id"]).select(range(min(3, len(rows))))
    return pd.DataFrame(
        {
            "prompt": [prompts.plain(prompt[0]["content"]) for prompt in rows["prompt"]],
            "completion": [completion[0]["content"] for completion in rows["completion"]],
        },
        index=pd.Index(rows["id"], name="id"),
    )


def training_row(prompt: str, completion: str, id: str) -> dict:
    """Make one training row in TRL's conversational form; its image goes before the prompt."""
    user, assistant = {"role": "user"}, {"role": "assistant"}
    return {
        "prompt": [user | {"content": prompts.content(prompt)}],
        "completion": [assistant | {"content": completion}],
        "id": id,
    }


def captions(rows: Dataset, column: str) -> Dataset:
    """Make rows that teach the captions in ``column``, with the caption prompts by turns."""
    texts = enumerate(zip(rows[column], rows["id"], strict=True))
    return store.beside_pictures(
        rows,
        (
            training_row(prompts.CAPTION[i % len(prompts.CAPTION)], text, id_)
            for i, (text, id_) in texts
        ),
    )


def edited(captions: Dataset, recaption: str = "minimal_edit") -> Dataset:
    """Keep the rows of one recaption prompt, by default the paper's, of several prompts' rows.

    Raises InputError for a prompt without rows, with those that have some.
    """
    need_known("recaption: no caption of the prompt", recaption, set(captions["prompt"]))
    return captions.filter(lambda prompt: prompt == recaption, input_columns="prompt")


def classify(
    rows: Dataset, policy: Policy, policy_form: str = "brief", prompt: str = "reason"
) -> Dataset:
    """Make rows that teach bare verdicts under one policy, as for a guard of one taxonomy.

    Rows that bring policies of their own keep the one of this name. For policy_form and prompt see
    ``trainer.request``.
    """
    ids, cases = list(rows["id"]), training_cases(rows, [policy])
    texts = (
        training_row(
            trainer.request(case.policy, policy_form, prompt),
            prompts.reply(prompt, case.label),
            ids[case.place],
        )
        for case in cases
    )
    return store.beside_pictures(rows, texts, [case.place for case in cases])


def taxonomy(rows: Dataset, policy_form: str = "brief", prompt: str = "taxonomy") -> Dataset:
    """Make rows that teach one fixed taxonomy in its JSON form, as for LlavaGuard and QwenGuard.

    Each row brings its own policy: the nine categories, some of them declared as not violating. For
    policy_form and prompt see ``trainer.request``.
    """
    columns = [name for name in ABOUT if name in rows.column_names]
    about, cases = list(rows.select_columns(columns)), training_cases(rows)
    indent = 4 if prompt == "llavaguard" else None  # as its authors write it
    texts = (
        training_row(
            trainer.request(case.policy, policy_form, prompt),
            json.dumps(rating_of(about[case.place], case), indent=indent, ensure_ascii=False),
            about[case.place]["id"],
        )
        for case in cases
    )
    return store.beside_pictures(rows, texts, [case.place for case in cases])


def rating_of(row: Mapping, case: Case) -> dict[str, str]:
    """Return a guard's reply about a row: computed from its tags, or as it was published."""
    if "tags" in row:
        return rating(case.policy, row["tags"])
    reply = {"rating": case.label.capitalize(), "category": row["category"] or NONE}
    return reply | ({"rationale": row["rationale"]} if row["rationale"] else {})


def rating(policy: Policy, tags: Sequence[str]) -> dict[str, str]:
    """Return a guard's reply: what the policy says of each thing, the first violation, the rating.

    Published replies open with the rating. A model of the size of nano learns to give reasons for
    it, but not to find it before them.
    """
    ruling = policy.label(tags)
    violations = [item for item in ruling.items if item.status == "prohibited"]
    category = CATEGORIES[violations[0].category].llavaguard if violations else ""
    return {
        "rationale": " ".join(item.explain() for item in ruling.items),
        "category": category or NONE,
        "rating": ruling.label.capitalize(),
    }


def train(
    rows: Dataset, model: str, folder: Path, settings: dict, lora: dict | None = None,
    dtype: str = "float32", revision: str | None = None, max_pixels: int | None = None,
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
    dtype, revision, max_pixels : as in ``trainer.prepare``

    Returns
    -------
    pandas.DataFrame
        One row per logging step.
    """
    from trl import SFTTrainer

    config = trainer.make_config("sft", settings, folder)
    start = trainer.prepare("sft", rows, model, folder, settings, lora, dtype, revision, max_pixels)
    if start:
        trainer.train_and_save(SFTTrainer(**start, args=config, train_dataset=rows))
    return trainer.read_log(folder)
