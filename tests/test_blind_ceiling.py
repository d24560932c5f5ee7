"""The blind ceiling: no fixed set of flags scores more, as trying all of them shows."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from sgvl.experiments import claims
from sgvl.scores import blind_ceiling

LEVELS = ("L1", "L2", "L3", "L4", "L5")


def cases_of(labels):
    """Rows of {picture: {policy: label}}."""
    rows = [(id, id, policy, label) for id, own in labels.items() for policy, label in own.items()]
    return pd.DataFrame(rows, columns=["id", "pair", "policy", "label"])


def flagged(cases, ids, average):
    """The score of flagging these pictures, in percent: F1, or accuracy of a single class."""
    parts = [own for _, own in cases.groupby("policy")] if average == "macro" else [cases]
    scores = []
    for own in parts:
        truth, flag = own["label"].eq("unsafe").to_numpy(), own["id"].isin(ids).to_numpy()
        both = 0 < truth.sum() < len(truth)
        scores.append(f1_score(truth, flag) if both else np.mean(truth == flag))
    return 100 * np.mean(scores)


def by_level(firsts):
    """Pictures under all five levels, from the first level that prohibits each (6: none does)."""
    return cases_of(
        {
            f"p{k}": {
                level: "unsafe" if n >= first else "safe" for n, level in enumerate(LEVELS, 1)
            }
            for k, first in enumerate(firsts)
        }
    )


def test_a_hand_worked_ceiling():
    """Three pictures that L4 prohibits first, one that nothing does.

    Flagging the three is wrong three times of four under L1 (accuracy 25) and has no true positive
    under L2 and L3 (all safe: accuracy 25), but F1 100 under L4 and L5: 55 in the mean. No flags:
    100, 100, 100, 0, 0. Flagging one: 75, 75, 75, and F1 2 / 4 under L4 and L5: 65.
    """
    cases = by_level([4, 4, 4, 6])
    assert flagged(cases, {"p0"}, "macro") == pytest.approx((3 * 75 + 2 * 50) / 5)
    two = (3 * 50 + 2 * 80) / 5
    assert flagged(cases, blind_ceiling.best_flags(cases, "macro"), "macro") >= max(65, two)
    assert blind_ceiling.best_flags(cases, "pooled") == {"p0", "p1", "p2"}  # 2 * 6 / (15 + 6)


@pytest.mark.parametrize("average", ["macro", "pooled"])
def test_no_other_set_of_flags_scores_more(average):
    rng = np.random.default_rng(0)
    for _ in range(2):
        labels = {
            f"p{k}": {
                f"P{n}": str(rng.choice(["safe", "unsafe"])) for n in range(3) if rng.random() < 0.7
            }
            for k in range(6)
        }
        cases = cases_of(labels)
        ids = sorted(set(cases["id"]))
        sets = [{id for id, bit in zip(ids, bits, strict=True) if bit}
                for bits in product([0, 1], repeat=len(ids))]  # fmt: skip
        best = max(flagged(cases, some, average) for some in sets)
        found = flagged(cases, blind_ceiling.best_flags(cases, average), average)
        assert found == pytest.approx(best, abs=100 * blind_ceiling.TOLERANCE)


def test_a_policy_under_which_everything_has_one_label_counts_by_accuracy():
    cases = cases_of({"a": {"P": "unsafe"}, "b": {"P": "unsafe"}})
    assert blind_ceiling.best_flags(cases, "macro") == {"a", "b"}
    assert blind_ceiling.best_flags(cases, "pooled") == {"a", "b"}


def test_who_reads_the_policy_beats_the_ceiling_and_who_does_not_never_does():
    cases = by_level([2, 3, 4, 5, 6, 6] * 20)
    reader = cases.assign(judge="reader", verdict=cases["label"])
    rng = np.random.default_rng(0)
    some = set(rng.choice(cases["id"].unique(), 60, replace=False))
    blind = cases.assign(judge="blind", verdict=np.where(cases["id"].isin(some), "unsafe", "safe"))
    answers = pd.concat([reader, blind], ignore_index=True)
    answers = pd.concat([answers, blind_ceiling.blind_judges(answers)], ignore_index=True)
    gaps = claims.above_blind(answers, resamples=200).set_index(["judge", "average"])
    assert set(gaps.loc["reader", "beats"]) == {"holds"} and (gaps.loc["reader", "low"] > 5).all()
    assert set(gaps.loc["blind", "beats"]) == {"does not hold"}
    assert (gaps.loc["blind", "value"] <= 100 * blind_ceiling.TOLERANCE).all()
    assert set(gaps["n"]) == {120}
