"""The bars over training seeds: does a judge follow the policy, and only it, wherever it may be?

``ask`` puts further questions to models that were trained several times: squares, edits of a
policy, and what no training showed. ``judgements`` turns the answers into frames of right and
wrong ones, so that ``claims.Evidence`` gives each share, over seeds, its interval.

An edit is what ``squares`` makes of a random policy: one clause, one place or the default. It is
tried on two pictures that ``world.edits`` draws: one whose label it changes, and a random one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, need_known
from sgvl.data import Sample, store
from sgvl.data.cases import Cases, cases_of
from sgvl.experiments import adherence, judging, rationales, squares
from sgvl.experiments.ability import Ask
from sgvl.experiments.claims import Effect, Evidence, Term
from sgvl.experiments.claims.paper import KEPT, Claim, decide
from sgvl.experiments.policy_diff import COLLATERAL, MADE, MISSED, STAYS, TOLERANCES, outcome_of
from sgvl.experiments.seeds import spec_of
from sgvl.judges import ask_all, make_judge
from sgvl.policies.concepts import named
from sgvl.policies.policy import LEVELS, Policy, load
from sgvl.scores.bars import LEAST, MOST
from sgvl.scores.metrics import of_right
from sgvl.text.words import words
from sgvl.world import edits, unseen

DRAWS = 1  # seed of the edited policies; squares have 0
SIXTH, AS_TRAINED = "a sixth policy", "following_harmful"
LOST, EXTRA, ALONE = "expected flips missed", "collateral flips", "flips, words alone"
BY_LEVELS = "order broken, L1 to L5"
TOGETHER = "flips and stays, smaller distance"
# The bars in percent: a measure, its bound, and whether it is the least value or the largest.
BARS = [
    *((name, bound, True) for name, bound in LEAST.items()),
    ("order broken", MOST["order broken"], False),
    (BY_LEVELS, MOST["order broken"], False),
    (LOST, TOLERANCES[MISSED], False),
    (EXTRA, TOLERANCES[COLLATERAL], False),
]
BY_OPERATOR = ("squares right", "flips", "stays", LOST, EXTRA, ALONE)
NAMED = "{}: the deciding thing is named"
EDITED = [
    *("square", "edit", "alone", "picture", "label_before", "label"),
    *("verdict_before", "verdict", "outcome"),
]


class Edited(NamedTuple):
    """One picture under both versions of an edited policy."""

    square: str  # id of the edit
    edit: str  # its operator
    alone: bool  # whether it changes words alone
    sample: Sample
    versions: tuple[Policy, Policy]  # before the edit and after it
    labels: tuple[str, str]


class Questions(NamedTuple):
    """What is asked beyond the sets of 05."""

    squares: list[squares.Square]
    edited: list[Edited]
    unseen: dict[str, Dataset]  # rows with policies of their own, by kind
    sixth: tuple[Cases, Sequence[Sample]]  # a policy document that no training used


def check(followed: list, trained: Mapping, squares_of: Mapping, images: int, sixth: str) -> None:
    """Check what is asked beyond the sets of 05, before anything runs.

    Raises InputError for a judge that is not trained again, a kind of squares that there is not, no
    picture, and a policy that is missing or labels no picture.
    """
    if images < 1:
        raise InputError("unseen: draw at least 1 picture of each kind")
    for judge in followed:
        need_known("followed: judge", judge, ["base", *trained])
    for kind in squares_of:
        need_known("squares_per_edit: kind", kind, {edit.kind for edit in squares.EDITS.values()})
    if load(sixth).default is None:
        raise InputError(f"sixth: {sixth}: text without rules labels no picture")


def questions(
    bench: Dataset, squares_of: Mapping[str, int], edits_of: int, images: int, sixth: str
) -> Questions:
    """Draw what is asked beyond the sets of 05.

    Parameters
    ----------
    bench : pairs; ``images`` of them come under the sixth policy
    squares_of : squares of each edit, by kind
    edits_of : edited policies of each operator
    images : pictures of each kind of ``world.unseen``
    sixth : name or path of a policy that no training used
    """
    drawn = [
        square
        for kind, n in squares_of.items()
        for square in squares.draw(
            n, edits=[e for e, how in squares.EDITS.items() if how.kind == kind]
        )
    ]
    pairs = store.some_pairs(bench, min(images, len(set(bench["pair"]))))
    kinds = {kind: unseen.unseen(kind, images) for kind in unseen.KINDS}
    own = cases_of(pairs, [sixth]), store.samples(pairs)
    return Questions(drawn, edited(edits_of), kinds, own)


def edited(per_operator: int, seed: int = DRAWS) -> list[Edited]:
    """Draw edited policies and two pictures for each; ``per_operator`` of each operator.

    An irrelevant rule is left out: it changes the status of what no square shows.
    """
    operators = [edit for edit in squares.EDITS if edit != "irrelevant rule added"]
    cases = []
    for k, square in enumerate(squares.draw(per_operator, seed, operators)):
        before, now = versions = square.policies
        alone = not before.compare(now)
        for sample in store.samples(edits.pictures(before, now, 2, seed=k)):
            labels = tuple(policy.label(sample.tags).label for policy in versions)
            cases.append(Edited(square.id, square.edit, alone, sample, versions, labels))
    return cases


def ask(
    models: Mapping[tuple[str, int], Path | None], recipes: str, asked: Questions, folder: Path
) -> dict[str, pd.DataFrame]:
    """Ask every model; what ``folder`` holds is not asked again.

    Parameters
    ----------
    models, recipes, folder : as ``seeds.ask`` takes them

    Returns
    -------
    dict
        Frames with the columns judge and seed: squares, edits, one for each kind of unseen
        pictures, and ``SIXTH``.
    """
    parts = defaultdict(list)
    for (judge, seed), model in models.items():
        made = make_judge(spec_of(judge, model, recipes))
        put = partial(ask_all, made, folder=folder / f"seed{seed}")
        frames = {
            "squares": squares.ask_squares(put, asked.squares),
            "edits": ask_edits(put, asked.edited),
            **{kind: judging.under_own_policies(put, rows) for kind, rows in asked.unseen.items()},
            SIXTH: judging.under_policies(put, *asked.sixth),
        }
        for name, frame in frames.items():
            parts[name].append(frame.assign(judge=judge, seed=seed))
    return {name: pd.concat(own, ignore_index=True) for name, own in parts.items()}


def ask_edits(put: Ask, cases: Sequence[Edited]) -> pd.DataFrame:
    """Ask about each picture under both versions of its policy.

    Columns: ``EDITED``; square is the edit, edit its operator, and outcome what
    ``policy_diff.outcome_of`` returns.
    """
    answers = iter(put((case.sample, policy) for case in cases for policy in case.versions))
    rows = []
    for case in cases:
        verdicts = [next(answers)["verdict"] for _ in case.versions]
        about = case.square, case.edit, case.alone, case.sample.id, *case.labels, *verdicts
        row = dict(zip(EDITED, about, strict=False))
        rows.append(row | {"outcome": outcome_of(row)})
    return pd.DataFrame(rows, columns=EDITED)


def judgements(
    frames: Mapping[str, pd.DataFrame], pictures: Mapping[str, Dataset]
) -> dict[str, pd.DataFrame]:
    """Return every measure as a judgement frame whose accuracy is the share that it counts.

    Parameters
    ----------
    frames : those of ``seeds.ask`` and of ``ask``
    pictures : of frames in which one harmful thing decides, by the name of the frame

    Returns
    -------
    dict
        Those of unseen pictures and policies as they are; by measure, those of squares, edits,
        levels and rationales, in which the operator of an edit stands in the column policy.
    """
    parts = defaultdict(list)
    for (judge, seed), own in frames["squares"].groupby(["judge", "seed"]):
        for name, part in adherence.cases(own).items():
            parts[name].append(part.assign(judge=judge, seed=seed))
    followed = set(frames["squares"]["judge"])
    levels = frames["levels"][frames["levels"]["judge"].isin(followed)]
    for seed, own in levels.groupby("seed"):
        parts[BY_LEVELS].append(adherence.level_cases(own).assign(seed=seed))
    outcome, alone = frames["edits"]["outcome"], frames["edits"]["alone"]
    counted = {
        LOST: (outcome.isin([MADE, MISSED]), MISSED),
        EXTRA: (outcome.isin([COLLATERAL, STAYS]) & ~alone, COLLATERAL),
        ALONE: (alone, COLLATERAL),
    }
    for name, (rows, kind) in counted.items():
        parts[name].append(frames["edits"].assign(right=outcome == kind)[rows])
    kept = {name: frame for name, frame in frames.items() if name in (*unseen.KINDS, SIXTH)}
    kept |= {name: _counted(pd.concat(own)) for name, own in parts.items()}
    reasons = frames["reasons"][frames["reasons"]["judge"].isin(followed)]
    kept[rationales.RIGHT_REASON] = reasons[reasons["verdict_right"]]
    for column, name in rationales.MEASURES.items():
        kept[name] = of_right(reasons.assign(right=reasons[column].astype(bool)))
    harmful = set(named("harmful"))
    for name, rows in pictures.items():
        own = frames[name][frames[name]["judge"].isin(followed)]
        deciding = {
            id: harmful & {*tags} for id, tags in zip(rows["id"], rows["tags"], strict=True)
        }
        said = [set(words(reply)) for reply in own["reply"]]
        right = [deciding[id] <= names for id, names in zip(own["id"], said, strict=True)]
        kept[NAMED.format(name)] = of_right(own.assign(right=right))
    return kept


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    ids = rows["square"] + " " + rows["picture"]
    return of_right(rows.assign(id=ids, pair=rows["square"], policy=rows["edit"]))


def bars(evidence: Evidence, judges: Sequence[str]) -> pd.DataFrame:
    """Measure each judge against the bars.

    Returns
    -------
    pandas.DataFrame
        judge, measure, the fields of ``Effect``, bar ("at least 95", empty where there is none),
        and outcome: "met" if the value is on the right side, else "not met".
    """
    rows = []
    for judge in judges:
        found = {name: _share(evidence, name, judge) for name, _, _ in BARS}
        apart = [[bound - LEAST[name] for bound in found[name][:3]] for name in ("flips", "stays")]
        smaller = Effect(*map(min, *apart), *found["stays"][3:])
        bounds = [*BARS[:2], (TOGETHER, 0, True), *BARS[2:]]
        for name, bound, least in bounds:
            effect = found.get(name, smaller)
            met = effect.value >= bound if least else effect.value <= bound
            outcome = ("met" if met else "not met") if effect.n else ""
            bar = f"{'at least' if least else 'at most'} {bound:g}"
            about = {"judge": judge, "measure": name, **effect._asdict()}
            rows.append(about | {"bar": bar, "outcome": outcome})
        about = {"judge": judge, "measure": ALONE, "bar": "", "outcome": ""}
        rows.append(about | _share(evidence, ALONE, judge)._asdict())
    return pd.DataFrame(rows)


def _share(evidence: Evidence, frame: str, judge: str, *policies: str) -> Effect:
    """Return the share of a frame of ``judgements`` that counts."""
    return evidence.effect(Term(frame, judge, policies, "accuracy"))


def by_operator(evidence: Evidence, judges: Sequence[str]) -> pd.DataFrame:
    """Measure each judge on each operator of edits: judge, edit, measure, the fields of Effect."""
    rows = []
    for judge in judges:
        for edit, how in squares.EDITS.items():
            for name in BY_OPERATOR:
                frame = f"{name}, {how.kind}" if name == "squares right" else name
                about = {"judge": judge, "edit": edit, "measure": name}
                rows.append(about | _share(evidence, frame, judge, edit)._asdict())
    return pd.DataFrame(rows)


def by_part(evidence: Evidence, judges: Sequence[str]) -> pd.DataFrame:
    """Measure the parts of rationales: judge, measure, the fields of Effect."""
    return pd.DataFrame(
        {"judge": judge, "measure": name} | _share(evidence, name, judge)._asdict()
        for judge in judges
        for name in rationales.MEASURES.values()
    )


def carried_over(
    evidence: Evidence, judges: Sequence[str], steps: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Measure judges on what no training showed, and what each step adds there.

    Returns
    -------
    pandas.DataFrame
        judge, against (empty for a score), set, the fields of ``Effect``: balanced accuracy, where
        50 is chance, or a difference in points. Beside each set stands what it is compared with.
    """
    sets = {
        "random policies, as in 05": (AS_TRAINED, ()),
        **{kind: (kind, ()) for kind in unseen.KINDS},
        "L2 to L5": ("levels", LEVELS[1:]),
        SIXTH: (SIXTH, ()),
    }
    rows = []
    for judge, against in [*((judge, "") for judge in judges), *steps]:
        for name, (frame, policies) in sets.items():
            terms = [
                Term(frame, one, policies, "balanced_accuracy") for one in (judge, against) if one
            ]
            about = {"judge": judge, "against": against, "set": name}
            rows.append(about | evidence.effect(*terms)._asdict())
    return pd.DataFrame(rows)


