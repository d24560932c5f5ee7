"""The effects that claims are about: scores and differences of scores, with 95 % intervals.

Whole pairs (pictures, where a set has no pairs) are resampled. Both sides of a difference are
scored on the same resamples; sides from two sets are resampled independently.

Training seeds are a random effect. Judges that were trained several times are compared seed by seed
(a judge that was trained once is compared with every seed), and the effect is the mean over seeds.
Its uncertainty has two parts, added as squares: that of the pairs, and Student's t interval over
seeds. Resampling the seeds would give too narrow an interval: with three seeds it holds the true
value in 75 of 100 cases. With one seed, the interval does not include the variation between
training runs.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.common.errors import InputError
from sgvl.policies.concepts import PLACES
from sgvl.scores import intervals
from sgvl.scores.metrics import (
    check,
    counts,
    headline_metric,
    of_right,
    resample_pairs,
    unshared_rows,
)
from sgvl.world.questions import NUMBERS

# The answers that each drawn task of general ability asks for. One of them follows the instruction,
# even if it is wrong; a rationale instead does not. Of a published task, any option does.
EXPECTED_ANSWERS = {
    "presence": ("yes", "no"),
    "counting": NUMBERS,
    "place": PLACES,
    "choice": ("A", "B", "C", "D"),
}
UNTRAINED = "base"  # the judge that every training starts from


class Term(NamedTuple):
    """The score of one judge on one set.

    Parameters
    ----------
    frame : one of ``sgvl.experiments.benchmark_files``, or "form": the answers of ``general`` that
        are among ``EXPECTED_ANSWERS``, or name an option, count as right
    judge : id of the judge
    policies : the score is the mean over these; () pools all rows
    metric : "headline" (``sgvl.scores.metrics.headline_metric``), or a metric of
        ``sgvl.scores.intervals.bootstrap``
    """

    frame: str
    judge: str
    policies: tuple[str, ...] = ()
    metric: str = "headline"


class Effect(NamedTuple):
    """A difference in points, or one score in percent, with its 95 % interval; NaN if unknown."""

    value: float
    low: float
    high: float
    n: int  # pairs or pictures that were resampled
    note: str  # the number of training runs, or the reason why the effect is unknown


class Evidence:
    """The answers of all judges on all sets.

    Parameters
    ----------
    frames : those of ``sgvl.experiments.benchmark_files``, with or without a column ``seed``
    seed, resamples : of the bootstrap over pairs

    Raises
    ------
    InputError
        As ``sgvl.scores.metrics.check`` does; messages start with the name of the frame.
    """

    def __init__(self, frames: dict[str, pd.DataFrame], seed: int = 0, resamples: int = 2000):
        self.frames, self.seed, self.resamples = _judgements(frames), seed, resamples
        for name, frame in self.frames.items():
            for _, run in frame.groupby("seed"):
                try:
                    check(run)
                except InputError as error:
                    raise InputError(f"{name}: {problem}" for problem in error.problems) from None

    def effect(self, a: Term, b: Term | None = None) -> Effect:
        """Measure a - b, or a alone.

        The effect is unknown, and its note says why, if answers are missing, the judges answered
        different rows or share no training seed, or the labels lack a class.
        """
        terms = [a, b] if b else [a]
        if problems := [problem for problem in map(self._missing, terms) if problem]:
            return _unknown("; ".join(dict.fromkeys(problems)))
        runs = [self._runs(term) for term in terms]
        by_seed = _by_seed(runs)
        if not by_seed:
            return _unknown(f"{a.judge} and {b.judge} have no training seed in common")
        same_set = b and (a.frame, a.policies) == (b.frame, b.policies)
        if same_set and any(len(unshared_rows(*sides)) for sides in by_seed):
            return _unknown(f"{a.judge} and {b.judge} answered different rows of {a.frame}")
        pairs, weights = self._resample(terms, runs)
        effects = []
        for sides in by_seed:
            scores = [_score(*side, pairs, weights) for side in zip(terms, sides, strict=True)]
            effects.append(intervals.gap(*scores) if b else scores[0])
        value, low, high = over_seeds(effects).interval()
        if np.isnan([value, low, high]).any():
            return _unknown("not defined on these rows: a class is absent")
        if b is None:  # Student's interval can pass the ends of a share
            low, high = max(low, 0.0), min(high, 100.0)
        note = "one training run"
        if len(by_seed) > 1:
            once = [t.judge for t, run in zip(terms, runs, strict=True) if len(run) == 1]
            once = [f", {judge}: one run" for judge in once if judge != UNTRAINED]
            note = "".join([f"{len(by_seed)} training seeds", *once])
        return Effect(value, low, high, weights.shape[1], note)

    def same(self, a: str, b: str) -> bool:
        """Check whether two judges gave the same verdicts everywhere, seed by seed."""
        shared = [
            pd.merge(*sides, on=["id", "policy"])
            for frame in self.frames
            for sides in _by_seed([self._runs(Term(frame, judge)) for judge in (a, b)])
        ]
        both = pd.concat(shared) if shared else pd.DataFrame()
        return len(both) > 0 and bool((both["verdict_x"] == both["verdict_y"]).all())

    def _missing(self, term: Term) -> str:
        """Describe the missing answers of a term; "" if none is missing."""
        if term.frame not in self.frames:
            return f"no answers: {term.frame}"
        own = self.frames[term.frame].query("judge == @term.judge")
        if own.empty:
            return f"no judge {term.judge} in {term.frame}"
        absent = [policy for policy in term.policies if policy not in set(own["policy"])]
        return f"{term.judge} has no {', '.join(absent)} in {term.frame}" if absent else ""

    def _runs(self, term: Term) -> dict[float, pd.DataFrame]:
        """Return the rows of a term by training seed."""
        frame = self.frames[term.frame]
        chosen = frame["judge"] == term.judge
        if term.policies:
            chosen &= frame["policy"].isin(term.policies)
        return dict(list(frame[chosen].groupby("seed")))

    def _resample(self, terms: list[Term], runs: list[dict]) -> tuple[dict, np.ndarray]:
        """Return the pairs of each frame, and their counts (resamples, pairs of all frames)."""
        rows: dict[str, list] = {}
        for term, run in zip(terms, runs, strict=True):
            rows.setdefault(term.frame, []).extend(run.values())
        drawn = {
            name: resample_pairs(pd.concat(parts), self.resamples, self.seed + k)
            for k, (name, parts) in enumerate(rows.items())
        }
        pairs = {name: own for name, (own, _) in drawn.items()}
        return pairs, np.hstack([weights for _, weights in drawn.values()])


def over_seeds(runs: list[intervals.Bootstrap]) -> intervals.Bootstrap:
    """Average over training runs, and add Student's t interval over them to the uncertainty."""
    from scipy.special import stdtrit

    mean = intervals.mean(runs)
    if len(runs) == 1:
        return mean
    t = stdtrit(len(runs) - 1, (1 + intervals.CONFIDENCE) / 2)
    half = t * np.std([run.value for run in runs], ddof=1) / np.sqrt(len(runs))
    return mean._replace(apart=np.hypot(mean.apart, half))


