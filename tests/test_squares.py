"""Squares: every edit is minimal, blind judges get none right, and each planted fault is caught."""

import pandas as pd
import pytest

from sgvl.experiments import adherence, benchmark, benchmark_files, squares
from sgvl.judges import Judgement, ask_all
from sgvl.judges.baselines import RuleJudge
from sgvl.policies.policy import Policy
from sgvl.policies.rules import OPPOSITE
from sgvl.world import pairs, sets

PER_EDIT = 8


@pytest.fixture(scope="module")
def drawn():
    return squares.draw(PER_EDIT)


def answers(judge, drawn, folder):
    frame = squares.ask_squares(lambda cases: ask_all(judge, cases, folder), drawn)
    return frame.assign(judge=judge.id)


NO_LEVELS = pd.DataFrame(columns=benchmark_files.FRAMES["levels"])


def values(frame):
    return adherence.measure(frame, resamples=50).set_index("measure")["value"]


@pytest.mark.parametrize("edit", squares.EDITS)
def test_two_hundred_squares_of_each_edit_are_minimal_and_have_the_labels_of_their_kind(edit):
    many = squares.draw(200, edits=[edit])
    assert len({square.id for square in many}) == len(many) == 200
    patterns = {
        "xor": {"su/us", "us/su"},
        "3:1": {"us/ss", "su/ss", "su/uu", "us/uu", "ss/us", "ss/su", "uu/su", "uu/us"},
        "same": {"uu/ss", "ss/uu"},
    }
    for square in many:
        words = "/".join("".join(label[0] for label in row) for row in square.labels())
        assert words in patterns[square.kind], square.id
        assert square.is_minimal() and (square.kind != "same" or not changes_a_label(square))
    assert sum(square.policies[0].default == "prohibited" for square in many) == 50


def changes_a_label(square):
    return any(before != after for before, after in square.labels().tolist())


def test_an_edit_that_changes_more_than_it_says_is_not_minimal(drawn):
    square = next(s for s in drawn if s.edit == "rule added")
    before, after = square.policies
    turned = Policy.model_validate(
        after.model_dump(by_alias=True) | {"default": OPPOSITE[after.default]}
    )
    assert square.is_minimal()
    assert not square._replace(policies=(before, turned)).is_minimal()
    same = next(s for s in drawn if s.edit == "clauses reordered")
    assert not same.changed and same.policies[0].compare(same.policies[1]) == []


def test_the_exact_judge_gets_everything_right(drawn, tmp_path):
    frame = answers(RuleJudge(), drawn, tmp_path)
    assert list(frame) == squares.COLUMNS and len(frame) == 4 * PER_EDIT * len(squares.EDITS)
    found = values(frame)
    assert found.pop("order broken") == 0 and set(found) == {100.0}
    changes = adherence.measure(frame, resamples=50).set_index("measure")["change"]
    assert changes["flips"] == 1 and changes["stays"] == 0
    assert set(adherence.by_edit(frame)["value"]) == {100.0}


class Blind(RuleJudge):
    """The best judge of one half of the input: cells that look alike get their commoner label."""

    reads_tags = False

    def __init__(self, drawn, half):
        super().__init__(f"blind_{half}")
        self.half, self.votes = half, {}
        for square in drawn:
            for i, row in enumerate(square.labels()):
                for j, label in enumerate(row):
                    self.votes.setdefault(self.key(square, i, j), []).append(label)

    def key(self, square, i, j):
        picture, version = ("original", "edited")[i], ("before", "after")[j]
        return {
            "picture": f"{square.id}-{picture}",
            "policy": f"{square.id}-{version}",
            "nothing": square.id,
        }[self.half]

    def identity(self):
        return {"kind": self.id}

    def _judgement(self, sample, policy):
        id_ = {
            "picture": sample.id,
            "policy": policy.name,
            "nothing": policy.name.rpartition("-")[0],
        }[self.half]
        votes = self.votes[id_]
        return Judgement(max(sorted(set(votes)), key=votes.count))


@pytest.mark.parametrize("half", ["picture", "policy", "nothing"])
def test_a_judge_of_half_of_the_input_reaches_its_ceiling_and_no_more(drawn, tmp_path, half):
    """The best such judge: no square right but, for pictures alone, those that mean the same."""
    frame = answers(Blind(drawn, half), drawn, tmp_path)
    found = values(frame)
    assert found["squares right, xor"] == found["squares right, 3:1"] == 0
    assert found["squares right, same"] == (100 if half == "picture" else 0)
    drawn = adherence.chart({"squares": frame, "levels": NO_LEVELS}, resamples=50)
    ceilings = drawn.dropna(subset="blind").set_index(["panel", "measure"])
    assert len(ceilings) == 4 and (ceilings["value"] == ceilings["blind"]).all()


class Planted(RuleJudge):
    """The exact judge with one fault: it judges by another policy than the one that it is given."""

    def __init__(self, id, misread):
        super().__init__(id)
        self.misread = misread

    def identity(self):
        return {"kind": self.id}

    def _judgement(self, sample, policy):
        return super()._judgement(sample, self.misread(policy))


def with_rules(policy, rules, **more):
    fields = policy.model_dump(by_alias=True) | {"rules": rules} | more
    return Policy.model_validate(fields)


def no_exceptions(policy):
    return with_rules(policy, [r.model_dump(by_alias=True) | {"except": []} for r in policy.rules])


def first_clause(policy):
    return with_rules(policy, [rule.model_dump(by_alias=True) for rule in policy.rules[:1]])


