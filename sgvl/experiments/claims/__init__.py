"""The claims that the paper draws from its tables, tested on our scores, and the kit's own ones.

A claim states on which side of a bound an effect lies; the effect has a 95 % interval. The claim

    holds            if the whole interval lies on the claimed side,
    does not hold    if the whole interval lies on the other side,
    cannot tell      if the interval holds the bound, or a judge or a set is missing (see the note),
    vacuous          if it would hold, but only because a training changed no answer, or a judge
                     never changes its verdict.

The bound is 0 for "better" and "worse"; other bounds are in the statement. There is no correction
for the number of claims: of twenty effects that are 0, about one gets an interval without 0.
"""

import pandas as pd

from sgvl.experiments.claims.evidence import Effect, Evidence, Term
from sgvl.experiments.claims.kit import kit_claims
from sgvl.experiments.claims.paper import CLAIMS, JUDGES, Claim, decide
from sgvl.policies.policy import AVERAGES
from sgvl.scores.blind_ceiling import NAMES
from sgvl.scores.metrics import difference


def claims(
    frames: dict[str, pd.DataFrame], profile: str, seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """Test every claim.

    Parameters
    ----------
    frames : of ``sgvl.experiments.benchmark_files``; any may be absent. Where a judge was trained
        several times, a column ``seed`` holds the seed of training.
    profile : printed with the results
    seed, resamples : of the bootstrap over pairs

    Returns
    -------
    pandas.DataFrame
        One row per claim: the fields of ``Claim``, and profile.

    Raises
    ------
    InputError
        As ``sgvl.scores.metrics.check`` does.
    """
    evidence = Evidence(frames, seed, resamples)
    return pd.DataFrame([claim(evidence) for claim in CLAIMS]).assign(profile=profile)


def above_blind(answers: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Measure how far each judge is above the blind ceiling, macro and pooled.

    Parameters
    ----------
    answers : a judgement frame with the judges of ``sgvl.scores.blind_ceiling`` in it
    resamples, seed : of the bootstrap, which takes the same pairs for a judge and for the ceiling

    Returns
    -------
    pandas.DataFrame
        judge, average, value, low, high (points), n (pairs), and ``beats``: the outcome of the
        claim that the judge beats the blind ceiling.
    """
    rows = []
    for judge, own in answers[~answers["judge"].isin(NAMES)].groupby("judge", sort=False):
        for blind, average in zip(NAMES, AVERAGES, strict=True):
            gap = difference(answers, judge, blind, average, resamples, seed)
            effect = Effect(*gap, own["pair"].nunique(), "")
            outcome = {"n": effect.n, "beats": decide(effect, above=0)}
            rows.append({"judge": judge, "average": average, **gap._asdict(), **outcome})
    columns = ["judge", "average", "value", "low", "high", "n", "beats"]
    return pd.DataFrame(rows, columns=columns)
