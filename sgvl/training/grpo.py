"""Stage 2: group-relative policy optimisation with TRL's ``GRPOTrainer`` and a verifiable reward.

A prompt is a picture under a policy; the reward reads the verdict and compares it with the label
that the policy gives. Each picture comes under policies of opposite label, one after the other, so
that neither always-safe nor always-unsafe pays.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import need_known
from sgvl.data import store
from sgvl.policies.policy import LEVELS, Policy, load_all
from sgvl.text import prompts
from sgvl.training import trainer
from sgvl.training.reward import make_reward


def prompt_row(image, policy: Policy, label: str, id: str) -> dict:
    """One prompt with what the reward needs to know: label, policy, id."""
    text = prompts.judge_prompt(policy.render("brief"))
    return {"image": image, "prompt": [{"role": "user", "content": text}],
            "label": label, "policy": policy.name, "id": id}  # fmt: skip


VARIANTS = ("full", "rl", "rl_safeedit", *LEVELS)


def rows_of(variant: str, folder: Path) -> Dataset:
    """The prompts of a variant, from the folder of a run that has 01_data.

    ``full`` and ``rl`` share theirs, the LlavaGuard-like set, and differ in the model they start
    from. ``rl_safeedit``: edited pairs under all five levels; ``L1`` .. ``L5``: under that one.
    """
    need_known("variant", variant, VARIANTS)
    if variant in ("full", "rl"):
        return conditioned(store.read("llavaguard", folder / "data"))
    levels = load_all(LEVELS if variant == "rl_safeedit" else [variant])
    return under(store.read("safeedit_train", folder / "data"), levels)


def conditioned(rows: Dataset) -> Dataset:
    """Rows that bring their own policy and label; pictures with opposite labels stay together."""
    known = zip(store.without_decoding(rows), store.policies(rows), store.labels(rows), strict=True)
    return store.from_rows(
        prompt_row(row["image"], policy, label, row["id"]) for row, policy, label in known
    )


def under(rows: Dataset, policies: list[Policy]) -> Dataset:
    """Every drawn picture under each of the policies, labelled exactly."""
    return store.from_rows(
        prompt_row(row["image"], p, p.label(row["tags"]).label, f"{row['id']}-{p.name}")
        for row in store.without_decoding(rows)
        for p in policies
    )


def shuffled(rows: Dataset, seed: int) -> Dataset:
    """Shuffle rows two by two, so that the two policies of a picture stay together.

    TRL's own shuffling would part them, and would repeat its first order after a resume.
    """
    pairs = np.random.default_rng(seed).permutation(len(rows) // 2)
    return rows.select([2 * int(pair) + k for pair in pairs for k in range(2)])


def train(
    rows: Dataset, model: str, folder: Path, settings: dict, reward: str = "plain",
    parser: str = "answer", lora: dict | None = None, dtype: str = "float32",
) -> pd.DataFrame:  # fmt: skip
    """Optimise ``model`` on prompts in their given order, save it, and return the log.

    Beside ``folder``/model, ``folder``/completions holds every rollout. Killed and finished
    trainings are treated as by ``sft.train``.

    Parameters
    ----------
    rows : prompts as ``prompt_row`` makes them
    model : "nano", a folder, or a hub id
    settings : fields of ``trl.GRPOConfig``
    reward, parser : names in ``reward.REWARDS`` and ``sgvl.text.verdict.PARSERS``
    lora : fields of ``peft.LoraConfig``; None trains all weights of the language model
    dtype : of the weights in training

    Returns
    -------
    pandas.DataFrame
        One row per logging step.
    """
    from trl import GRPOTrainer

    config = trainer.make_config("grpo", settings, folder)
    reward_function = make_reward(reward, parser)
    names = {"reward": reward, "parser": parser}
    start = trainer.prepare("grpo", rows, model, folder, settings, lora, dtype, **names)
    if start:
        trainer.train_and_save(
            GRPOTrainer(**start, args=config, train_dataset=rows, reward_funcs=reward_function)
        )
    return trainer.read_log(folder)


def rollouts(folder: Path) -> pd.DataFrame:
    """Every stored rollout of a run, one row a completion.

    Columns: step, sample, policy, label, reply, verdict, reward, advantage. The completions of one
    sample at one step form a group.
    """
    files = sorted((folder / "completions").glob("*.parquet"))
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    table["reply"] = [completion[0]["content"] for completion in table.pop("completion")]
    return table.drop(columns="prompt").rename(columns={"verdict_reward": "reward"})


def groups(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Groups by step and sample, with the spread of their rewards; a dead one has none."""
    by = rollouts.groupby(["step", "sample"], sort=False)["reward"]
    found = by.agg(["mean", "std", "size"]).reset_index()
    return found.assign(dead=found["std"] < 1e-6)
