"""The kit's own claims: does the trained judge follow the policy, and only the policy?

Two bars that belong together are one claim, whose effect is the smaller of the two distances: it
holds if both do, and does not if one does not. A claim is vacuous where it would hold and says
nothing: the training changed no verdict, or the judge never changes its verdict with the policy, so
that it cannot break an order.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sgvl.experiments import adherence
from sgvl.experiments.claims.evidence import Effect
from sgvl.experiments.claims.paper import Claim, decide
from sgvl.experiments.rationales import RIGHT_REASON
from sgvl.scores.bars import LEAST, MOST

TRAINED, BEFORE = "full", "base"
FLIPS, STAYS, SQUARES, GROUNDED, BROKEN = *LEAST.values(), MOST["order broken"]  # percent
NOT_ASKED, ONE_RUN = "no such answers", "one training run"
BOUNDS = ["value", "low", "high"]
SQUARE_CELL = ["square", "picture", "version"]


def kit_claims(
    frames: Mapping[str, pd.DataFrame],
    beyond: pd.DataFrame,
    reasons: pd.DataFrame,
    names: Mapping[str, str],
    profile: str,
    seed: int = 0,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Test the kit's own claims.

    Parameters
    ----------
    frames : those of ``sgvl.experiments.benchmark_files``
    beyond : what ``above_blind`` returned
    reasons : what ``rationales.measure`` returned
    names : of the judges, by id
    profile : printed with the results
    seed, resamples : of the bootstrap over squares and pairs

    Returns
    -------
    pandas.DataFrame
        One row per claim: the fields of ``Claim``, and profile.
    """
    rows = [*_of_squares(frames["squares"], names, resamples, seed)]
    rows.append(_order(frames["levels"], names, resamples, seed))
    grounded = reasons[reasons["judge"] == TRAINED].set_index("measure")
    rows.append(
        _claim(
            "right for the right reason",
            f"{names.get(TRAINED, TRAINED)} gives the right reason for {GROUNDED} % of its right "
            "verdicts",
            _effect(grounded, RIGHT_REASON),
            above=GROUNDED,
        )
    )
    for judge, own in beyond.groupby("judge", sort=False):
        title = f"{names[judge]} scores above the best judge that reads no policy, macro and pooled"
        margins = own.set_index("average")[BOUNDS]
        effect = _smaller(margins, int(own["n"].min()))
        rows.append(_claim(f"{judge} beats the blind ceiling", title, effect, above=0))
    return pd.DataFrame(rows, columns=Claim._fields).assign(profile=profile)


def _of_squares(squares: pd.DataFrame, names: Mapping, resamples: int, seed: int) -> list[Claim]:
    """Test what squares show of the trained judge."""
    own = squares[squares["judge"] == TRAINED]
    measured = adherence.measure(own, resamples, seed).set_index("measure")
    who = names.get(TRAINED, TRAINED)
    same = _same(squares, SQUARE_CELL)
    parts = measured.reindex(["flips", "stays"])
    margins = parts[BOUNDS].astype(float).sub([FLIPS, STAYS], axis=0)
    return [
        _claim(
            "follows the policy and only the policy",
            f"{who} flips with the policy in {FLIPS} % of cases and stays in {STAYS} %, where "
            "only the wording changes: the smaller distance",
            _smaller(margins, parts["n"].sum(min_count=2)),
            above=0,
            vacuous=same,
        ),
        _claim(
            "solves squares",
            f"{who} gets {SQUARES} % of the squares right whose labels lie crosswise",
            _effect(measured, "squares right, xor"),
            above=SQUARES,
            vacuous=same,
        ),
        _claim(
            "keeps the order of edited policies",
            f"{who} calls unsafe under the laxer policy alone at most {BROKEN} % of pictures",
            _effect(measured, "order broken"),
            below=BROKEN,
            vacuous=same or measured["value"].get("flips") == 0,
        ),
    ]


def _order(levels: pd.DataFrame, names: Mapping, resamples: int, seed: int) -> Claim:
    order = adherence.level_order(levels[levels["judge"] == TRAINED], resamples, seed)
    order = order.set_index("judge")
    return _claim(
        "keeps the order of the levels",
        f"{names.get(TRAINED, TRAINED)} calls a picture unsafe under a level and safe under a "
        f"stricter one in at most {BROKEN} % of cases",
        _effect(order, TRAINED),
        below=BROKEN,
        vacuous=_same(levels, ["id", "policy"]) or order["turned"].get(TRAINED) == 0,
    )


def _claim(name: str, statement: str, effect: Effect, vacuous: bool = False, **bound) -> Claim:
    outcome = decide(effect, **bound)
    outcome = "vacuous" if outcome == "holds" and vacuous else outcome
    return Claim(name, f"{statement}.", outcome, *effect)


def _effect(table: pd.DataFrame, row: str) -> Effect:
    """Return a row of measures as an effect; unknown where it is missing or counts nothing."""
    if row not in table.index or not table.loc[row, "n"]:
        return Effect(*[np.nan] * 3, 0, NOT_ASKED)
    return Effect(*table.loc[row, BOUNDS].astype(float), int(table.loc[row, "n"]), ONE_RUN)


def _smaller(margins: pd.DataFrame, n: float) -> Effect:
    """Return the smaller of several distances to a bar, with bounds that hold for all of them."""
    if margins.isna().any(axis=None):
        return Effect(*[np.nan] * 3, 0, NOT_ASKED)
    texts = [
        f"{row.Index} {row.value:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
        for row in margins.itertuples()
    ]
    return Effect(*margins.min(), int(n), "; ".join(texts))


def _same(frame: pd.DataFrame, keys: list[str]) -> bool:
    """Check whether the training changed no verdict of a frame."""
    before, after = (
        frame[frame["judge"] == judge].set_index(keys)["verdict"] for judge in (BEFORE, TRAINED)
    )
    return len(after) > 0 and before.sort_index().equals(after.sort_index())
