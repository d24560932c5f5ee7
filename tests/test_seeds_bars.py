"""The bars over training seeds: planted judges, shares worked by hand, unseen pictures."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.experiments import adherence, rationales, seeds, seeds_bars, squares
from sgvl.experiments.claims import Evidence, Term
from sgvl.policies.concepts import named
from sgvl.policies.policy import LEVELS
from sgvl.report.tables import bar_table
from sgvl.text.verdict import SAFE, UNSAFE
from sgvl.world import unseen
from sgvl.world.scenes import SIZE

OTHER = {SAFE: UNSAFE, UNSAFE: SAFE}


def answer(case, verdict):
    sample, policy = case
    about = {"id": sample.id, "policy": policy.name}
    return about | {"verdict": verdict, "p_unsafe": None, "reply": None}


def by_rule(cases):
    return [answer(case, case[1].label(case[0].tags).label) for case in cases]


def always_safe(cases):
    return [answer(case, SAFE) for case in cases]


@pytest.fixture(scope="module")
def edited():
    return seeds_bars.edited(1)


def outcomes(put, edited):
    frame = seeds_bars.ask_edits(put, edited)
    return frame.groupby("alone")["outcome"].agg(set).to_dict()


def test_edits_are_of_each_operator_and_some_of_words_alone(edited):
    operators = {case.edit for case in edited}
    assert operators == set(squares.EDITS) - {"irrelevant rule added"}
    words = {case.edit for case in edited if case.alone}
    assert words == {"clauses reordered", "category spelt out"}
    turned = [case.labels[0] != case.labels[1] for case in edited]
    assert len(edited) == 24 and sum(turned) >= 9  # one picture of two, but of words alone none
    assert not any(case.labels[0] != case.labels[1] for case in edited if case.alone)


def test_planted_judges_of_edits_are_caught(edited):
    """The exact judge; one that read the old policy only; one that flips everything."""
    assert outcomes(by_rule, edited) == {False: {"flip made", "stays"}, True: {"stays"}}
    assert outcomes(always_safe, edited) == {False: {"missed", "stays"}, True: {"stays"}}

    def flips(cases):
        return [answer(case, (SAFE, UNSAFE)[k % 2]) for k, case in enumerate(cases)]

    assert outcomes(flips, edited)[True] == {"collateral"}
    assert "stays" not in outcomes(flips, edited)[False]


def asked(put, judge, seed, edited, drawn):
    """The frames of one judge; of its levels two pictures, of its rationales two of three right."""
    levels = pd.DataFrame(
        [(id, "p", level, label(level)) for id in "ab" for level in LEVELS],
        columns=["id", "pair", "policy", "label"],
    )
    levels["verdict"] = levels["label"] if put is by_rule else SAFE
    if put is not by_rule:  # unsafe under L1 alone: broken in 4 of 10 pairs of levels
        levels.loc[levels["policy"] == "L1", "verdict"] = UNSAFE
    right = [True, put is by_rule, put is by_rule]
    reasons = pd.DataFrame({"id": list("abc"), "pair": list("abc"), "policy": "L2"})
    reasons = reasons.assign(right=right, label=SAFE, verdict_right=[True, True, False])
    reasons = reasons.assign(verdict=np.where(right, SAFE, UNSAFE))
    for column in rationales.MEASURES:
        reasons[column] = reasons.get(column, pd.Series(right))
    frames = {
        "levels": levels,
        "reasons": reasons,
        "squares": squares.ask_squares(put, drawn),
        "edits": seeds_bars.ask_edits(put, edited),
    }
    return {name: frame.assign(judge=judge, seed=seed) for name, frame in frames.items()}


def label(level):
    return UNSAFE if level in ("L4", "L5") else SAFE


@pytest.fixture(scope="module")
def evidence(edited):
    """A judge that one training seed made exact and another made blind, and an exact one."""
    drawn = squares.draw(1)
    parts = [
        asked(by_rule, "full", 1, edited, drawn),
        asked(always_safe, "full", 2, edited, drawn),
        asked(by_rule, "base", 1, edited, drawn),
    ]
    frames = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    first = {name: frames[name] for name in ("levels", "reasons")}  # as ``seeds.ask`` returns them
    return Evidence(first | seeds_bars.judgements(frames, {}), resamples=200)


def test_bars_by_hand_over_two_seeds(evidence):
    table = seeds_bars.bars(evidence, ["base", "full"]).set_index(["judge", "measure"])
    full, base = table.loc["full"], table.loc["base"]
    halves = ["squares right, xor", "flips", seeds_bars.LOST]
    assert set(full.loc[halves, "value"]) == {50} and set(full.loc[halves, "outcome"]) == {
        "not met"
    }
    assert full.loc["stays", ["value", "outcome"]].tolist() == [100, "met"]
    assert full["value"][seeds_bars.EXTRA] == full["value"][seeds_bars.ALONE] == 0
    assert full["value"][seeds_bars.TOGETHER] == 50 - 95
    assert full["value"][seeds_bars.BY_LEVELS] == 20  # (0 + 4 of 10) / 2
    assert full["value"][rationales.RIGHT_REASON] == 75  # (2 of 2 + 1 of 2) / 2
    assert set(full["note"]) == {"2 training seeds"} and full["n"]["squares right, xor"] == 3
    assert set(base["outcome"]) == {"met", ""} and base["outcome"][seeds_bars.ALONE] == ""
    printed = bar_table(table.reset_index())
    assert printed.loc["stays", "bar"] == "at least 98" and printed.loc["flips", "full"].endswith(
        "] not met"
    )
    assert list(printed) == ["bar", "n", "base", "full"]


def test_errors_are_told_apart_by_operator_and_part(evidence):
    table = seeds_bars.by_operator(evidence, ["full"]).set_index(["edit", "measure"])["value"]
    assert table["place swapped", "flips"] == 50 and table["clauses reordered", "stays"] == 100
    assert table["clauses reordered", seeds_bars.ALONE] == 0
    assert np.isnan(table["clauses reordered", "flips"]) and np.isnan(table["rule added", "stays"])
    parts = seeds_bars.by_part(evidence, ["full"]).set_index("measure")["value"]
    assert parts["things seen"] == pytest.approx(100 * (1 + 1 / 3) / 2)


def test_a_reply_names_the_thing_that_decides_or_does_not():
    rows = unseen.unseen("art style", images=2)
    [first], [second], [third], _ = [set(tags) & {*named("harmful")} for tags in rows["tags"]]
    replies = [
        f"I see a {first}.",
        f"{second.capitalize()}!",
        f"I see a pen-{third}.",  # another word
        "I see an object.",
    ]
    own = pd.DataFrame({"id": rows["id"], "pair": rows["pair"], "reply": replies, "policy": "p"})
    own = own.assign(judge="full", seed=1, label=SAFE, verdict=SAFE)
    frames = asked(always_safe, "full", 1, seeds_bars.edited(1)[:2], squares.draw(1)[:1])
    shares = seeds_bars.judgements(frames | {"art style": own}, {"art style": rows})
    table = seeds_bars.things_named(Evidence(shares, resamples=100), ["full"]).set_index("set")
    assert table["value"]["art style"] == 50


def test_an_unasked_measure_is_neither_met_nor_missed():
    none = Evidence({})
    assert set(seeds_bars.bars(none, ["full"])["outcome"]) == {""}
    found = seeds_bars.comparisons(none)
    assert set(found["outcome"]) == {"cannot tell"} and found["note"].str.contains("no ").all()


def of_levels(judge, seed, right):
    """Four pairs under L1 to L5: the first ``right`` of eight answers are right under each."""
    labels = {level: (SAFE if level == "L1" else UNSAFE, SAFE) for level in LEVELS}
    rows = [
        (judge, seed, str(k), str(k // 2), level, labels[level][k % 2], k)
        for level in LEVELS
        for k in range(8)
    ]
    columns = ["judge", "seed", "id", "pair", "policy", "label", "k"]
    frame = pd.DataFrame(rows, columns=columns)
    wrong = frame["label"].map(OTHER)
    return frame.assign(verdict=frame["label"].where(frame["k"] < right, wrong))


def test_judges_that_were_trained_once_stand_beside_the_others_and_are_named():
    frames = {"levels": pd.concat([of_levels("base", 1, 8), of_levels("sft", 1, 6)])}
    frames["levels"] = pd.concat([frames["levels"], of_levels("sft", 2, 8)])
    once = {"levels": pd.concat([of_levels("sft", 7, 0), of_levels("rl", 7, 4)])}
    both = seeds.with_once(frames, once | {"own": pd.DataFrame()})
    levels = both["levels"].groupby("judge")["seed"].agg(set)
    assert levels.to_dict() == {"base": {1}, "sft": {1, 2}, "rl": {0}} and list(both) == ["levels"]
    evidence = Evidence(both, resamples=100)
    gap = evidence.effect(*(Term("levels", judge, ("L1",)) for judge in ("sft", "rl")))
    assert gap.value == 37.5 and gap.note == "2 training seeds, rl: one run"
    assert evidence.effect(*(Term("levels", j, ("L1",)) for j in ("sft", "base"))).note == (
        "2 training seeds"
    )


def test_half_of_what_the_base_could_by_hand():
    """F1 under L2 to L5: the base 100, RL on L1 with 6 of 8 right 75: it lost 25 of 100."""
    frames = {"levels": pd.concat([of_levels("base", 1, 8), of_levels("rl_L1", 1, 6)])}
    found = seeds_bars.comparisons(Evidence(frames, resamples=200)).set_index("statement")
    kept = found.loc["RL on L1 loses less than half of the base under L2 to L5"]
    assert kept["effect"] == -25 and kept["outcome"] in ("holds", "cannot tell")
    worse = {"levels": pd.concat([of_levels("base", 1, 8), of_levels("rl_L1", 1, 0)])}
    found = seeds_bars.comparisons(Evidence(worse, resamples=200)).set_index("statement")
    assert found.loc[kept.name, "effect"] == -100 and found.loc[kept.name, "outcome"] != "holds"


@pytest.mark.parametrize("kind", unseen.KINDS)
def test_unseen_pictures_differ_in_one_respect_and_have_both_labels(kind):
    rows = unseen.unseen(kind, images=14)
    frame = rows.select_columns(["pair", "label", "style", "tags"]).to_pandas()
    assert len(frame) == 28 and set(frame.groupby("pair")["label"].nunique()) == {2}
    assert set(frame["style"]) == {"openmoji" if kind == "art style" else "twemoji"}
    things = frame["tags"].map(len) - 1
    assert set(things) <= ({5, 6} if kind == "five or six things" else {1, 2, 3})
    assert unseen.unseen(kind, images=14)["id"] == rows["id"]


def test_small_things_lie_within_the_picture_and_apart():
    rng = np.random.default_rng(0)
    for _ in range(20):
        things = unseen.on_grid(rng, list("abcdefghi"))
        assert len(things) == 9 and {thing.size for thing in things} == {unseen.SMALL}
        for left, top, right, bottom in (thing.box for thing in things):
            assert 0 <= left < right <= SIZE and 0 <= top < bottom <= SIZE
        for a, b in combinations([thing.box for thing in things], 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"followed": ["fulll"]}, "followed: judge 'fulll'.*full"),
        ({"squares_of": {"xr": 1}}, "kind 'xr'.*xor"),
        ({"images": 0}, "at least 1 picture"),
        ({"sixth": "examples/house.md"}, "text without rules"),
        ({"sixth": "L6"}, "no policy file L6"),
    ],
)
def test_bad_questions_are_refused_before_anything_runs(wrong, message):
    good = {"followed": ["base", "full"], "trained": {"full": "04_grpo.full"}}
    good |= {"squares_of": {"xor": 1}, "images": 1, "sixth": "examples/field_sports.md"}
    seeds_bars.check(**good)
    with pytest.raises(InputError, match=message):
        seeds_bars.check(**good | wrong)


def test_the_order_of_levels_is_counted_by_picture():
    own = pd.DataFrame(
        [("j", "a", "p", "L1", SAFE, UNSAFE), ("j", "a", "p", "L2", SAFE, SAFE)],
        columns=["judge", "id", "pair", "policy", "label", "verdict"],
    )
    [case] = adherence.level_cases(own).to_dict("records")
    assert case["right"] and case["turned"] and case["edit"] == "L1 to L2" and case["square"] == "p"
