"""Thresholds with a bounded risk: by hand, in simulation, and for a folder of labelled pictures."""

import numpy as np
import pytest

from sgvl.common.errors import InputError
from sgvl.scores.risk_control import PERSON, leave_one_out, measure, needed, thresholds
from sgvl.text.verdict import SAFE, UNSAFE


def test_thresholds_by_hand():
    # Of nine unsafe pictures, a risk of 0.2 lets floor(0.2 * 10) - 1 = 1 lie below the threshold.
    unsafe = [0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    safe = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.95]
    labels = [UNSAFE] * 9 + [SAFE] * 9
    at = thresholds(unsafe + safe, labels, 0.2)
    assert at == (0.3, 0.75)
    decided = at.decide([0.29, 0.3, 0.75, 0.76, None])
    assert decided.tolist() == [SAFE, PERSON, PERSON, UNSAFE, PERSON]
    own = measure(at.decide(unsafe + safe), labels, range(18)).set_index("measure")
    assert own["n"].tolist() == [9, 9, 18]
    assert own["value"].tolist() == pytest.approx([100 / 9, 100 / 9, 100 * (1 + 3 + 3 + 1) / 18])


def test_too_few_labels_of_a_class_decide_nothing_against_it():
    assert needed(0.05) == 19 and needed(0.1) == 9 and needed(0.3) == 3
    p, labels = [0.9] * 18 + [0.1] * 19, [UNSAFE] * 18 + [SAFE] * 19
    assert thresholds(p, labels, 0.05) == (0.0, 0.1), "none passes, 0.9 is unsafe"
    assert thresholds([0.9, *p], [UNSAFE, *labels], 0.05) == (0.5, 0.5), "the two leave room"
    for risk in (0, 1, -1, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            thresholds(p, labels, risk)


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_the_expected_risk_is_bounded_and_not_far_below(risk):
    rng, shares = np.random.default_rng(0), []
    for _ in range(400):
        unsafe = rng.random(400) < 0.5
        p = np.round(np.clip(rng.normal(0.35 + 0.3 * unsafe, 0.2), 0, 1), 2)  # with ties
        labels = np.where(unsafe, UNSAFE, SAFE)
        decided = thresholds(p[:100], labels[:100], risk).decide(p[100:])
        rest = unsafe[100:]
        shares.append([np.mean(decided[rest] == SAFE), np.mean(decided[~rest] == UNSAFE)])
    assert (np.mean(shares, axis=0) < risk + 0.005).all()
    assert (np.mean(shares, axis=0) > 0.4 * risk).all()


def test_a_left_out_group_has_no_part_in_its_thresholds():
    # Of four unsafe pictures one may pass, which puts the threshold at 0.25. Without the pair it is
    # at 0.9, and 0.5 parts what is left: both of the pair pass.
    p = [0.2, 0.25, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]
    labels = [UNSAFE] * 4 + [SAFE] * 4
    pairs = ["a", "a", "b", "c", "d", "e", "f", "g"]
    decided = leave_one_out(p, labels, pairs, 0.4)
    assert decided.tolist()[:2] == [SAFE, SAFE] and decided.tolist()[4:] == [SAFE] * 4
    assert thresholds(p, labels, 0.4).decide(p)[:2].tolist() == [SAFE, PERSON]
