"""Stage 2: group-relative policy optimisation with TRL's ``GRPOTrainer`` and a verifiable reward.

A prompt shows a picture under a policy. The reward parses the verdict and compares it with the
label of the picture under that policy.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, need_known
from sgvl.data import store
from sgvl.data.cases import Case, training_cases
from sgvl.policies.policy import LEVELS, Policy, load_all
from sgvl.text import prompts
from sgvl.training import trainer
from sgvl.training.reward import EXACT, GROUNDED, make_rewards

VARIANTS = ("full", "rl", "rl_safeedit", *LEVELS)


def source(
    variant: str, folder: Path, train: str = "llavaguard", pairs_train: str = "safeedit_train"
) -> Dataset:
    """Read the data set that a variant is made from, in the folder of a run with 01_data.

    Parameters
    ----------
    train, pairs_train : names of the sets in these roles

    Raises
    ------
    InputError
        For an unknown variant, and if the run does not have the data set.
    """
    need_known("variant", variant, VARIANTS)
    return store.read(train if variant in ("full", "rl") else pairs_train, folder / "data")


def rows_of(
    variant: str, folder: Path, train: str = "llavaguard", pairs_train: str = "safeedit_train",
    policy_form: str = "brief", prompt: str = "reason", system: str = "", exact: bool = False,
) -> Dataset:  # fmt: skip
    """Make the prompts of a variant from the data sets in the folder of a run with 01_data.

    ``full`` and ``rl`` have the same prompts and differ in the model that they start from.
    ``rl_safeedit`` has edited pairs under all five levels, ``L1`` to ``L5`` under one.

    Parameters
    ----------
    train, pairs_train : names of the sets in these roles
    policy_form, prompt : as in ``trainer.request``
    system : a name in ``prompts.SYSTEM``; empty keeps that of the model's chat template
    exact : whether each prompt has its policy as JSON (``rules``) and, of drawn pictures, ``tags``:
        what the reward ``grounded`` reads
    """
    way = policy_form, prompt, system, exact
    rows = source(variant, folder, train, pairs_train)
    if variant in ("full", "rl"):
        return conditioned(rows, *way)
    levels = load_all(LEVELS if variant == "rl_safeedit" else [variant])
    return under(rows, levels, *way)


def conditioned(
    rows: Dataset, policy_form: str = "brief", prompt: str = "reason", system: str = "",
    exact: bool = False,
) -> Dataset:  # fmt: skip
    """Make one prompt of each row of a data set whose rows bring their own policy and label.

    Two of one picture and opposite labels come one after the other, as in ``training_cases``.
    """
    ids = list(rows["id"])
    cases = [(case, ids[case.place]) for case in training_cases(rows)]
    return _prompts(rows, cases, policy_form, prompt, system, exact)


def under(
    rows: Dataset, policies: list[Policy], policy_form: str = "brief", prompt: str = "reason",
    system: str = "", exact: bool = False,
) -> Dataset:  # fmt: skip
    """Make a prompt of every picture under each policy that it is labelled under."""
    ids = list(rows["id"])
    cases = [
        (case, f"{ids[case.place]}-{case.policy.name}") for case in training_cases(rows, policies)
    ]
    return _prompts(rows, cases, policy_form, prompt, system, exact)


def _prompts(
    rows: Dataset, cases: list[tuple[Case, str]], policy_form: str, prompt: str, system: str,
    exact: bool,
) -> Dataset:  # fmt: skip
    """Make prompts of cases and their ids, with the columns that the reward reads."""
    tags = rows["tags"] if exact and store.has_tags(rows) else None
    texts = (
        {
            "prompt": prompts.turns(text, system),
            "label": case.label,
            "policy": case.policy.name,
            "id": id_,
        }
        | ({"rules": case.policy.model_dump_json(by_alias=True)} if exact else {})
        | ({"tags": tags[case.place]} if tags else {})
        for case, id_ in cases
        for text in [trainer.request(case.policy, policy_form, prompt)]
    )
    return store.beside_pictures(rows, texts, [case.place for case, _ in cases])


def shuffled(rows: Dataset, seed: int) -> Dataset:
    """Shuffle rows two by two, so that the two policies of a picture stay together.

    The last of an odd number of rows stays last. TRL's own shuffling would part the two, and would
    repeat its first order after a resume.
    """
    pairs = np.random.default_rng(seed).permutation(len(rows) // 2)
    chosen = [2 * int(pair) + k for pair in pairs for k in range(2)]
    return rows.select([*chosen, *range(len(chosen), len(rows))])


def check_start(variant: str, model: str) -> None:
    """Raise InputError for an unknown variant, and for ``full`` from the nano base model."""
    need_known("variant", variant, VARIANTS)
    if variant == "full" and model == "nano":
        raise InputError(
            "variant full continues stage 1: name in model the folder that 03_sft wrote, "
            "runs/<profile>/training/03_sft.recap/model, or choose variant rl"
        )


def need_exact(rows: Dataset, reward: str) -> None:
    """Raise InputError for a reward that reads reasons, and prompts whose exact reason is unknown.

    That is known of drawn pictures under policies with rules.
    """
    if reward != GROUNDED:
        return
    if missing := [name for name in EXACT if name not in rows.column_names]:
        raise InputError(
            f"reward {GROUNDED}: the prompts have no {missing[0]}; only drawn pictures have exact "
            "reasons: choose plain or released for others"
        )
    texts = [name for name, rules in zip(rows["policy"], rows["rules"], strict=True)
             if Policy.model_validate_json(rules, strict=False).default is None]  # fmt: skip
    if texts:
        raise InputError(f"reward {GROUNDED}: policy {texts[0]} is text alone, without rules")


def train(
    rows: Dataset, model: str, folder: Path, settings: dict, reward: str = "plain",
    parser: str = "answer", lora: dict | None = None, dtype: str = "float32",
    revision: str | None = None, max_pixels: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Optimise ``model`` on prompts in their given order, save it, and return the log.

    Beside ``folder``/model, ``folder``/completions holds every rollout. Killed and finished
    trainings are treated as by ``sft.train``.

    Parameters
    ----------
    rows : prompts as ``rows_of`` makes them
    model : "nano", a folder, or a hub id
    settings : fields of ``trl.GRPOConfig``
    reward, parser : as ``reward.make_rewards`` takes them
    lora : fields of ``peft.LoraConfig``; None trains all weights of the language model
    dtype, revision, max_pixels : as in ``trainer.prepare``

    Returns
    -------
    pandas.DataFrame
        One row per logging step.
    """
    from trl import GRPOTrainer

    need_exact(rows, reward)
    config = trainer.make_config("grpo", settings, folder)
    reward_functions = make_rewards(reward, parser)
    names = {"reward": reward, "parser": parser}
    start = trainer.prepare(
        "grpo", rows, model, folder, settings, lora, dtype, revision, max_pixels, **names
    )
    if start:
        trainer.train_and_save(
            GRPOTrainer(**start, args=config, train_dataset=rows, reward_funcs=reward_functions)
        )
    return trainer.read_log(folder)


def rollouts(folder: Path) -> pd.DataFrame:
    """Return every stored rollout of a training, one row per completion.

    Columns: step, sample, policy, label, reply, verdict, reward, advantage. The completions of one
    sample at one step are a group. A reward of several parts is their sum, and each part has a
    column too, such as thing_reward.
    """
    files = sorted((folder / "completions").glob("*.parquet"))
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    table["reply"] = [completion[0]["content"] for completion in table.pop("completion")]
    parts = [name for name in table if name.endswith("_reward")]
    table = table.assign(reward=table[parts].sum(axis="columns")).drop(columns="prompt")
    return table if len(parts) > 1 else table.drop(columns=parts)


def groups(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group: step, sample, mean, std and number of rewards, and ``dead``.

    A dead group has equal rewards, part by part: all its advantages are 0.
    """
    parts = [name for name in rollouts if name.endswith("_reward")]
    grouped = rollouts.groupby(["step", "sample"], sort=False)
    table = grouped["reward"].agg(["mean", "std", "size"])
    dead = (grouped[[*parts, "reward"]].std() < 1e-6).all(axis="columns")
    return table.assign(dead=dead).reset_index()
