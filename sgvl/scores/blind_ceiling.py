"""The blind ceiling: the best score that any judge can reach without reading the policy.

A judge that never reads the policy gives a picture one verdict, whatever the policy: it flags a
fixed set of pictures as unsafe. Among all such sets, two are found here from the labels: the best
by the pooled score and the best by the macro score. A judge that beats them changed its verdicts
with the policy; one that does not may have done so, but its score does not show it.

*Pooled.* F1 is 2 TP / (2 TP + FP + FN), so the best set takes pictures in the order of their share
of unsafe cases, up to some point (Lipton et al. 2014, arXiv 1402.1892).

*Macro.* The mean of several F1 has no such order. Pictures with the same labels under the same
policies are alike, so only their number counts. With D = flags + positives of a policy, its F1 is
2 TP / D; over a range of D it lies below two planes (McCormick's), so a linear program bounds the
mean over all sets in that range. Ranges are halved, best bound first, until no set can be better
than the best one found by more than ``TOLERANCE``.
"""

import heapq
from itertools import count

import numpy as np
import pandas as pd

from sgvl.policies.policy import AVERAGES
from sgvl.scores.metrics import headline_metric
from sgvl.text.verdict import SAFE, UNSAFE

TOLERANCE = 5e-4  # of the macro score, as a fraction: 0.05 points
NAMES = {f"blind_{average}": f"blind, best {average}" for average in AVERAGES}


def best_flags(cases: pd.DataFrame, average: str) -> set[str]:
    """Return the ids of the pictures that the best judge flags that reads no policy.

    Parameters
    ----------
    cases : one row a picture and policy: id, policy, label
    average : "macro" or "pooled"
    """
    cases = cases.drop_duplicates(["id", "policy"])
    unsafe = cases["label"] == UNSAFE
    return _best_pooled(cases, unsafe) if average == "pooled" else _best_macro(cases, unsafe)


def _best_pooled(cases: pd.DataFrame, unsafe: pd.Series) -> set[str]:
    if headline_metric(cases) == "accuracy":
        return set(cases["id"]) if unsafe.all() else set()
    shares = unsafe.groupby(cases["id"]).agg(["sum", "size"])
    order = shares.loc[(shares["sum"] / shares["size"]).sort_values(ascending=False).index]
    f1 = 2 * order["sum"].cumsum() / (order["size"].cumsum() + unsafe.sum())
    return set(order.index[: int(np.argmax(f1)) + 1])


def _best_macro(cases: pd.DataFrame, unsafe: pd.Series) -> set[str]:
    values = cases.assign(value=np.where(unsafe, 1, -1))
    pictures = values.pivot(index="id", columns="policy", values="value").fillna(0).astype(int)
    kinds, sizes = np.unique(pictures.to_numpy(), axis=0, return_counts=True)
    chosen = dict(zip(map(tuple, kinds), _best_counts(kinds, sizes), strict=True))
    flagged = set()
    for id_, kind in zip(pictures.index, map(tuple, pictures.to_numpy()), strict=True):
        if chosen[kind]:
            chosen[kind] -= 1
            flagged.add(id_)
    return flagged


