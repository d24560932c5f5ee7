"""LlavaGuard's scores by hand."""

import math

import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.scores.llavaguard_scorer import llavaguard

# Two pictures under the default policy, one of them under three others, and an unparseable answer.
ROWS = [
    ("a", "unsafe", "unsafe"),
    ("a_v3_a", "unsafe", "safe"),
    ("a_v2", "safe", "unsafe"),
    ("a_v4", "unsafe", "unsafe"),
    ("b", "safe", "safe"),
    ("b_v2a", "safe", "safe"),
    ("c", "unsafe", "unparseable"),
]


@pytest.fixture
def frame():
    rows = pd.DataFrame(ROWS, columns=["id", "label", "verdict"])
    return rows.assign(judge="j", policy="llavaguard", pair=rows["id"])


def test_rates_by_hand(frame):
    """Read: 2 true positives, 1 false positive, 1 false negative, 2 true negatives."""
    row = llavaguard(frame).loc["all"]
    assert (row["n"], round(row["left_out"], 2)) == (6, 14.29)
    thirds = row[["tpr", "tnr", "balanced_accuracy", "accuracy", "precision", "f1", "f2"]]
    assert thirds.tolist() == pytest.approx([200 / 3] * 7)
    assert row["exception_recall"] == pytest.approx(200 / 3)  # v2 missed; v4 and v2a turned


def test_the_default_policy_alone_and_our_own_convention(frame):
    table = llavaguard(frame)
    default = table.loc["default policy"]
    assert (default["n"], default["accuracy"], default["f1"]) == (2, 100, 100)
    assert math.isnan(default["exception_recall"])
    ours = table.loc["all, unparseable wrong"]
    assert (ours["n"], ours["left_out"]) == (7, 0)
    assert ours["accuracy"] == pytest.approx(100 * 4 / 7)
    assert ours["tpr"] == 50 and ours["f1"] == pytest.approx(100 * 4 / 7)


def test_a_frame_that_is_none_is_refused(frame):
    with pytest.raises(InputError, match="missing columns: verdict"):
        llavaguard(frame.drop(columns="verdict"))
