"""Find the counts that give a printed percentage.

A printed value stands for every number that rounds to it, both ends included, so that "half up" and
"half to even" are covered. All comparisons are made in whole numbers, never in floats.

F1 of the unsafe class is 2 tp / (2 tp + errors), where errors = fp + fn. True negatives play no
part, so counts are kept as pairs (tp, errors). Where nothing is unsafe and nothing is flagged, F1
counts as 0, as in scikit-learn.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np


def rounds_to(numerator, denominator, value, decimals) -> np.ndarray:
    """Return True where 100 numerator / denominator rounds to ``value`` at so many decimals.

    Arguments broadcast; 0 / 0 counts as 0.
    """
    unit = 10 ** np.asarray(decimals)
    units = np.rint(np.asarray(value, float) * unit).astype(int)
    near = 2 * abs(100 * unit * numerator - units * denominator) <= denominator
    return near & ((np.asarray(denominator) > 0) | (units == 0))


def same(a, b, decimals) -> np.ndarray:
    """Return True where two printed values can be one number; ``decimals``: of the coarser one.

    >>> bool(same(84.57, 84.6, 1)), bool(same(84.57, 84.58, 2))
    (True, False)
    """
    return np.rint(2 * 10**6 * abs(np.subtract(a, b))) <= 10**6 / 10.0 ** np.asarray(decimals)


def possible_n(values, decimals, max_n: int) -> np.ndarray:
    """Return every n up to ``max_n`` for which each value (percent) is some k/n, rounded.

    A quarter needs a multiple of four, a third needs one of three:

    >>> possible_n([25, 33.3], 1, 40).tolist()
    [12, 24, 36]
    """
    n = np.arange(1, max_n + 1)
    values, decimals = np.reshape(values, (-1, 1)), np.reshape(decimals, (-1, 1))
    k = np.rint(values * n / 100).astype(int)
    return n[rounds_to(k, n, values, decimals).all(axis=0)]


def chance(n: int, values, decimals) -> float:
    """Return the probability that as many random percentages as ``values`` are all some k/n.

    0 and 100, which are k/n for every n, do not count, and equal values count once.
    """
    prints = {(float(v), int(d)) for v, d in np.broadcast(values, decimals) if 0 < v < 100}
    return float(np.prod([min(1, n / (100 * 10**d)) for _, d in prints]))


def possible_f1(value: float, decimals: int, max_n: int) -> np.ndarray:
    """Return every (tp, errors) with tp + errors <= max_n whose F1 (percent) prints so: (k, 2).

    >>> possible_f1(80.0, 1, 9).tolist()
    [[2, 1], [4, 2], [6, 3]]
    """
    tp, errors = np.ogrid[: max_n + 1, : max_n + 1]
    fits = rounds_to(2 * tp, 2 * tp + errors, value, decimals) & (tp + errors <= max_n)
    return np.argwhere(fits)


def allowed(candidates: np.ndarray, max_n: int) -> np.ndarray:
    """Return the grid [n, positives] of test sets on which some (tp, errors) is possible.

    Each positive is a tp or a fn, so tp <= positives <= tp + errors <= n. Hence F1 alone bounds n
    from below and never from above.
    """
    least = np.full(max_n + 1, max_n + 1)  # the smallest n, by positives
    for tp, errors in candidates:
        least[tp : tp + errors + 1] = np.minimum(least[tp : tp + errors + 1], tp + errors)
    return np.arange(max_n + 1)[:, None] >= least


def supported(candidates: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the (tp, errors) that are possible on some test set of the grid."""
    larger = np.logical_or.accumulate(grid[::-1])[::-1]  # [m, positives]: some n >= m
    below = np.pad(larger.cumsum(axis=1), ((0, 0), (1, 0)))
    candidates = candidates[candidates.sum(axis=1) < len(grid)]
    tp, most = candidates[:, 0], candidates.sum(axis=1)
    return candidates[below[most, most + 1] > below[most, tp]]


def pooled(parts: list[np.ndarray], overall: float, decimals: int) -> np.ndarray:
    """Return which choices of one (tp, errors) per part print as this F1 over all rows together.

    The result is boolean, with one axis per part.
    """
    tp = reduce(np.add.outer, [part[:, 0] for part in parts])
    errors = reduce(np.add.outer, [part[:, 1] for part in parts])
    return rounds_to(2 * tp, 2 * tp + errors, overall, decimals)


class Average(NamedTuple):
    """Way in which an overall value can come from its parts: mean, pooled F1, both or neither."""

    kind: str  # "mean", "pooled", "mean or pooled", "neither"; without counts also "not the mean"
    mean: float  # of the parts, percent
    gap: float  # overall - mean, points


def averaging(
    values, overall: float, decimals: int, parts: list[np.ndarray] | None = None
) -> Average:
    """Decide if ``overall`` is the mean of ``values`` or the pooled F1 of ``parts`` (percent).

    A mean may be off by half a unit of the last place for its own rounding and by half for that of
    the values. Without counts, "not the mean" leaves the pooled F1 open, and "neither" excludes it:
    a pooled F1 is a mean weighted by 2 tp + errors, so it lies between the lowest and the highest
    value.

    >>> [averaging([50, 100], overall, 0).kind for overall in (75, 60, 40)]
    ['mean', 'not the mean', 'neither']
    """
    values, unit = np.asarray(values, float), 10**decimals
    mean = float(values.mean())
    excess = len(values) * np.rint(overall * unit) - np.rint(values * unit).sum()
    kinds = ["mean"] if abs(excess) <= len(values) else []
    if parts is not None and pooled(parts, overall, decimals).any():
        kinds += ["pooled"]
    if parts is None and not kinds and values.min() <= overall <= values.max():
        kinds = ["not the mean"]
    return Average(" or ".join(kinds) or "neither", mean, overall - mean)


def reach(parts: list[np.ndarray], values, decimals: int) -> float:
    """Return the share of the printable values between lowest and highest part that pooling gives.

    This is the probability that a value printed at random would pass for a pooled F1.
    """
    tp = reduce(np.add.outer, [part[:, 0] for part in parts])
    errors = reduce(np.add.outer, [part[:, 1] for part in parts])
    unit = 10**decimals
    reached = np.unique(np.rint(200 * unit * tp / np.maximum(2 * tp + errors, 1)))
    return min(1.0, len(reached) / ((max(values) - min(values)) * unit + 1))