def safe_if_long(policy):
    return with_rules(policy, [], default="permitted") if len(policy.rules) > 4 else policy


def test_a_judge_that_ignores_exceptions_is_caught_by_their_edits(drawn, tmp_path):
    frame = answers(Planted("no_exceptions", no_exceptions), drawn, tmp_path)
    right = adherence.by_edit(frame).set_index("edit")["value"]
    assert right["exception added"] == right["exception removed"] == right["place swapped"] == 0
    assert right["rule with exception turned"] == 0 and right["irrelevant rule added"] > 60


def test_a_judge_that_reads_only_the_first_clause_is_caught_by_their_order(drawn, tmp_path):
    frame = answers(Planted("first_clause", first_clause), drawn, tmp_path)
    right = adherence.by_edit(frame).set_index("edit")["value"]
    assert right["clauses reordered"] < 50 and values(frame)["stays"] < 95


def test_a_judge_that_prefers_safe_for_long_policies_is_caught_by_clauses_that_change_nothing(
    drawn, tmp_path
):
    found = values(answers(Planted("safe_if_long", safe_if_long), drawn, tmp_path))
    assert found["stays"] < 95


def test_a_hand_worked_square_and_its_measures():
    cells = [("original", "before", "unsafe"), ("original", "after", "safe")]
    cells += [("edited", "before", "safe"), ("edited", "after", "safe")]
    rows = [
        {"judge": judge, "square": "s", "edit": "exception added", "kind": "3:1",
         "default": "permitted", "picture": picture, "version": version, "label": label,
         "verdict": verdict, "p_unsafe": p, "reply": ""}
        for judge, said in {
            "right": [("unsafe", 0.9), ("safe", 0.2), ("safe", 0.1), ("safe", 0.1)],
            "stuck": [("unsafe", 0.9), ("unsafe", 0.8), ("safe", 0.1), ("safe", 0.1)],
            "turned": [("safe", 0.1), ("unsafe", 0.9), ("safe", 0.1), ("safe", 0.1)],
        }.items()
        for (picture, version, label), (verdict, p) in zip(cells, said, strict=True)
    ]  # fmt: skip
    table = adherence.measure(pd.DataFrame(rows), resamples=10).set_index(["judge", "measure"])
    value = table["value"]
    assert [value[j, "squares right, 3:1"] for j in ("right", "stuck", "turned")] == [100, 0, 0]
    assert [value[j, "flips"] for j in ("right", "stuck", "turned")] == [100, 0, 100]
    assert [value[j, "order broken"] for j in ("right", "stuck", "turned")] == [0, 0, 100]
    assert table["change"]["right", "flips"] == pytest.approx(0.7)
    assert table["n"]["right", "stays"] == 0


def test_levels_are_in_order_or_not_and_published_ones_only_where_their_labels_are():
    frame = pd.DataFrame(
        [("j", "a", "L2", "safe", "unsafe"), ("j", "a", "L3", "unsafe", "safe"),
         ("j", "b", "L2", "safe", "safe"), ("j", "b", "L3", "safe", "unsafe"),
         ("j", "b", "L1", "unsafe", "unsafe")],
        columns=["judge", "id", "policy", "label", "verdict"],
    ).assign(pair=lambda rows: rows["id"])  # fmt: skip
    (row,) = adherence.level_order(frame, resamples=10).to_dict("records")
    assert (row["n"], row["value"]) == (2, 50), "labels turn back from L1 to L2 and to L3"


def test_the_panel_asks_them_and_capabilities_follow(drawn, tmp_path):
    bench, content = (
        pairs.safeeditbench(per_category=1).select(range(2)),
        sets.unsafebench(per_category=2),
    )
    asked = benchmark.TestSets(bench, content, None, {}, [])
    specs = [{"kind": "rule"}, {"kind": "always_unsafe"}]
    panel = benchmark.ask_panel(specs, [], asked, ["L4"], tmp_path, single=2, drawn_squares=drawn)
    table = adherence.capabilities(panel.frames, resamples=20).set_index(["judge", "measure"])
    assert set(table.loc["rule", "value"]) == {100.0} and len(table) == 6
    constant = table.loc["always_unsafe", "value"]
    assert constant["turns with the policy"] == constant["a category can be added"] == 0
    assert constant["stays when the wording changes"] == 100


def test_allow_lists_are_scored_apart():
    """A judge that calls everything safe that comes under an allow-list, and is right elsewhere."""
    rows = [
        (judge, f"{default}-{k}-{label}", f"{default}-{k}", default, label,
         label if judge == "exact" or default == "permitted" else "safe")
        for judge in ("exact", "lax")
        for default in ("permitted", "prohibited")
        for k in range(4)
        for label in ("safe", "unsafe")
    ]  # fmt: skip
    columns = ["judge", "id", "pair", "default", "label", "verdict"]
    frame = pd.DataFrame(rows, columns=columns)
    levels = frame.assign(policy=frame["default"].map({"permitted": "L3", "prohibited": "L5"}))
    frames = {"levels": levels, "following_neutral": frame.assign(policy="drawn")}
    frames["squares"] = pd.DataFrame(columns=squares.COLUMNS)
    table = adherence.allow_lists(frames, resamples=20).set_index(["judge", "measure"])
    assert set(table.loc["exact", "value"]) == {100.0}
    lax = table.loc["lax"]
    assert lax.loc["levels, allow-lists", ["n", "value"]].tolist() == [8, 50]
    assert lax.loc["random policies, allow-lists", ["n", "value"]].tolist() == [4, 0]
    assert set(lax.loc[["levels, others", "random policies, others"], "value"]) == {100}
