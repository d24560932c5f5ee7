"""Tables 2 to 5 and Figure 6 from stored answers; nothing here asks a judge.

A judge is found by its id. ``safety`` and ``general`` are the two sides that Tables 4 and 5 and
Figure 6 set against each other.
"""

from collections.abc import Sequence

import pandas as pd

from sgvl.common.errors import InputError, nearest
from sgvl.experiments.benchmark_files import Panel
from sgvl.scores import accuracy
from sgvl.scores.metrics import score_table

# What each judge of Table 5 was trained with.
PARTS = {"base": "", "no_recap": "", "sft": "recap", "full": "recap, RL"}
BOUNDS = ["value", "low", "high"]


def choose(panel: Panel, ids: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the frames of these judges alone, judges in the order given.

    A judge that could not be asked is passed over. Raises InputError for an id that no judge of the
    panel has, with the nearest one.
    """
    known = [*panel.judges["judge"], *panel.not_asked["judge"]]
    if unknown := [id for id in ids if id not in known]:
        raise InputError(f"no judge {id!r} was asked; {nearest(id, known)}" for id in unknown)
    order = {id: k for k, id in enumerate(ids)}
    frames = {}
    for name, frame in panel.frames.items():
        own = frame[frame["judge"].isin(ids)]
        frames[name] = own.sort_values("judge", key=lambda c: c.map(order), kind="stable")
    return frames


def safety_scores(
    frames: dict[str, pd.DataFrame], resamples: int = 2000, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Score the three safety sets; each table as ``score_table`` makes it, by set name.

    The table of a set about which nobody was asked has no rows.
    """
    names = {"UnsafeBench": "content", "LlavaGuard": "own", "SafeEditBench": "levels"}
    scored = {
        title: score_table(frames[name], resamples=resamples, seed=seed)
        for title, name in names.items()
        if len(frames[name])
    }
    none = pd.DataFrame(columns=next(iter(scored.values())).columns)
    return {title: scored.get(title, none) for title in names}


def overall(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row a judge and safety set: judge, set, n, value, low, high (percent).

    F1 over all rows for UnsafeBench and LlavaGuard, the mean over levels for SafeEditBench.
    """
    average = {"SafeEditBench": "macro"}
    rows = [
        table[table["policy"] == average.get(name, "pooled")].assign(set=name)
        for name, table in scores.items()
    ]
    return pd.concat(rows)[["judge", "set", "n", *BOUNDS]]


def table4(safety: pd.DataFrame, general: pd.DataFrame) -> pd.DataFrame:
    """Join safety sets and general tasks: judge, set, n, value, low, high (percent).

    ``safety`` is what ``overall`` returned, ``general`` what ``accuracy.scores`` did (micro).
    """
    tasks = general.rename(columns={"task": "set", "micro": "value"})
    return pd.concat([safety, tasks[safety.columns]], ignore_index=True)


def table5(safety: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return UnsafeBench beside general ability for the judges that differ by one part.

    ``answers`` is the frame ``general``. Columns: set, judge, value, low, high, n, parts.
    """
    sides = {
        "UnsafeBench": safety[safety["set"] == "UnsafeBench"].set_index("judge")[[*BOUNDS, "n"]],
        "General": general_ability(answers),
    }
    table = pd.concat(sides, names=["set"]).reset_index()
    table = table[table["judge"].isin(PARTS)].reset_index(drop=True)
    return table.assign(parts=table["judge"].map(PARTS))


def figure6(safety: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the points of Figure 6: SafeEditBench (macro) against general ability, in percent.

    Columns: judge, safety, safety_low, safety_high, general, general_low, general_high, general_n.
    """
    bench = safety[safety["set"] == "SafeEditBench"].set_index("judge")[BOUNDS]
    points = bench.add_prefix("safety_").join(
        general_ability(answers).add_prefix("general_"), how="inner"
    )
    names = {"safety_value": "safety", "general_value": "general"}
    return points.rename(columns=names).reset_index()


def general_ability(answers: pd.DataFrame) -> pd.DataFrame:
    """Return each judge's mean over tasks with its interval: value, low, high, n (percent)."""
    return answers.groupby("judge", sort=False).apply(accuracy.overall)
