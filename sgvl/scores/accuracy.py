"""Shares of right answers, in percent, with Wilson intervals."""

import numpy as np
import pandas as pd

from sgvl.scores.intervals import wilson


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent by judge and task.

    ``frame`` has the columns judge, task, category, right and unparseable.

    ``micro`` is over all questions, as the paper prints it, with its Wilson 95 % interval;
    ``macro`` over categories, as BLINK's authors do. An unparseable reply is wrong in both, and
    ``unparseable`` is its share.
    """
    rows = []
    for (judge, task), own in frame.groupby(["judge", "task"], sort=False):
        low, high = wilson(own["right"].mean(), len(own))
        macro = own.groupby("category")["right"].mean().mean()
        shares = {"micro": own["right"].mean(), "low": low, "high": high}
        shares |= {"macro": macro, "unparseable": own["unparseable"].mean()}
        named = {"judge": judge, "task": task, "n": len(own)}
        rows.append(named | {name: 100 * float(share) for name, share in shares.items()})
    columns = ["judge", "task", "n", "micro", "low", "high", "macro", "unparseable"]
    return pd.DataFrame(rows, columns=columns)


def shares(answers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Percent right for each value of ``by``, with Wilson 95 % intervals: value, low, high, n."""
    found = answers.groupby(by, sort=False)["right"].agg(["mean", "size"])
    rows = [percent(row["mean"], int(row["size"])) for _, row in found.iterrows()]
    return pd.DataFrame(rows, index=found.index)


def overall(answers: pd.DataFrame) -> pd.Series:
    """The plain mean over tasks, as the paper's General is over four benchmarks, in percent.

    The interval joins those of the tasks, which are independent (Zou and Donner 2008, Statistics
    in Medicine 27:1693): value, low, high, n.
    """
    tasks = shares(answers, "task")
    value = tasks["value"].mean()
    below, above = tasks["value"] - tasks["low"], tasks["high"] - tasks["value"]
    low, high = (float(np.sqrt((side**2).sum())) / len(tasks) for side in (below, above))
    return pd.Series({"value": value, "low": value - low, "high": value + high, "n": len(answers)})


def percent(share: float, n: int) -> dict:
    """A share of ``n`` cases as percent with its Wilson 95 % interval."""
    low, high = 100 * wilson(share, n)
    return {"value": float(100 * share), "low": float(low), "high": float(high), "n": int(n)}
