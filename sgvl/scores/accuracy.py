"""Shares of right answers, in percent, with Wilson intervals."""

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
        micro = percent(own["right"].mean(), len(own))
        macro = 100 * float(own.groupby("category")["right"].mean().mean())
        unparseable = 100 * float(own["unparseable"].mean())
        row = {"judge": judge, "task": task, "micro": micro.pop("value"), **micro}
        rows.append(row | {"macro": macro, "unparseable": unparseable})
    columns = ["judge", "task", "n", "micro", "low", "high", "macro", "unparseable"]
    return pd.DataFrame(rows, columns=columns)


def shares(answers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Percent right for each value of ``by``, with Wilson 95 % intervals: value, low, high, n."""
    found = answers.groupby(by, sort=False)["right"].agg(["mean", "size"])
    rows = [percent(row["mean"], int(row["size"])) for _, row in found.iterrows()]
    return pd.DataFrame(rows, index=found.index)


def percent(share: float, n: int) -> dict:
    """A share of ``n`` cases as percent with its Wilson 95 % interval."""
    low, high = 100 * wilson(share, n)
    return {"value": float(100 * share), "low": float(low), "high": float(high), "n": int(n)}