def _best_counts(kinds: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return how many pictures of each kind to flag.

    Parameters
    ----------
    kinds : (kinds, policies): 1 for unsafe, -1 for safe, 0 for a policy it does not come under
    sizes : (kinds,): pictures of each kind
    """
    problem = _Problem(kinds, sizes)
    best, number = np.zeros(len(sizes)), count()
    found = problem.score(best)
    open_ranges = [(-np.inf, next(number), problem.positives, problem.positives + problem.n)]
    while open_ranges and -open_ranges[0][0] > found + TOLERANCE:
        _, _, low, high = heapq.heappop(open_ranges)
        bound, flags, ratios = problem.bound(low, high, found)
        for whole in (np.floor(flags + 1e-9), np.round(flags)):
            if problem.score(whole) > found:
                best, found = whole, problem.score(whole)
        if bound <= found + TOLERANCE:
            continue
        tp, d = problem.counts(flags)
        k = int(np.argmax(np.where(high - low > 1e-6, ratios - 2 * tp / d, -1)))
        inside = low[k] + 1e-6 < d[k] < high[k] - 1e-6
        middle = d[k] if inside else (low[k] + high[k]) / 2
        at = np.arange(len(low)) == k
        for side in ((low, np.where(at, middle, high)), (np.where(at, middle, low), high)):
            heapq.heappush(open_ranges, (-bound, next(number), *side))
    return best.astype(int)


class _Problem:
    """The macro score as a function of how many pictures of each kind are flagged."""

    def __init__(self, kinds: np.ndarray, sizes: np.ndarray):
        unsafe, asked = (kinds > 0).astype(float), (kinds != 0).astype(float)
        positives, n = sizes @ unsafe, sizes @ asked
        f1 = (positives > 0) & (positives < n)  # of the others, accuracy: a linear function
        self.sizes, self.policies = sizes, kinds.shape[1]
        self.unsafe, self.asked = unsafe[:, f1], asked[:, f1]
        self.positives, self.n = positives[f1], n[f1]
        self.weights = (2 * unsafe - asked)[:, ~f1] @ (1 / n[~f1])
        self.constant = float((1 - positives[~f1] / n[~f1]).sum())
        # Flags move to a kind that is nowhere worse, so it is flagged whole before the other one.
        better = (kinds[:, None] >= kinds[None]).all(axis=2)
        self.order = np.array(
            [
                np.eye(len(sizes))[b] / sizes[b] - np.eye(len(sizes))[a] / sizes[a]
                for a, b in np.argwhere(better & ~better.T)
            ]
        ).reshape(-1, len(sizes))

    def counts(self, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return TP and D of each policy with an F1."""
        return flags @ self.unsafe, flags @ self.asked + self.positives

    def score(self, flags: np.ndarray) -> float:
        tp, d = self.counts(flags)
        return float((2 * tp / d).sum() + flags @ self.weights + self.constant) / self.policies

    def bound(self, low: np.ndarray, high: np.ndarray, found: float):
        """Bound the score for D between low and high: the bound, and the flags and F1 reaching it.

        Only scores above ``found`` matter, so each F1 is at least what the others leave.
        """
        from scipy.optimize import linprog

        p, own = self.positives, np.eye(len(low))
        top = np.minimum(1, 2 * np.minimum(p / low, 1 - p / high))
        linear = np.maximum(self.weights, 0) @ self.sizes + self.constant
        least = np.clip(found * self.policies - linear - top.sum() + top, 0, top)
        tp, flagged = 2 * self.unsafe.T, self.asked.T
        rows = [
            # F1 low <= 2 TP - least (D - low), and F1 high <= 2 TP + top (high - D)
            np.hstack([least[:, None] * flagged - tp, own * low[:, None]]),
            np.hstack([top[:, None] * flagged - tp, own * high[:, None]]),
            np.hstack([flagged, 0 * own]),
            np.hstack([-flagged, 0 * own]),
            np.hstack([self.order, np.zeros((len(self.order), len(low)))]),
        ]
        limits = [least * (low - p), top * (high - p), high - p, p - low, np.zeros(len(self.order))]
        bounds = [*((0, size) for size in self.sizes), *zip(least, top, strict=True)]
        goal = -np.concatenate([self.weights, np.ones(len(low))])
        solved = linprog(goal, np.vstack(rows), np.concatenate(limits), bounds=bounds)
        if solved.x is None:  # no set of flags has such a D, or a score above what was found
            return -np.inf, np.zeros(len(self.sizes)), top
        kinds = len(self.sizes)
        return (self.constant - solved.fun) / self.policies, solved.x[:kinds], solved.x[kinds:]


def blind_judges(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of the two best judges that read no policy, ids as in ``NAMES``.

    ``answers`` is a judgement frame; only its cases and their labels are read.
    """
    cases = answers.drop_duplicates(["id", "policy"])[["id", "pair", "policy", "label"]]
    parts = []
    for judge, average in zip(NAMES, AVERAGES, strict=True):
        flagged = cases["id"].isin(best_flags(cases, average))
        parts.append(cases.assign(judge=judge, verdict=np.where(flagged, UNSAFE, SAFE)))
    return pd.concat(parts, ignore_index=True)