def things_named(evidence: Evidence, judges: Sequence[str]) -> pd.DataFrame:
    """Measure how often a reply names the harmful thing that decides: judge, set, Effect."""
    sets = {"random policies, as in 05": AS_TRAINED} | {kind: kind for kind in unseen.KINDS}
    return pd.DataFrame(
        {"judge": judge, "set": title} | _share(evidence, NAMED.format(name), judge)._asdict()
        for judge in judges
        for title, name in sets.items()
    )


def comparisons(evidence: Evidence) -> pd.DataFrame:
    """Test what each part of the method is to show beyond the paper's claims, decided likewise.

    Returns
    -------
    pandas.DataFrame
        The fields of ``Claim``; a comparison whose judges are missing has a note that names them.
    """
    on = {"random harmful policies": partial(Term, "following_harmful", metric="balanced_accuracy")}
    on["UnsafeBench"] = partial(Term, "content")
    pairs = {
        "RL is above the base": ("rl", "base"),
        "SFT is above the base": ("sft", "base"),
        "Full is above SFT": ("full", "sft"),
        "SFT on recaptions is above SFT without": ("sft", "no_recap"),
    }
    found = [
        (f"{name}: {where}", evidence.effect(of(a), of(b)), {"above": 0})
        for name, (a, b) in pairs.items()
        for where, of in on.items()
    ]
    others = partial(Term, "levels", policies=LEVELS[1:])
    at_l1 = partial(Term, "levels", policies=LEVELS[:1])
    half = -evidence.effect(others("base")).value / 2
    own, general = partial(Term, "own"), partial(Term, "general")
    found += [
        ("RL on L1 loses less than half of the base under L2 to L5",
         evidence.effect(others("rl_L1"), others("base")), {"above": half}),
        *((f"{way.upper()} on L5 is below the base under L1",
           evidence.effect(at_l1(f"{way}_L5"), at_l1("base")), {"below": 0})
          for way in ("sft", "rl")),
        *((f"The fixed taxonomy leads at home, before {name}",
           evidence.effect(own("taxonomy"), own(rival)), {"above": 0})
          for name, rival in {"the base": "base", "SFT": "sft", "Full": "full"}.items()),
        *((f"The fixed taxonomy is below the base elsewhere: {where}",
           evidence.effect(of("taxonomy"), of("base")), {"below": 0})
          for where, of in on.items()),
        ("SFT keeps general ability within 5 points",
         evidence.effect(general("sft"), general("base")), {"above": KEPT}),
    ]  # fmt: skip
    rows = [
        Claim("", statement, decide(effect, **bound), *effect) for statement, effect, bound in found
    ]
    return pd.DataFrame(rows)
