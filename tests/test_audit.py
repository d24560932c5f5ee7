"""The audit: small cases by hand, the truth always among what is possible, the real tables."""

import doctest
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.report import reference
from sgvl.report.audit import arithmetic, audit, blind, counts
from sgvl.report.audit.__main__ import main
from sgvl.report.audit.findings import ASSUMPTIONS, VERDICTS, span


@pytest.fixture(scope="module")
def findings():
    return audit(reference.paper())


@pytest.fixture
def edited(tmp_path):
    """The findings after one replacement in one file of the folder."""

    def edit(file, old, new):
        folder = shutil.copytree(reference.HERE, tmp_path / "other", dirs_exist_ok=True)
        path = folder / f"{file}.csv"
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        return audit(reference.paper(folder))

    return edit


def about(findings, check, where):
    """The one finding of this check whose place holds these words."""
    (found,) = chosen(findings, check, where)
    return found


def chosen(findings, check, where):
    """All such findings."""
    return [f for f in findings if f.check == check and where in f.where]


# Small cases, by hand


def test_eighths():
    # 12.5 % is 1/8; with no decimals it may be any k/n from 12 to 13: 1/8, and 2/15, 2/16, 2/17.
    assert arithmetic.possible_n([12.5], 1, 20).tolist() == [8, 16]
    assert arithmetic.possible_n([12.5, 100, 0], 1, 20).tolist() == [8, 16]
    assert arithmetic.possible_n([12.5, 33.3], 1, 24).tolist() == [24]


@pytest.mark.parametrize("value", [12, 13])
def test_a_tie_may_have_been_rounded_either_way(value):
    assert 8 in arithmetic.possible_n([value], 0, 8)


def test_two_thirds_of_f1():
    # 2 tp / (2 tp + errors) = 2/3 takes as many errors as hits.
    found = arithmetic.possible_f1(66.67, 2, 6)
    assert found.tolist() == [[1, 1], [2, 2], [3, 3]]
    # n holds hits and errors; positives hold the hits, and may hold the misses.
    grid = arithmetic.allowed(found[1:2], 5)
    assert np.argwhere(grid).tolist() == [[4, 2], [4, 3], [4, 4], [5, 2], [5, 3], [5, 4]]
    # One hit and one error leave room for more positives than one, three and three do not fit.
    assert arithmetic.supported(found, grid).tolist() == [[1, 1], [2, 2]]


def test_nothing_found_says_little():
    assert arithmetic.possible_f1(0, 2, 2).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert not len(arithmetic.possible_f1(99.99, 2, 10))


def test_mean_pooled_and_neither():
    # Two sets: F1 of 1/1 with 1 hit, and F1 of 2/3 with 1 hit and 1 error. Together 4/5.
    parts = [np.array([[1, 0]]), np.array([[1, 1]])]
    kinds = [
        arithmetic.averaging([100, 66.7], overall, 1, parts) for overall in (83.3, 83.4, 80, 75)
    ]
    assert [found.kind for found in kinds] == ["mean", "mean", "pooled", "neither"]
    assert kinds[2].gap == pytest.approx(-3.35)
    assert arithmetic.averaging([50, 50], 50, 1, [np.array([[1, 2]])] * 2).kind == "mean or pooled"


def test_overall_values_narrow_their_cells():
    # 50 % is (1, 2) or (2, 4), 100 % is (1, 0) to (6, 0). Pooled 66.7 % = 2/3 = 4/6 is (1, 2) with
    # (1, 0), or 8/12: (2, 4) with (2, 0).
    cells = [np.array([[1, 2], [2, 4]]), np.array([[k, 0] for k in range(1, 7)])]
    fits = arithmetic.pooled(cells, 66.7, 1)
    assert np.argwhere(fits).tolist() == [[0, 0], [1, 1]]


def test_span():
    assert [span(x) for x in ([], [3], [3, 4], [3, 4, 5], [3, 6, 9], [3, 6, 9, 12])] == [
        *("none", "3", "3, 4", "3 to 5", "3, 6, 9", "3, 6, 9, ..."),
    ]


def test_docstrings_tell_the_truth():
    assert doctest.testmod(arithmetic) == (0, 4)
    assert doctest.testmod(blind).failed == 0


