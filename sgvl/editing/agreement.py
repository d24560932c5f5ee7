"""How far annotators agree under each policy: percent, Krippendorff's alpha, and Gwet's AC1.

All three are 1 - observed / expected disagreement. *Percent* expects 1 and so forgives no chance.
*Alpha* expects what the votes would give if they were dealt out at random (Krippendorff 2011,
Computing Krippendorff's alpha-reliability): where all votes are of one class, that is 0 and alpha
is undefined; where nearly all are, a few dissenting votes make it low however rare they are. *AC1*
expects less the more one class prevails (Gwet 2008, Br J Math Stat Psychol 61:29), and is defined
there, too. So a level under which nearly everything is safe needs both.

The unit of the intervals is the pair, as in ``sgvl.scores.intervals``. An unsure vote is none:
its share is given beside the coefficients.
"""

import numpy as np
import pandas as pd

from sgvl.common.errors import Unavailable
from sgvl.editing.annotation import UNSURE
from sgvl.scores import intervals
from sgvl.text.verdict import SAFE, UNSAFE

COEFFICIENTS = ("percent", "alpha", "ac1")
ONE_CLASS = "undefined: all votes are of one class"


def agreement(
    votes: pd.DataFrame, cases: pd.DataFrame, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure the agreement under each policy, and pooled over all.

    Parameters
    ----------
    votes, cases : as in ``sgvl.editing.annotation``
    resamples, seed : of the bootstrap over pairs

    Returns
    -------
    pandas.DataFrame
        One row per policy and coefficient: policy, coefficient, annotators, n (cases with two votes
        or more), unsafe and unsure (percent of votes), value, low, high (1 is full agreement), and
        note, which says where alpha is undefined.

    Raises
    ------
    Unavailable
        If there is no vote on any case.
    """
    table = votes.merge(cases[["id", "pair", "policy"]], on=["id", "policy"])
    if table.empty:
        raise Unavailable(
            "no votes on these pictures and policies; annotate some with 01c, and run this unit "
            "again with --force"
        )
    rows = []
    policies = [name for name in cases["policy"].unique() if (table["policy"] == name).any()]
    for name in [*policies, "pooled"]:
        own = table if name == "pooled" else table[table["policy"] == name]
        counts = own.groupby(["pair", "id", "policy", "verdict"]).size().unstack(fill_value=0)
        counts = counts.reindex(columns=[SAFE, UNSAFE], fill_value=0)
        total = counts.to_numpy().sum()
        about = {
            "policy": name,
            "annotators": own["annotator"].nunique(),
            "n": int((counts.sum(axis=1) > 1).sum()),
            "unsafe": 100 * counts[UNSAFE].sum() / total if total else np.nan,
            "unsure": 100 * (own["verdict"] == UNSURE).mean(),
        }
        pairs = counts.index.get_level_values("pair").to_numpy()
        found = coefficients(counts.to_numpy(), pairs, resamples, seed)
        for coefficient, interval in found.items():
            undefined = coefficient == "alpha" and about["n"] and np.isnan(interval.value)
            value = interval._asdict() | {"note": ONE_CLASS if undefined else ""}
            rows.append({"coefficient": coefficient} | about | value)
    head = ["policy", "coefficient"]
    frame = pd.DataFrame(rows)
    return frame[head + [name for name in frame if name not in head]]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Arrange the agreement for print: a row per policy, each coefficient with its interval."""
    text = [
        "undefined" if row.note else with_interval(row.value, row.low, row.high, 2)
        for row in table.itertuples()
    ]
    about = ["policy", "annotators", "n", "unsafe", "unsure"]
    wide = table.assign(text=text).pivot_table(
        index=about, columns="coefficient", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index().rename_axis(columns=None).round({"unsafe": 1, "unsure": 1})


def with_interval(value: float, low: float, high: float, digits: int) -> str:
    """Return a value with its interval as text."""
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def coefficients(
    counts: np.ndarray, pairs: np.ndarray, resamples: int = 1000, seed: int = 0
) -> dict[str, intervals.Interval]:
    """Return the coefficients of votes with their intervals, as fractions; NaN where undefined.

    Parameters
    ----------
    counts : (cases, classes), the votes for each class
    pairs : (cases,), what is drawn together in the bootstrap
    """
    of_cases = _sums(np.asarray(counts, float))
    codes, names = pd.factorize(np.asarray(pairs))
    sums = np.zeros((len(names), of_cases.shape[1]))
    np.add.at(sums, codes, of_cases)
    weights = intervals.resample(len(names), resamples, seed)
    total = sums.sum(axis=0)
    found = {}
    for name in COEFFICIENTS:
        value, draws, without = (_value(x, name) for x in (total, weights @ sums, total - sums))
        apart, finite = np.zeros(2), draws[np.isfinite(draws)]
        if finite.size and np.ptp(finite) < 1e-9:
            # Wilson's bounds of the observed agreement, with the pair as its unit.
            observed, expected = _disagreement(total, name)
            bounds = 1 - (1 - intervals.wilson(1 - observed, len(names))) / expected
            apart = abs(bounds - value)
        bounds = intervals.Bootstrap(value, draws, without, apart).bounds()
        found[name] = intervals.Interval(float(value), *map(float, bounds))
    return found


def _sums(counts: np.ndarray) -> np.ndarray:
    """Return for each case what the coefficients need the sums of: (cases, 4 + 2 classes)."""
    votes = counts.sum(axis=1, keepdims=True)
    both = votes > 1
    same = both * (counts * (counts - 1)).sum(axis=1, keepdims=True)  # ordered, of one class
    coincident = same / np.maximum(votes - 1, 1)
    shares = counts / np.maximum(votes, 1)
    agreeing = coincident / np.maximum(votes, 1)
    return np.hstack([both, agreeing, coincident, votes > 0, both * counts, shares])


def _disagreement(sums: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the observed and the expected disagreement from sums (..., 4 + 2 classes)."""
    classes = (sums.shape[-1] - 4) // 2
    both, agreeing, coincident, rated = np.moveaxis(sums[..., :4], -1, 0)
    values, shares = sums[..., 4 : 4 + classes], sums[..., 4 + classes :]
    with np.errstate(invalid="ignore", divide="ignore"):
        if name == "alpha":
            n = values.sum(axis=-1)
            chance = (n**2 - (values**2).sum(axis=-1)) / (n * (n - 1))
            return 1 - coincident / n, np.where(chance > 0, chance, np.nan)
        shares = shares / rated[..., None]
        chance = (shares * (1 - shares)).sum(axis=-1) / (classes - 1)
        return 1 - agreeing / both, np.ones_like(both) if name == "percent" else 1 - chance


def _value(sums: np.ndarray, name: str) -> np.ndarray:
    observed, expected = _disagreement(sums, name)
    return 1 - observed / expected
