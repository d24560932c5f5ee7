"""Each claim in each of its outcomes; effects compared with the metrics; inverted policies."""

import doctest
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.experiments import claims, inversion
from sgvl.experiments.claims import evidence
from sgvl.experiments.claims.evidence import Effect, Evidence, Term
from sgvl.experiments.claims.paper import decide
from sgvl.judges import Judge, Judgement, make_judge
from sgvl.policies.concepts import PLACES, concepts
from sgvl.policies.policy import LEVELS, load, load_all
from sgvl.scores import intervals
from sgvl.scores.metrics import difference
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

HOLDS, FAILS, UNSURE = "holds", "does not hold", "cannot tell"
N = 120  # answers of a judge in a frame, and under each level
OTHER = {SAFE: UNSAFE, UNSAFE: SAFE}

# -- hand-built frames: who is right how often -----------------------------------------------------


def right(share, judge):
    """N answers, ``share`` of them right. Judges err on different answers: their gap then varies
    from draw to draw."""
    start = 7 * claims.JUDGES.index(judge)
    return (np.arange(N) + start) % N < round(share * N)


def judged(judge, share, policy, pairs=True):
    """Half unsafe, nothing unsafe under L1; the two members of a pair have opposite labels."""
    ids = [str(k) for k in range(N)]
    label = np.where((np.arange(N) % 2 == 0) & (policy != "L1"), UNSAFE, SAFE)
    verdict = [x if ok else OTHER[x] for x, ok in zip(label, right(share, judge), strict=True)]
    pair = [str(k // 2 if pairs else k) for k in range(N)]
    frame = {"judge": judge, "id": ids, "pair": pair, "policy": policy, "label": label}
    return pd.DataFrame(frame | {"verdict": verdict})


def levels(judge, share):
    """``share`` under every level, or a dict by level."""
    shares = share if isinstance(share, dict) else dict.fromkeys(LEVELS, share)
    return pd.concat(judged(judge, shares[level], level) for level in LEVELS)


def finds(judge, share):
    """All safe pictures are called safe, and ``share`` of the unsafe ones unsafe."""
    frame, correct = levels(judge, 1.0), right(share, judge)
    missed = (frame["label"] == UNSAFE) & ~correct[frame["id"].astype(int) // 2 * 2 % N]
    return frame.assign(verdict=frame["verdict"].mask(missed, SAFE))


def general(judge, share):
    answers = {"id": [f"q{k}" for k in range(N)], "task": "choice", "right": right(share, judge)}
    answers["unparseable"] = False
    return pd.DataFrame(answers | {"judge": judge, "given": np.where(answers["right"], "A", "B")})


def form(judge, share):
    """Never right; ``share`` of the answers are a letter, as was asked, and the others are not."""
    given = np.where(right(share, judge), "C", '{"rating": "safe"')
    return general(judge, 0.0).assign(given=given)


def naming(judge, share):
    rows = {"id": [str(k) for k in range(N)], "thing": "knife", "group": "harmful"}
    return pd.DataFrame(rows | {"judge": judge, "caption": "", "right": right(share, judge)})


def content(judge, share):
    return judged(judge, share, "Hate", pairs=False)


def own(judge, share):
    return judged(judge, share, "llavaguard-nano")


def following_harmful(judge, share):
    return judged(judge, share, "following-harmful")


BASE, SFT, PLAIN, RL, EDITED, FULL, FIXED = claims.JUDGES[:7]
GAIN = [(0.9, 0.6), (0.6, 0.9), (0.7, 0.7)]  # of a first judge over a second: each outcome
LOSS = [(0.6, 0.9), (0.9, 0.6), (0.7, 0.7)]
KEPT = [(0.95, 0.9), (0.5, 0.9), (0.85, 0.9)]

# claim: a frame and a judge for each side; then both sides' shares for each outcome in turn.
ONE = {
    "sft on l1 degenerates": (finds, "sft_L1", (0.0, 0.5, 0.1)),
    "rl on l1 does not degenerate": (finds, "rl_L1", (0.5, 0.0, 0.1)),
    "conventional levels are easier": (
        levels,
        BASE,
        [{x: 0.9 if x in best else 0.6 for x in LEVELS} for best in (("L3", "L4"), ("L1", "L5"))]
        + [dict.fromkeys(LEVELS, 0.8) | {"L1": 0.64, "L5": 0.9}],
    ),
}
TWO = {
    "sft on l1 hurts other levels": (levels, "sft_L1", levels, BASE, LOSS),
    "sft on l5 hurts other levels": (levels, "sft_L5", levels, BASE, LOSS),
    "rl on l5 overfits less": (levels, "rl_L5", levels, "sft_L5", GAIN),
    "sft teaches names": (naming, SFT, naming, BASE, GAIN),
    "recaption helps": (content, SFT, content, PLAIN, GAIN),
    "rl adds to sft": (content, FULL, content, SFT, GAIN),
    "both stages beat the base": (content, FULL, content, BASE, GAIN),
    "both stages keep general ability": (general, FULL, general, BASE, KEPT),
    "rl keeps general ability": (general, RL, general, BASE, KEPT),
    "the fixed taxonomy loses general ability": (general, FIXED, general, BASE, LOSS),
    "the fixed taxonomy loses instruction following": (form, FIXED, form, BASE, LOSS),
    "the fixed taxonomy leads at home": (own, FIXED, own, RL, GAIN),
    "the fixed taxonomy trails elsewhere": (content, FIXED, content, RL, LOSS),
    "rl beats the fixed taxonomy across levels": (levels, RL, levels, FIXED, GAIN),
    "both stages follow unseen policies": (following_harmful, FULL, following_harmful, BASE, GAIN),
    "safeedit data helps": (levels, EDITED, levels, RL, GAIN),
    "minimal edits are harder": (levels, FULL, content, FULL, LOSS),
}
NAME_OF = {finds: "levels", form: "general"}  # other builders bear the name of their frame


def cases():
    for name, (make, judge, shares) in ONE.items():
        for share, outcome in zip(shares, (HOLDS, FAILS, UNSURE), strict=True):
            yield pytest.param(name, [(make, judge, share)], outcome, id=f"{name}: {outcome}")
    for name, (make_a, a, make_b, b, shares) in TWO.items():
        for (x, y), outcome in zip(shares, (HOLDS, FAILS, UNSURE), strict=True):
            sides = [(make_a, a, x), (make_b, b, y)]
            yield pytest.param(name, sides, outcome, id=f"{name}: {outcome}")


def frames_of(sides):
    parts: dict[str, list] = {}
    for make, judge, share in sides:
        parts.setdefault(NAME_OF.get(make, make.__name__), []).append(make(judge, share))
    return {name: pd.concat(own, ignore_index=True) for name, own in parts.items()}


def table(frames, resamples=300):
    return claims.claims(frames, "test", resamples=resamples).set_index("name")


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, sides, outcome", list(cases()))
def test_every_claim_in_each_outcome(name, sides, outcome):
    row = table(frames_of(sides)).loc[name]
    assert row["outcome"] == outcome
    assert row["low"] <= row["effect"] <= row["high"] and row["high"] - row["low"] > 0
    assert row["n"] >= N // 2 and row["note"] == "one training run" and row["profile"] == "test"


def test_every_claim_has_its_cases_and_says_where_it_stands():
    tested = table({})
    assert set(tested.index) == {*ONE, *TWO} and len(tested) >= 10
    assert tested["statement"].str.contains(r"\((?:Table|Figure|section|abstract)").all()
    assert list(tested.columns) == [*claims.Claim._fields[1:], "profile"]


def test_a_claim_is_vacuous_where_a_training_changed_no_answer():
    """Found 50 % before and after; one other verdict of the same judge, and it holds."""
    frames = frames_of([(finds, BASE, 0.5), (finds, "rl_L1", 0.5)])
    own = frames["levels"]["judge"] == "rl_L1"
    start = frames["levels"].loc[~own, "verdict"].to_numpy()
    frames["levels"].loc[own, "verdict"] = start
    name = "rl on l1 does not degenerate"
    assert table(frames).loc[name, "outcome"] == "vacuous"
    other = own & (frames["levels"]["policy"] == "L1") & (frames["levels"]["id"] == "3")
    frames["levels"].loc[other, "verdict"] = UNSAFE
    assert table(frames).loc[name, "outcome"] == HOLDS


def test_the_effect_is_the_paired_difference_of_the_scores():
    frames = frames_of([(content, SFT, 0.9), (content, PLAIN, 0.6)])
    row = table(frames).loc["recaption helps"]
    known = difference(frames["content"], SFT, PLAIN, resamples=300)
    assert tuple(row[["effect", "low", "high"]]) == pytest.approx(known)
    frames = frames_of([(levels, EDITED, 0.8), (levels, RL, 0.7)])
    row = table(frames).loc["safeedit data helps"]
    known = difference(frames["levels"], EDITED, RL, "macro", resamples=300)
    assert tuple(row[["effect", "low", "high"]]) == pytest.approx(known)


def test_an_unparseable_answer_is_a_wrong_one():
    frames = frames_of([(finds, "sft_L1", 0.0)])
    answers = frames["levels"]
    unparseable = answers.assign(
        verdict=answers["verdict"].mask(answers["label"] == UNSAFE, UNPARSEABLE)
    )
    same = [table({"levels": x}).loc["sft on l1 degenerates"] for x in (answers, unparseable)]
    pd.testing.assert_series_equal(*same)
    assert same[0]["effect"] == 0 and same[0]["high"] > 0  # 0 of 60 pairs is not certainty


def test_what_is_missing_is_named_and_decides_nothing():
    frames = frames_of([(content, SFT, 0.9), (levels, BASE, 0.9)])
    frames["levels"] = frames["levels"].query("policy != 'L5'")
    tested = table(frames)
    assert set(tested["outcome"]) == {UNSURE} and tested["effect"].isna().all()
    notes = tested["note"]
    assert notes["recaption helps"] == "no judge no_recap in content"
    assert notes["rl keeps general ability"] == "no answers: general"
    assert notes["conventional levels are easier"] == "base has no L5 in levels"
    assert notes["sft on l1 degenerates"] == "no judge sft_L1 in levels"


def test_judges_that_answered_different_rows_are_not_compared():
    frames = frames_of([(content, SFT, 0.9), (content, PLAIN, 0.6)])
    frames["content"] = frames["content"].iloc[:-1]
    row = table(frames).loc["recaption helps"]
    assert row["outcome"] == UNSURE and "different rows of content" in row["note"]


def test_a_rate_without_its_class_is_unknown():
    frames = frames_of([(finds, "sft_L1", 0.5)])
    frames["levels"] = frames["levels"].query("policy == 'L1'")
    assert "a class is absent" in table(frames).loc["sft on l1 degenerates", "note"]


def test_a_broken_frame_is_named():
    frame = content(SFT, 0.9)
    with pytest.raises(InputError, match="content: verdict allows"):
        table({"content": frame.assign(verdict="maybe")})
    with pytest.raises(InputError, match="more than one verdict"):
        table({"content": pd.concat([frame, frame])})


@pytest.mark.parametrize(
    "low, high, above, below",
    [(1, 2, HOLDS, FAILS), (-2, -1, FAILS, HOLDS), (0, 1, UNSURE, UNSURE)],
)
def test_the_rule(low, high, above, below):
    effect = Effect((low + high) / 2, low, high, 10, "")
    assert decide(effect, above=0) == above and decide(effect, below=0) == below


def test_members_of_a_pair_travel_together_when_things_are_named():
    frames = frames_of([(naming, SFT, 0.9), (naming, BASE, 0.6)])
    assert table(frames).loc["sft teaches names", "n"] == N
    frames |= frames_of([(levels, BASE, 0.5)])
    assert table(frames).loc["sft teaches names", "n"] == N // 2


# -- training seeds --------------------------------------------------------------------------------


def seeded(judge, shares, first=0):
    runs = [content(judge, x).assign(seed=first + k) for k, x in enumerate(shares)]
    return pd.concat(runs, ignore_index=True)


def test_seeds_are_a_random_effect():
    base, one = content(BASE, 0.6), seeded(FULL, [0.8])
    single, same, apart = (
        table({"content": pd.concat([base, runs])}).loc["both stages beat the base"]
        for runs in (one, seeded(FULL, [0.8] * 3), seeded(FULL, [0.7, 0.8, 0.9]))
    )
    # Three equal runs say what one says; runs that differ say less, about the same mean.
    assert tuple(same[["low", "high"]]) == pytest.approx(tuple(single[["low", "high"]]))
    assert apart["effect"] == pytest.approx(single["effect"], abs=1)
    assert apart["low"] < single["low"] - 5 and apart["high"] > single["high"] + 5
    assert (single["outcome"], apart["outcome"]) == (HOLDS, UNSURE)
    assert apart["note"] == "3 training seeds" and apart["n"] == N


def test_runs_of_one_seed_are_compared_with_each_other():
    """What both stages share, the seed of the first, takes no part in their difference."""
    both = pd.concat([seeded(FULL, [0.7, 0.8, 0.9]), seeded(SFT, [0.5, 0.6, 0.7])])
    matched = table({"content": both}).loc["rl adds to sft"]
    crossed = both.assign(seed=np.where(both["judge"] == FULL, 2 - both["seed"], both["seed"]))
    crossed = table({"content": crossed}).loc["rl adds to sft"]
    assert crossed["effect"] == pytest.approx(matched["effect"])
    assert crossed["high"] - crossed["low"] > 1.5 * (matched["high"] - matched["low"])
    strangers = pd.concat([seeded(FULL, [0.7, 0.8]), seeded(SFT, [0.5, 0.6], first=5)])
    note = table({"content": strangers}).loc["rl adds to sft", "note"]
    assert note == "full and sft have no training seed in common"


def test_verdicts_are_the_same_if_they_are_so_seed_by_seed():
    """Two runs that differ from each other, and a second training that changed neither."""
    before = pd.DataFrame({"id": ["a", "b"] * 2, "seed": [0, 0, 1, 1], "policy": "Hate"})
    before = before.assign(pair=before["id"], label=[UNSAFE, SAFE] * 2, judge=SFT)
    before["verdict"] = [UNSAFE, SAFE, SAFE, UNSAFE]
    after = before.assign(judge=FULL)
    once = before[before["seed"] == 0].assign(judge=BASE)
    facts = Evidence({"content": pd.concat([before, after, once])})
    assert facts.same(SFT, FULL)
    assert not facts.same(BASE, FULL), "of two runs, the second differs from the one of the base"
    assert not facts.same(BASE, RL), "that was not asked"
    after.loc[3, "verdict"] = SAFE
    assert not Evidence({"content": pd.concat([before, after])}).same(SFT, FULL)


def test_the_interval_over_seeds_holds_the_truth():
    """Three runs whose skill differs: the truth is the mean skill of all runs there could be."""
    rng, weights, covered = np.random.default_rng(0), intervals.resample(80, 200, 0), 0
    for _ in range(200):
        runs = []
        for skill in rng.normal(0.7, 0.08, 3):
            ok = rng.random(80) < skill
            counts = np.stack([0 * ok, ~ok, 0 * ok, ok], axis=1).astype(float)
            runs.append(intervals.bootstrap(counts, weights, "accuracy"))
        low, high = evidence.over_seeds(runs).bounds()
        covered += low <= 0.7 <= high
    assert covered >= 0.93 * 200


def test_two_sets_are_drawn_apart():
    """The interval of a difference between sets is that of its two sides, added as squares."""
    frames = frames_of([(levels, FULL, 0.7), (content, FULL, 0.8)])
    sides = Term("levels", FULL, ("L4",)), Term("content", FULL)
    measured = Evidence(frames, resamples=4000)
    half = [(e.high - e.low) / 2 for e in (measured.effect(*sides), *map(measured.effect, sides))]
    assert half[0] == pytest.approx(np.hypot(*half[1:]), rel=0.05)
    assert measured.effect(*sides).n == N // 2 + N


# -- the policy turned round -----------------------------------------------------------------------

ALL = [*load_all(), load("openai_content"), load("llavaguard")]
BLANK = Image.new("RGB", (8, 8))


@pytest.mark.parametrize("policy", ALL, ids=lambda p: p.name)
def test_every_status_turns_and_turns_back(policy):
    inverse, back = inversion.invert(policy), inversion.invert(inversion.invert(policy))
    assert (inverse.name, back.name) == (f"{policy.name}-inverted", policy.name)
    for concept, place in itertools.product(concepts(), (*PLACES, None)):
        statuses = [p.item(concept, place).status for p in (policy, inverse, back)]
        assert statuses[0] == statuses[2] != statuses[1]
    assert back.render("brief") == policy.render("brief") != inverse.render("brief")
    assert inversion.invert(back).render("full") == inverse.render("full")
    assert inverse.title == back.title  # they differ in their rules alone


def scenes():
    """Single things at every place, and two scenes of two things."""
    single = [(c, place) for c in ("knife", "dog", "hug", "pill") for place in ("museum", "clinic")]
    tags = [*single, ("knife", "dog", "street"), ("dog", "apple", "street")]
    return [Sample("-".join(t), BLANK, frozenset(t)) for t in tags]


def both_ways(judge, samples, policies):
    """Ask a judge without storing anything."""

    def ask(cases):
        answers = zip(cases, judge.judge(cases), strict=True)
        return [{"id": s.id, "policy": p.name} | answer._asdict() for (s, p), answer in answers]

    return inversion.ask_both_ways(ask, samples, policies).assign(judge=judge.id)


def test_the_label_of_a_single_thing_always_turns():
    rows = both_ways(make_judge("rule"), scenes(), ALL)
    cases = rows.groupby("id").size()
    assert (cases.drop(["knife-dog-street", "dog-apple-street"]) == len(ALL)).all()
    assert cases["dog-apple-street"] == len(ALL)  # all permitted or all prohibited
    mixed = rows[rows["id"] == "knife-dog-street"]["policy"]
    assert set(mixed) == {"L1"}  # where one is permitted and one not, it is unsafe both ways
    assert set(rows["label"]) == {SAFE, UNSAFE}
    assert (rows["label"] != rows["inverted_label"]).all()


class Scripted(Judge):
    """Says what ``say`` makes of the exact label."""

    def __init__(self, id, say):
        self.id, self.say = id, say

    def judge(self, cases):
        return [Judgement(self.say(policy.label(s.tags).label)) for s, policy in cases]


def test_how_often_verdicts_turn():
    judges = [
        make_judge("rule"),
        make_judge("always_safe"),
        make_judge("always_unsafe"),
        Scripted("contrary", OTHER.get),
        Scripted("half mute", lambda label: label if label == SAFE else UNPARSEABLE),
    ]
    rows = pd.concat(both_ways(judge, scenes(), ALL) for judge in judges)
    rates = inversion.flip_rates(rows, resamples=300).set_index(["judge", "measure"])
    values = rates["value"].unstack()[["turned", "turned rightly"]]
    assert tuple(values.loc["rule"]) == (100, 100)
    assert tuple(values.loc["always_safe"]) == tuple(values.loc["always_unsafe"]) == (0, 0)
    assert tuple(values.loc["contrary"]) == (100, 0)
    assert tuple(values.loc["half mute"]) == (0, 0)
    # Nothing varies here, so Wilson over the ten pictures says how sure that is.
    low = 100 * intervals.wilson(1, 10)[0]
    assert rates.loc[("rule", "turned"), "low"] == pytest.approx(low)
    assert set(rates["n"]) == {len(rows) // len(judges)}


def test_shares_are_of_cases_and_intervals_over_pictures():
    rows = both_ways(make_judge("rule"), scenes(), ALL)
    of_dogs = rows["id"].str.startswith("dog")
    rows["inverted_verdict"] = rows["inverted_verdict"].mask(of_dogs, rows["verdict"])
    rates = inversion.flip_rates(rows).set_index("measure").loc["turned"]
    assert rates["value"] == pytest.approx(100 * (1 - of_dogs.mean()))
    narrow = 100 * intervals.wilson(1 - of_dogs.mean(), len(rows))
    assert rates["high"] - rates["low"] > 1.5 * (narrow[1] - narrow[0])


def test_the_probe_refuses_what_it_cannot_label():
    with pytest.raises(InputError, match="without tags: photo"):
        both_ways(make_judge("always_safe"), [Sample("photo", BLANK)], ALL)
    mixed = Sample("two", BLANK, frozenset({"knife", "dog", "street"}))
    with pytest.raises(InputError, match="the same label under a policy and its inverse"):
        both_ways(make_judge("rule"), [mixed], [load("L4")])


def test_docstrings_tell_the_truth():
    assert doctest.testmod(inversion) == (0, 2)


def test_an_answer_to_a_published_question_has_the_form_asked_for_if_it_names_an_option():
    rows = [("mmmu-0", "A", False, False), ("mmmu-1", '{"rating": "Safe"}', False, True)]
    general = pd.DataFrame(rows, columns=["id", "given", "right", "unparseable"])
    general = general.assign(judge="base", task="mmmu", category="Art")
    assert Evidence({"general": general}, resamples=100).effect(Term("form", "base")).value == 50
