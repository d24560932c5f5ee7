"""Shares of right answers, in percent, with 95 % Wilson intervals."""

import numpy as np
import pandas as pd

from sgvl.scores.intervals import wilson


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each judge on each task, in percent.

    Parameters
    ----------
    frame : one row per answer, with judge, task, category, right and unparseable

    Returns
    -------
    pandas.DataFrame
        Columns judge, task, n; micro, low, high: over all questions, as the paper prints it; macro:
        the mean over categories, as BLINK's authors print it; unparseable: the share of replies
        that no answer could be parsed from, which are wrong.
    """
    rows = []
    for (judge, task), own in frame.groupby(["judge", "task"], sort=False):
        micro = percent(own["right"].mean(), len(own))
        macro = 100 * float(own.groupby("category")["right"].mean().mean())
        unparseable = 100 * float(own["unparseable"].mean())
        row = {"judge": judge, "task": task, "micro": micro.pop("value"), **micro}
        rows.append(row | {"macro": macro, "unparseable": unparseable})
    columns = ["judge", "task", "n", "micro", "low", "high", "macro", "unparseable"]
    return pd.DataFrame(rows, columns=columns)


def shares(answers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the percent right for each value of the column ``by``: value, low, high, n."""
    right = answers.groupby(by, sort=False)["right"].agg(["mean", "size"])
    rows = [percent(row["mean"], int(row["size"])) for _, row in right.iterrows()]
    return pd.DataFrame(rows, index=right.index)


def overall(answers: pd.DataFrame) -> pd.Series:
    """Return the plain mean over tasks, as the paper's General is over four benchmarks, in percent.

    Index: value, low, high, n.
    """
    return pd.Series(mean(shares(answers, "task")))


def mean(rows: pd.DataFrame) -> dict:
    """Return the plain mean of scores with its interval: value, low, high, n.

    The interval joins those of the scores as if they were independent (Zou and Donner 2008,
    Statistics in Medicine 27:1693). Of scores of which one is NaN, the mean is NaN.
    """
    value = rows["value"].mean(skipna=False)
    sides = rows["value"] - rows["low"], rows["high"] - rows["value"]
    low, high = (float(np.sqrt((side**2).sum(skipna=False))) / len(rows) for side in sides)
    return {"value": value, "low": value - low, "high": value + high, "n": int(rows["n"].sum())}


def percent(share: float, n: int) -> dict:
    """Return a share of ``n`` cases in percent with its interval: value, low, high, n."""
    low, high = 100 * wilson(share, n)
    return {"value": float(100 * share), "low": float(low), "high": float(high), "n": int(n)}
