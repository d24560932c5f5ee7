"""The claims that the paper draws from its tables, tested on our scores.

A claim states on which side of a bound an effect lies; the effect has a 95 % interval. The claim

    holds            if the whole interval lies on the claimed side,
    does not hold    if the whole interval lies on the other side,
    cannot tell      if the interval holds the bound, or a judge or a set is missing (see the note).

The bound is 0 for "better" and "worse"; other bounds are in the statement. There is no correction
for the number of claims: of twenty effects that are 0, about one gets an interval without 0.
"""

import pandas as pd

from sgvl.experiments.claims.evidence import Effect, Evidence, Term
from sgvl.experiments.claims.paper import CLAIMS, JUDGES, Claim

__all__ = ["CLAIMS", "JUDGES", "Claim", "Effect", "Evidence", "Term", "claims"]


def claims(
    frames: dict[str, pd.DataFrame], profile: str, seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """Test every claim.

    Parameters
    ----------
    frames : those of ``sgvl.experiments.benchmark``; any may be absent. Where a judge was trained
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