# The truth is always possible


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_true_counts_are_never_ruled_out(decimals):
    rng = np.random.default_rng(decimals)
    for _ in range(60):
        n = int(rng.integers(5, 140))
        k = rng.integers(0, n + 1, size=4)
        assert n in arithmetic.possible_n(np.round(100 * k / n, decimals), decimals, 140)
        positives = int(rng.integers(1, n))
        tp, fp = rng.integers(0, positives + 1), rng.integers(0, n - positives + 1)
        errors = positives - tp + fp
        f1 = round(200 * tp / (2 * tp + errors), decimals)
        found = arithmetic.possible_f1(f1, decimals, 140)
        assert [tp, errors] in found.tolist()
        assert arithmetic.allowed(found, 140)[n, positives]


def test_solving_keeps_the_truth():
    """A paper made from known counts: two sets, five judges, pooled overall values."""
    rng = np.random.default_rng(7)
    n, positives = np.array([40, 50]), np.array([12, 30])
    rows, truth = [], []
    for judge in range(5):
        tp = rng.integers(1, positives + 1)
        errors = positives - tp + rng.integers(0, n - positives + 1)
        truth.append(np.stack([tp, errors], axis=1))
        f1 = 200 * tp / (2 * tp + errors)
        overall = 200 * tp.sum() / (2 * tp + errors).sum()
        rows.append([str(judge), *(f"{x:.2f}" for x in (*f1, overall))])
    cells = paper_cells(rows)
    grids = counts.grids(cells, {"A": 60, "B": 60})
    found = counts.rows(cells)
    solved = counts.solve(found, counts.start(cells, grids))
    for row, counted in zip(found, truth, strict=True):
        for index, (tp, errors) in zip(row.parts.index, counted, strict=True):
            assert [tp, errors] in solved.cells[index].tolist()
        assert counts.least_rows(row, solved) <= n.sum()
    for name, size, unsafe in zip("AB", n, positives, strict=True):
        assert solved.grids[name][size, unsafe]
        assert solved.grids[name].sum() <= grids[name].sum()


def paper_cells(rows):
    """Cells of a table with the F1 of sets A and B and an overall value."""
    lines = [
        {"table": "t", "row": row, "column": column, "set": column, "metric": metric}
        | {"overall": overall, "printed": text, "value": float(text), "decimals": 2}
        for row, *texts in rows
        for (column, metric, overall), text in zip(
            [("A", "f1", "C"), ("B", "f1", "C"), ("C", "other", "")], texts, strict=True
        )
    ]
    return pd.DataFrame(lines)


# The real tables


def test_every_l1_accuracy_is_a_share_of_118(findings):
    found = about(findings, "sizes", "L1")
    assert "n is 118, 236, 354" in found.follows
    assert found.certainty == "if decimals, same rows"


def test_neither_the_pairs_nor_the_images_of_the_text_fit_l1(findings):
    for claim in ("images", "pairs"):
        found = about(findings, "text", claim)
        assert found.verdict == "contradicts" and "values of L1 are no k/" in found.follows
    assert "none" in about(findings, "unsafe", "L1, L2").follows


def test_overall_of_table_6_is_pooled_and_no_mean(findings):
    rows = [f for f in findings if f.check == "averages" and f.where.startswith("table6")]
    assert len(rows) == 11 and all(f.follows.startswith("pooled") for f in rows)
    assert "2 x 142 / 690" in about(rows, "averages", "GLM-4V-9B").follows
    assert "2 x 120 / 493" in about(rows, "averages", "Qwen2.5-VL-7B").follows
    assert "28.47, the gap -5.74" in about(rows, "averages", "Llama Guard").follows
    claim = about(findings, "text", "macro average")
    assert claim.verdict == "contradicts" and "0 of 11 are means" in claim.follows


def test_overall_of_table_4_is_a_mean_and_of_table_2_mostly_not(findings):
    rows = [f for f in findings if f.check == "averages"]
    kinds = {
        name: [f.follows.startswith("mean") for f in rows if f.where.startswith(name)]
        for name in ("table2", "table4")
    }
    assert (sum(kinds["table2"]), len(kinds["table2"])) == (1, 9)
    assert kinds["table4"] == [True] * 6