def _score(term: Term, rows: pd.DataFrame, pairs: dict, weights: np.ndarray):
    """Score the rows of a term: the mean over its policies, or all rows pooled."""
    parts = [rows[rows["policy"] == policy] for policy in term.policies] or [rows]
    return intervals.mean([_bootstrap(term, part, pairs, weights) for part in parts])


def _bootstrap(term: Term, rows: pd.DataFrame, pairs: dict, weights: np.ndarray):
    metric = headline_metric(rows) if term.metric == "headline" else term.metric
    # The other set of a difference has no row of this term: its pairs count 0 of everything.
    blocks = [counts(rows if name == term.frame else rows[:0], own) for name, own in pairs.items()]
    return intervals.bootstrap(np.vstack(blocks), weights, metric)


def _by_seed(runs: list[dict[float, pd.DataFrame]]) -> list[list[pd.DataFrame]]:
    """Return the rows of each judge for every seed that all judges with several runs share.

    A judge with one run has its rows beside every seed; if one has no run, there is nothing.
    """
    if not all(runs):
        return []
    several = [set(run) for run in runs if len(run) > 1]
    seeds = sorted(set.intersection(*several)) if several else [next(iter(runs[0]))]
    return [[run.get(seed, next(iter(run.values()))) for run in runs] for seed in seeds]


def _unknown(note: str) -> Effect:
    return Effect(np.nan, np.nan, np.nan, 0, note)


def _judgements(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Turn frames into judgement frames with a seed; add "form"; leave out empty ones."""
    # Controls, inversions and squares are not judgements.
    judgements = {
        name: frame
        for name, frame in frames.items()
        if name not in ("controls", "inversion", "squares") and len(frame)
    }
    if "general" in judgements:
        general = judgements["general"]
        general = general.assign(pair=general["id"], policy=general["task"])
        expected = [
            given in EXPECTED_ANSWERS[task] if task in EXPECTED_ANSWERS else not unparseable
            for given, task, unparseable in zip(
                general["given"], general["task"], general["unparseable"], strict=True
            )
        ]
        judgements["general"] = of_right(general)
        judgements["form"] = of_right(general.assign(right=expected))
    if "naming" in judgements:
        naming = judgements["naming"]
        levels = judgements.get("levels", pd.DataFrame(columns=["id", "pair"]))
        pairs = dict(levels[["id", "pair"]].to_numpy())
        naming = naming.assign(pair=[pairs.get(id, id) for id in naming["id"]])
        naming = naming.assign(id=naming["id"] + " " + naming["thing"], policy=naming["group"])
        judgements["naming"] = of_right(naming)
    for name, frame in judgements.items():
        # A judge that was trained once may come without a seed.
        seed = frame["seed"].fillna(0) if "seed" in frame else 0
        judgements[name] = frame.assign(seed=seed)
    return judgements
