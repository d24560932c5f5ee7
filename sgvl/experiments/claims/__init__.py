"""Each claim that the paper draws from its tables, tested on our scores.

One rule for all. A claim says on which side of a bound an effect lies, and the effect comes with a
95 % interval. The claim

    holds            if the interval lies wholly on the claimed side,
    does not hold    if it lies wholly on the other side,
    cannot tell      if the bound is inside, or if a judge or a set is missing: the note says which.

The bound is 0 for "better" and "worse", and is named in the statement otherwise. Nothing corrects
for the number of claims: of twenty that say nothing, about one would come out on a side.
"""

import pandas as pd

from sgvl.experiments.claims.evidence import Effect, Evidence, Term
from sgvl.experiments.claims.paper import CLAIMS, JUDGES, Claim

__all__ = ["CLAIMS", "JUDGES", "Claim", "Effect", "Evidence", "Term", "claims"]


def claims(
    frames: dict[str, pd.DataFrame], profile: str, seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """Every claim, one row each: the fields of ``Claim``, and the profile.

    ``frames`` are those of ``sgvl.experiments.benchmark``, all judges in one frame a set;
    any may be absent. A column ``seed`` names the training run that an answer comes from, where a
    judge was trained several times. Effects are in points, or in percent for one judge alone.
    Raises ``InputError`` for frames that ``sgvl.scores.metrics.check`` refuses.
    """
    evidence = Evidence(frames, seed, resamples)
    return pd.DataFrame([claim(evidence) for claim in CLAIMS]).assign(profile=profile)
