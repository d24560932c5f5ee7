"""What a claim is tested on: a difference of two measurements, with its interval.

Whole pairs (or pictures, where a set has no pairs) are drawn with replacement, and both sides of a
difference meet the same draws. Sides from two different sets are drawn apart.

Where a judge was trained several times, its seeds are a random effect. Judges are compared seed by
seed (one that was trained once stands beside every seed), the effect is the mean over seeds, and
its doubt has two parts, added as squares: that of the pairs, and Student's t interval over seeds.
Resampling the seeds would not do: three of them, drawn again and again, say no more than "between
the lowest and the highest", and that holds the truth 75 times in 100. With one seed, how training
runs differ is not in the interval.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.common.errors import InputError
from sgvl.policies.concepts import PLACES
from sgvl.scores import intervals
from sgvl.scores.metrics import check, counts, of_right
from sgvl.world.questions import NUMBERS

# What the questions of general ability ask for. Such an answer follows the instruction, right or
# wrong; a rationale in its place does not.
ASKED_FOR = {
    "presence": ("yes", "no"),
    "counting": NUMBERS,
    "place": PLACES,
    "choice": ("A", "B", "C", "D"),
}


class Term(NamedTuple):
    """One judge on one set.

    ``frame`` is one of ``sgvl.experiments.benchmark``, or "form": is the answer to a
    general question of the kind that was asked for? ``metric`` is "headline" (as in
    ``sgvl.scores.metrics``: F1, or accuracy where the labels hold one class), or one that
    ``intervals.bootstrap`` knows.
    """

    frame: str
    judge: str
    policies: tuple[str, ...] = ()  # the mean over these; none means all rows pooled
    metric: str = "headline"


class Effect(NamedTuple):
    """Points (percent where there is one term only) with a 95 % interval; NaN if unknown."""

    value: float
    low: float
    high: float
    n: int  # pairs or pictures that were drawn from
    note: str  # how many training runs stand behind it, or what is missing


class Evidence:
    """The answers of all judges on all sets."""

    def __init__(self, frames: dict[str, pd.DataFrame], seed: int = 0, resamples: int = 2000):
        self.frames, self.seed, self.resamples = _judgements(frames), seed, resamples
        for name, frame in self.frames.items():
            for _, run in frame.groupby("seed"):
                try:
                    check(run)
                except InputError as error:
                    raise InputError(f"{name}: {problem}" for problem in error.problems) from None

    def effect(self, a: Term, b: Term | None = None) -> Effect:
        """By how much ``a`` lies above ``b``, or above 0."""
        terms = [a, b] if b else [a]
        if lacking := [what for what in map(self._lacking, terms) if what]:
            return _unknown("; ".join(dict.fromkeys(lacking)))
        runs = [self._runs(term) for term in terms]
        seeds = _seeds_of_all(runs)
        if not seeds:
            return _unknown(f"{a.judge} and {b.judge} have no training seed in common")
        by_seed = [[run.get(seed, next(iter(run.values()))) for run in runs] for seed in seeds]
        alike = b and (a.frame, a.policies) == (b.frame, b.policies)
        if alike and not all(_same_rows(*sides) for sides in by_seed):
            return _unknown(f"{a.judge} and {b.judge} answered different rows of {a.frame}")
        units, weights = self._draw(terms, runs)
        found = []
        for sides in by_seed:
            measured = [_measure(*x, units, weights) for x in zip(terms, sides, strict=True)]
            found.append(intervals.gap(*measured) if b else measured[0])
        value, low, high = over_seeds(found).interval()
        if np.isnan([value, low, high]).any():
            return _unknown("not defined on these rows: a class is absent")
        note = f"{len(seeds)} training seeds" if len(seeds) > 1 else "one training run"
        return Effect(value, low, high, weights.shape[1], note)

    def _lacking(self, term: Term) -> str:
        if term.frame not in self.frames:
            return f"no answers: {term.frame}"
        own = self.frames[term.frame].query("judge == @term.judge")
        if own.empty:
            return f"no judge {term.judge} in {term.frame}"
        absent = [policy for policy in term.policies if policy not in set(own["policy"])]
        return f"{term.judge} has no {', '.join(absent)} in {term.frame}" if absent else ""

    def _runs(self, term: Term) -> dict:
        """{training seed: rows}."""
        frame = self.frames[term.frame]
        mine = frame["judge"] == term.judge
        if term.policies:
            mine &= frame["policy"].isin(term.policies)
        return dict(list(frame[mine].groupby("seed")))

    def _draw(self, terms: list[Term], runs: list[dict]) -> tuple[dict, np.ndarray]:
        """{frame: its pairs}, and how often each is drawn: (resamples, pairs of all frames)."""
        pairs: dict[str, set] = {}
        for term, run in zip(terms, runs, strict=True):
            pairs.setdefault(term.frame, set()).update(*(rows["pair"] for rows in run.values()))
        units = {name: pd.Index(sorted(found)) for name, found in pairs.items()}
        draws = [
            intervals.resample(len(found), self.resamples, self.seed + k)
            for k, found in enumerate(units.values())
        ]
        return units, np.hstack(draws)


def over_seeds(runs: list[intervals.Bootstrap]) -> intervals.Bootstrap:
    """The mean over training runs, with the doubt that comes from their number."""
    from scipy.special import stdtrit

    mean = intervals.mean(runs)
    if len(runs) == 1:
        return mean
    t = stdtrit(len(runs) - 1, (1 + intervals.CONFIDENCE) / 2)
    half = t * np.std([run.value for run in runs], ddof=1) / np.sqrt(len(runs))
    return mean._replace(apart=np.hypot(mean.apart, half))


def _measure(term, rows, units, weights) -> intervals.Bootstrap:
    parts = [rows[rows["policy"] == p] for p in term.policies] or [rows]
    return intervals.mean([_bootstrap(term, part, units, weights) for part in parts])


def _bootstrap(term, rows, units, weights) -> intervals.Bootstrap:
    metric = term.metric
    if metric == "headline":
        metric = "f1" if rows["label"].nunique() == 2 else "accuracy"
    # Pairs of the other set hold no row of this term: drawing them changes nothing here.
    blocks = [
        counts(rows if name == term.frame else rows[:0], pairs) for name, pairs in units.items()
    ]
    return intervals.bootstrap(np.vstack(blocks), weights, metric)


def _seeds_of_all(runs: list[dict]) -> list:
    """The seeds that all judges have; a judge with one run stands beside any."""
    several = [set(run) for run in runs if len(run) > 1]
    return sorted(set.intersection(*several)) if several else [next(iter(runs[0]))]


def _same_rows(a, b) -> bool:
    return set(zip(a["id"], a["policy"], strict=True)) == set(
        zip(b["id"], b["policy"], strict=True)
    )


def _unknown(note: str) -> Effect:
    return Effect(np.nan, np.nan, np.nan, 0, note)


def _judgements(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """All frames as judgement frames with a seed."""
    # Controls and inversions are no judgements; a frame that no judge has is empty.
    made = {
        name: frame
        for name, frame in frames.items()
        if name not in ("controls", "inversion") and len(frame)
    }
    if "general" in made:
        general = frames["general"].assign(
            pair=frames["general"]["id"], policy=frames["general"]["task"]
        )
        form = general[general["task"].isin(ASKED_FOR)]
        kept = [g in ASKED_FOR[t] for g, t in zip(form["given"], form["task"], strict=True)]
        made |= {"general": of_right(general), "form": of_right(form.assign(right=kept))}
    if "naming" in made:
        naming = frames["naming"]
        pairs = dict(frames["levels"][["id", "pair"]].to_numpy()) if "levels" in made else {}
        naming = naming.assign(pair=[pairs.get(name, name) for name in naming["id"]])
        naming = naming.assign(id=naming["id"] + " " + naming["thing"], policy=naming["group"])
        made["naming"] = of_right(naming)
    # A judge that was trained once may come without a seed.
    seeds = {name: frame.get("seed", pd.Series(0, frame.index)) for name, frame in made.items()}
    return {name: frame.assign(seed=seeds[name].fillna(0)) for name, frame in made.items()}