def test_the_counts_that_are_left(findings):
    left = {f.where: f.follows for f in findings if f.check == "counts"}
    assert left["L1"] == "n is 118, unsafe 0"
    assert left["L2"] == "n is at least 118, unsafe 8 to 10"
    assert left["L3"] == "n is at least 122, unsafe 19 to 21"
    assert left["L4"] == "n is at least 119, unsafe 53 to 64"
    assert left["L5"] == "n is at least 124, unsafe 73 to 75"
    total = about(findings, "text", "released rows")
    assert total.verdict == "agrees" and "118, 118, 122, 119, 124" in total.follows


def test_most_judges_do_not_beat_flagging_everything_on_l5(findings):
    assert "17 are below that, 1 above" in about(findings, "baselines", "L5").follows
    assert "always answering safe" in about(findings, "baselines", "SFT on L1").follows
    assert "no one answer" in about(findings, "baselines", "QwenGuard-3B").follows


def test_three_rows_need_no_judge_that_reads(findings):
    explained = {f.where for f in findings if f.check == "blind" and "one fixed set" in f.follows}
    assert explained == {"table3, SFT on L1", "table3, RL on L4", "table6, ShieldGemma2"}
    assert "3 could come" in about(findings, "blind", "table3 and table6").follows
    # At least 108 pictures are flagged on L2, and 34 on L5.
    assert "at least 74 more verdicts" in about(findings, "blind", "table6, QwenGuard-7B").follows


@pytest.mark.parametrize("seed", range(20))
def test_a_judge_that_does_not_read_is_always_explained(seed):
    """Flag one random set of 60 pictures under three policies, one of which prohibits nothing."""
    random = np.random.default_rng(seed)
    flagged = random.random(60) < random.random()
    harm = random.random(60)
    columns, candidates, grids = {}, {}, {}
    for k, (name, bar, n) in enumerate([("A", 2.0, 58), ("B", 0.8, 60), ("C", 0.4, 57)]):
        unsafe = harm[:n] > bar
        tp = int((unsafe & flagged[:n]).sum())
        errors = int((unsafe != flagged[:n]).sum())
        columns[k] = ("t", "judge", name, "f1" if unsafe.any() else "accuracy", "1")
        candidates[k] = np.array([[tp, errors]])
        grids[name] = np.zeros((61, 61), bool)
        grids[name][n, unsafe.sum()] = True
    names = ["table", "row", "set", "metric", "printed"]
    cells = pd.DataFrame.from_dict(columns, orient="index", columns=names)
    row, _ = blind.fixed_flags(cells, counts.Counts(grids, candidates))
    assert row.follows.startswith("one fixed set of")


def test_a_judge_that_reads_is_not_explained():
    # 2 of 10 flagged where nothing is unsafe, and at the other level just the 5 unsafe ones.
    cells = pd.DataFrame(
        {"table": "t", "row": "judge", "set": ["A", "B"], "metric": ["accuracy", "f1"]}
    ).assign(printed="1")
    grids = {name: np.zeros((11, 11), bool) for name in "AB"}
    grids["A"][10, 0] = grids["B"][10, 5] = True
    candidates = {0: np.array([[0, 2]]), 1: np.array([[5, 0]])}
    row, every = blind.fixed_flags(cells, counts.Counts(grids, candidates))
    assert "at least 3 more verdicts" in row.follows and "A 2; B 5" in row.follows
    assert "0 could come" in every.follows


def test_what_the_text_says_besides(findings):
    verdicts = {f.where.split(", ", 1)[-1]: f.verdict for f in findings if f.check == "text"}
    for claim in ("gain from RL", "unsafe at L5", "lowest general", "general average"):
        assert verdicts[claim] == "agrees"
    for claim in ("SFT levels", "RL levels", "RealWorldQA rows", "L3 easier than L5"):
        assert verdicts[claim] == "contradicts"
    assert [f.verdict for f in findings if f.check == "repeats"] == ["agrees"]


