"""The kit's own claims: each outcome, from the answers of planted judges to drawn squares."""

import numpy as np
import pandas as pd
import pytest
from test_squares import Planted, answers, no_exceptions

from sgvl.experiments import benchmark_files, claims, rationales, squares
from sgvl.judges import make_judge
from sgvl.judges.baselines import RuleJudge

NAMES = {"full": "Ours <Full>", "base": "base"}
LEVELS = ["L1", "L2", "L3", "L4", "L5"]
NO_LEVELS = pd.DataFrame(columns=benchmark_files.FRAMES["levels"])
NO_GAPS = pd.DataFrame(columns=["judge", "average", "value", "low", "high", "n"])
FOLLOWS, SQUARES, EDITED, ORDER = (
    "follows the policy and only the policy",
    "solves squares",
    "keeps the order of edited policies",
    "keeps the order of the levels",
)


@pytest.fixture(scope="module")
def drawn():
    return squares.draw(30, edits=["place swapped", "exception added", "clauses reordered"])


NO_REASONS = pd.DataFrame(columns=rationales.SHARE)


def claimed(frames, gaps=NO_GAPS, reasons=NO_REASONS):
    whole = {"levels": NO_LEVELS, "squares": pd.DataFrame(columns=squares.COLUMNS)} | frames
    return claims.kit_claims(whole, gaps, reasons, NAMES, "test", resamples=200).set_index("name")


def asked(drawn, folder, **judges):
    parts = [answers(judge, drawn, folder).assign(judge=id) for id, judge in judges.items()]
    return pd.concat(parts)


def levels(**verdicts):
    """200 pictures under five levels; a judge's verdicts from L1 to L5, in letters."""
    rows = [
        (judge, str(k), str(k), level, "safe", {"s": "safe", "u": "unsafe"}[letter])
        for judge, letters in verdicts.items()
        for k in range(200)
        for level, letter in zip(LEVELS, letters, strict=True)
    ]
    return pd.DataFrame(rows, columns=["judge", "id", "pair", "policy", "label", "verdict"])


def test_the_exact_judge_holds_what_squares_can_tell(drawn, tmp_path):
    blind = make_judge({"kind": "always_safe", "id": "base"})
    table = claimed({"squares": asked(drawn, tmp_path, base=blind, full=RuleJudge("full"))})
    assert table.loc[[SQUARES, EDITED], "outcome"].tolist() == ["holds", "cannot tell"]
    assert table.loc[SQUARES, "effect"] == 100 and table.loc[SQUARES, "n"] == 30
    follows = table.loc[FOLLOWS]
    assert follows["effect"] == pytest.approx(2), "the smaller of 100 - 95 and 100 - 98"
    assert follows["outcome"] == "cannot tell", "30 squares do not prove 98 %"
    assert "flips +5.0" in follows["note"] and "stays +2.0" in follows["note"]
    assert table.loc[FOLLOWS, "statement"].startswith("Ours <Full> flips")


def test_a_judge_that_ignores_exceptions_fails_and_one_that_never_flips_keeps_orders_for_nothing(
    drawn, tmp_path
):
    careless = Planted("careless", no_exceptions)
    exact = RuleJudge("exact")
    table = claimed({"squares": asked(drawn, tmp_path, base=exact, full=careless)})
    assert table.loc[[FOLLOWS, SQUARES], "outcome"].tolist() == ["does not hold"] * 2
    many = squares.draw(200, edits=["exception added"])
    constant = make_judge("always_safe")
    table = claimed({"squares": asked(many, tmp_path / "2", base=exact, full=constant)})
    assert table.loc[EDITED, "outcome"] == "vacuous" and table.loc[EDITED, "effect"] == 0


@pytest.mark.parametrize(
    ("base", "full", "outcome"),
    [
        ("sssss", "ssuuu", "holds"),
        ("ssuuu", "ssuuu", "vacuous"),  # the training changed no verdict
        ("ssuuu", "sssss", "vacuous"),  # no verdict changes with the level
        ("ssuuu", "susuu", "does not hold"),
    ],
)
def test_the_order_of_the_levels(base, full, outcome):
    row = claimed({"levels": levels(base=base, full=full)}).loc[ORDER]
    assert row["outcome"] == outcome
    assert row["effect"] == (10 if full == "susuu" else 0) and row["n"] == 2000


def test_every_judge_has_a_claim_about_the_blind_ceiling_and_the_worse_average_decides():
    gaps = pd.DataFrame(
        [("base", "macro", -3.0, -5.0, -1.0, 60), ("base", "pooled", 4.0, 2.0, 6.0, 60),
         ("full", "macro", 3.0, 1.0, 5.0, 60), ("full", "pooled", 4.0, 2.0, 6.0, 60)],
        columns=["judge", "average", "value", "low", "high", "n"],
    )  # fmt: skip
    table = claimed({}, gaps)
    base, full = (table.loc[f"{judge} beats the blind ceiling"] for judge in ("base", "full"))
    assert (base["outcome"], base["effect"], base["n"]) == ("does not hold", -3, 60)
    assert (full["outcome"], full["effect"]) == ("holds", 3)
    assert "macro +3.0 [+1.0, +5.0]; pooled +4.0 [+2.0, +6.0]" in full["note"]


@pytest.mark.parametrize(
    ("low", "value", "high", "outcome"),
    [(86, 90, 95, "holds"), (80, 90, 95, "cannot tell"), (68, 72, 75, "does not hold")],
)
def test_right_verdicts_need_the_right_reason(low, value, high, outcome):
    rows = [("full", rationales.RIGHT_REASON, 783, value, low, high)]
    rows += [("full", "verdict right", 900, 99, 98, 100)]
    reasons = pd.DataFrame(rows, columns=rationales.SHARE)
    row = claimed({}, reasons=reasons).loc["right for the right reason"]
    assert (row["outcome"], row["effect"], row["n"]) == (outcome, value, 783)
    assert row["statement"].startswith("Ours <Full> gives the right reason for 85 %")


def test_what_was_not_asked_decides_nothing_and_says_so():
    table = claimed({})
    assert set(table["outcome"]) == {"cannot tell"} and table["effect"].isna().all()
    assert set(table["note"]) == {"no such answers"} and len(table) == 5
    assert np.isfinite(table["n"]).all()
