"""Intervals against scipy's, and against worlds whose truth is known."""

import doctest

import numpy as np
import pytest
from scipy import stats

from sgvl.common.errors import InputError
from sgvl.scores import intervals

TP, FP, FN, TN = np.eye(4)  # counts of a pair that holds one row


@pytest.mark.parametrize("k, n", [(0, 9), (3, 20), (62, 62)])
def test_wilson_is_scipys(k, n):
    wilson = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert intervals.wilson(k / n, n) == pytest.approx([wilson.low, wilson.high])


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_agrees_with_scipys_bootstrap(metric):
    def statistic(truth, judged, axis=-1):
        right, both = (truth == judged).mean(axis), (truth & judged).sum(axis)
        return right if metric == "accuracy" else 2 * both / (truth.sum(axis) + judged.sum(axis))

    counts = np.array([TP] * 40 + [FP] * 12 + [FN] * 18 + [TN] * 54)
    truth, judged = (counts @ (TP + FN)).astype(bool), (counts @ (TP + FP)).astype(bool)
    settings = {"paired": True, "vectorized": True, "n_resamples": 4000, "rng": 0}
    theirs = stats.bootstrap((truth, judged), statistic, method="BCa", **settings)
    ours = intervals.bootstrap(counts, intervals.resample(len(counts), 4000, 1), metric)
    assert ours.value == pytest.approx(statistic(truth, judged))
    assert ours.bounds() == pytest.approx(tuple(theirs.confidence_interval), abs=0.012)


@pytest.mark.parametrize("metric", ["accuracy", "specificity", "balanced_accuracy"])
def test_interval_holds_the_truth(metric):
    """Few errors are where plain percentiles fail: 62 rows, right 97 times in 100."""
    rng = np.random.default_rng(0)
    weights = intervals.resample(62, 500, 0)
    held = 0
    for _ in range(200):
        right = rng.random((62, 1)) < 0.97
        counts = np.where(
            rng.random((62, 1)) < 0.3, np.where(right, TP, FN), np.where(right, TN, FP)
        )
        low, high = intervals.bootstrap(counts, weights, metric).bounds()
        held += low <= 0.97 <= high
    assert held >= 0.92 * 200


def test_a_statistic_that_never_varies_keeps_its_doubt():
    weights = intervals.resample(62, 500, 0)
    perfect = intervals.bootstrap(np.tile(TN, (62, 1)), weights, "accuracy")
    assert perfect.bounds() == pytest.approx(intervals.wilson(1, 62))
    counts = np.array([TP] * 3 + [TN] * 50 + [FP] * 9)
    recall, specificity, balanced = (
        intervals.bootstrap(counts, weights, name)
        for name in ("recall", "specificity", "balanced_accuracy")
    )
    assert recall.bounds()[0] == pytest.approx(intervals.wilson(1, 3)[0])
    # Half of recall's doubt reaches the mean, although no resample shows it.
    assert balanced.value - balanced.bounds()[0] > (recall.value - recall.bounds()[0]) / 2
    assert specificity.apart.tolist() == [0, 0]


def test_undefined_is_nan():
    result = intervals.bootstrap(np.zeros((4, 4)), intervals.resample(4, 10, 0), "f1")
    assert np.isnan(result.interval()).all()
    assert np.isnan(intervals.mean([result, result._replace(value=1.0)]).value)


def test_gap_of_two_perfect_judges_is_newcombes():
    weights = intervals.resample(62, 100, 0)
    perfect = intervals.bootstrap(np.tile(TN, (62, 1)), weights, "accuracy")
    low = 1 - intervals.wilson(1, 62)[0]
    assert intervals.gap(perfect, perfect).bounds() == pytest.approx([-low, low])


def test_docstring_tells_the_truth():
    assert doctest.testmod(intervals) == (0, 3)


@pytest.mark.parametrize("resamples", [0, -1])
def test_no_resamples_are_refused(resamples):
    with pytest.raises(InputError, match=f"resamples is {resamples}: give 1 or more"):
        intervals.resample(10, resamples, seed=0)


def test_the_average_of_right_and_wrong_is_accuracy():
    rng = np.random.default_rng(0)
    right, pairs = rng.random((30, 2)) < 0.8, np.repeat(np.arange(30), 2)
    counts = np.zeros((30, 4))
    counts[:, 0], counts[:, 2] = right.sum(axis=1), (~right).sum(axis=1)
    weights = intervals.resample(30, 2000, 0)
    expected = intervals.bootstrap(counts, weights, "accuracy").interval()
    assert intervals.average(right.ravel(), pairs) == pytest.approx(expected)
    assert intervals.average(right.ravel() - 0.5, pairs, -1).value == pytest.approx(
        expected.value - 50
    )


def test_an_average_that_never_varies_is_not_certain():
    low, high = 100 * intervals.wilson(1.0, 40)
    assert intervals.average([1] * 80, np.arange(80) // 2)[1:] == pytest.approx((low, high))
    value, low, high = intervals.average([0.0] * 10, range(10), -1)  # halfway from -1 to 1
    low_share, high_share = intervals.wilson(0.5, 10)
    assert (value, low, high) == pytest.approx((0, 200 * low_share - 100, 200 * high_share - 100))
    assert np.isnan(intervals.average([], [])).all()