@pytest.mark.parametrize(
    "file, old, new, check, where",
    [
        ("table6", "65.25", "65.26", "sizes", "L1"),
        ("table6", "41.16", "41.17", "averages", "table6, GLM-4V-9B"),
        ("table6", "41.16", "36.71", "text", "macro average"),
        ("table6", "32.76", "32.77", "repeats", "QwenGuard-7B, SafeEditBench"),
        ("table6", "67.95", "67.96", "unsafe", "L4"),
        ("table3", "84.35", "84.45", "unsafe", "L5"),
        ("table4", "49.16", "49.26", "averages", "table4, Qwen2.5-7B, Safety"),
        ("table4", "53.6,", "53.7,", "sizes", "BLINK"),
        ("table5", "72.16", "72.26", "text", "gain from RL"),
        ("table5", "53.09", "54.09", "text", "lowest general"),
        ("text", "L5,59,", "L5,50,", "counts", "L5"),
        ("text", "L5,62,", "L5,59,", "text", "pairs"),
    ],
)
def test_one_digit_changes_the_finding(findings, edited, file, old, new, check, where):
    before, after = findings, edited(file, old, new)
    assert chosen(before, check, where) != chosen(after, check, where)


def test_the_form_of_findings(findings):
    for found in findings:
        assert found.verdict in VERDICTS and found.follows and found.printed and found.where
        named = found.certainty.removeprefix("if ").split(", ")
        assert found.certainty == "exact" or set(named) <= set(ASSUMPTIONS)


def test_quick():
    begun = time.process_time()
    audit(reference.paper())
    assert time.process_time() - begun < 5


# Another paper


@pytest.fixture
def other(tmp_path):
    """A folder with one table of quarters, and a text that says there were five pairs."""
    head = "# source: made up\n"
    (tmp_path / "t.csv").write_text(head + "who,A,B,All\nx,25,75,50\ny,50,100,70\n")
    columns = "table,column,set,metric,overall\nt,A,A,accuracy,All\nt,B,B,accuracy,All\n"
    (tmp_path / "columns.csv").write_text(head + columns + "t,All,All,other,\n")
    claims = "claim,kind,about,value,where,quote\nsize,pairs,A;B,5,here,five pairs\n"
    (tmp_path / "text.csv").write_text(head + claims + "average,mean,t:*:All,,here,mean\n")
    return tmp_path


def test_another_paper(other):
    findings = audit(reference.paper(other))
    assert about(findings, "text", "size").verdict == "contradicts"
    assert "1 of 2 values of A are no k/10: 25 (x;" in about(findings, "text", "size").follows
    left = [f.follows for f in findings if f.check == "unsafe"]
    assert left == [*["n is 4, 8, unsafe 0 to 8"] * 2, "sizes that fit all of them: 4, 8"]
    assert "1 of 2 are means" in about(findings, "text", "average").follows


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("pairs,", "pair,", "column kind: 'pair'; did you mean pairs"),
        ("A;B", "A;C", "column about: no set 'C'"),
        (",5,", ",five,", "column value: 'five' is no number"),
        ("t:*:All", "t:z:All", "column about: no row 'z'"),
        ("t:*:All", "t:All", "is not table:row:column"),
        ("t:*:All", "t:x:A > t:x:B", "mean takes 1 side"),
        ("t:*:All", "t:*:A", "no columns that 't:\\*:A' summarises"),
    ],
)
def test_claims_about_nothing_are_named(other, old, new, message):
    path = other / "text.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        audit(reference.paper(other))


def test_values_that_contradict_each_other_leave_no_size(other):
    table = other / "t.csv"
    table.write_text(table.read_text().replace("y,50", "y,33"))
    findings = audit(reference.paper(other))
    (found,) = [f for f in findings if f.check == "unsafe" and f.where == "A"]
    assert (found.follows, found.verdict) == ("no n fits", "contradicts")


def test_no_claims_at_all(other):
    (other / "text.csv").write_text("# source: made up\nclaim,kind,about,value,where,quote\n")
    assert {f.check for f in audit(reference.paper(other))} == {"sizes", "averages"}


def test_command_line(other, capsys):
    assert main([str(other)]) == 0
    shown = capsys.readouterr().out
    assert "SIZES" in shown and "if decimals" in shown and "decimals:  " in shown
    assert main([str(other / "none")]) == 2
    assert "no such file" in capsys.readouterr().err
