"""A folder of pictures under one policy, or under two versions of it: asked once, as one table.

Nothing is dropped: a picture that cannot be opened or was not answered has a row that says why.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from glob import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, raise_any
from sgvl.common.paths import user_path
from sgvl.data import Sample, store
from sgvl.data.images import ImageError, load_image, thumbnail
from sgvl.data.sources import folder as labels_of_folder
from sgvl.data.sources.pictures import SUFFIXES
from sgvl.data.sources.pictures import load as load_pictures
from sgvl.experiments import one_judge
from sgvl.experiments.judging import why_unparseable
from sgvl.judges import make_judge
from sgvl.policies.policy import Policy
from sgvl.scores import metrics, risk_control
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

NOT_JUDGED = "not judged"
NO_ANSWER = "no answer: "  # opens the reason where a request failed
ORDER = (UNSAFE, UNPARSEABLE, NOT_JUDGED, SAFE)  # of rows: what a person has to look at comes first


class Pictures(NamedTuple):
    """Pictures of a folder; ``passed_over`` counts files of other kinds by their ending."""

    rows: Dataset
    root: Path
    passed_over: dict[str, int]


class Judged(NamedTuple):
    """What a judge says of pictures.

    Parameters
    ----------
    table : a row for each picture: picture, verdict, p_unsafe, reason; with an earlier policy also
        verdict_before, p_unsafe_before, reason_before and changed; with labels also label
    policy, before : the policy, and the earlier version of it or None
    judge : its name
    thumbnails : small pictures by name, as WebP files
    notes : what a reader must know before the numbers
    scores : with intervals, if there are labels
    decided : what the thresholds of a risk cost, as ``risk_control.measure`` returns it
    """

    table: pd.DataFrame
    policy: Policy
    before: Policy | None
    judge: str
    thumbnails: Mapping[str, bytes]
    notes: Sequence[str]
    scores: pd.DataFrame | None = None
    decided: pd.DataFrame | None = None

    @property
    def complete(self) -> bool:
        """Whether every picture that can be opened has an answer."""
        closed = [
            self.table.loc[self.table[f"verdict{version}"] == NOT_JUDGED, f"reason{version}"]
            for version in ("", "_before")[: 2 if self.before else 1]
        ]
        return not pd.concat(closed).str.startswith(NO_ANSWER).any()


def read(pictures: str | Path) -> Pictures:
    """Read a folder of pictures, or one picture. Raises InputError as ``pictures.load`` does."""
    if not str(pictures):  # it would be the checkout
        raise InputError("no pictures are named: expected a folder, or one picture")
    place = user_path(pictures)
    allowed = (*SUFFIXES, ".parquet")
    other = place.is_file() and place.suffix.lower() not in allowed
    raise_any([f"{pictures}: no picture; allowed: a folder, or {', '.join(SUFFIXES)}"] * other)
    if place.is_dir() and not any(file.suffix.lower() in allowed for file in place.rglob("*")):
        raise InputError(f"{pictures}: no pictures in this folder; allowed: {', '.join(SUFFIXES)}")
    root, files = (place.parent, escape(place.name)) if place.is_file() else (place, "*")
    rows = load_pictures(path=str(root), files=files)
    names = set(rows["id"])
    others = [
        file.suffix.lower() or file.name
        for file in (root.rglob("*") if root == place else ())
        if file.is_file() and file.relative_to(root).as_posix() not in names
    ]
    return Pictures(rows, root, dict(Counter(others).most_common()))


def judge_pictures(
    pictures: Pictures,
    policies: Sequence[Policy],
    spec: dict,
    answers: Path,
    labels: str | Path | None = None,
    allow: Callable[[str], bool] = lambda text: True,
    prices: tuple[float, float] = (0.0, 0.0),
    blur: bool = True,
    progress: Callable[[int, int], object] | None = None,
    by_rule: bool = False,
    risk: float | None = None,
) -> Judged:
    """Ask one judge about every picture under the policy, and under its earlier version.

    Parameters
    ----------
    policies : as ``one_judge.load_versions`` returns them
    spec : as ``one_judge.judge_spec`` returns it
    answers : folder where answers are stored; what it holds is not asked again
    labels : file of labels under the policy, as ``data.sources.folder`` reads it
    allow : gets the number of requests and their cost before a server is sent any; False ends it
    prices : for a million tokens of requests, and of replies
    blur : whether thumbnails are blurred
    progress : called with the number of pictures that are settled, and of all
    by_rule : whether each rule is judged apart, as ``rule_by_rule`` describes
    risk : of missed pictures and of false alarms; the labels then give thresholds on P(unsafe)

    Raises
    ------
    InputError
        As ``ask_all`` does, but for single requests that failed: these have a row that says so.
    """
    truth = labels and labels_of_folder.labelled(
        user_path(labels), pictures.root, {policies[0].name: policies[0]}
    )
    judge = make_judge(spec)
    notes = one_judge.notes_on(spec, judge, policies)
    by_path = {row["path"]: row for row in truth[0]} if truth else {}
    if truth and not by_path:
        raise InputError(f"{labels}: no labels")
    if others := sorted(by_path.keys() - set(pictures.rows["id"])):
        are = f"{len(others)} of {len(by_path)} labels are"
        notes.append(f"{are} about files that are not among the pictures, such as {others[0]}")
    for note in notes:
        print(f"Note: {note}.")
    samples, small = store.samples(store.usable(pictures.rows)), {}

    def keep(sample: Sample) -> None:
        file = io.BytesIO()
        thumbnail(sample.image, blur=blur).save(file, "WEBP", quality=70)
        small[sample.id] = file.getvalue()

    given = one_judge.ask(judge, samples, policies, answers, allow, prices, progress, keep, by_rule)
    if why := why_unparseable(judge, pd.DataFrame(given, columns=["verdict", "reply"]), share=0):
        notes.append(why)
        print(f"Note: {why}.")
    table = _table(pictures.rows, given, len(policies))
    scores = decided = None
    if truth:
        table["label"] = [by_path.get(name, {}).get("label", "") for name in table["picture"]]
        scores = _scores(table, by_path, judge.id, policies[0].name)
    if risk is not None:
        decided, note = _decide(table, by_path, risk, judge.name)
        notes.append(note)
        print(f"Note: {note}.")
    before = (*policies, None)[1]
    return Judged(table, policies[0], before, judge.name, small, notes, scores, decided)


def _table(rows: Dataset, given: Sequence[dict], versions: int) -> pd.DataFrame:
    """Return the row of each picture, what a person has to look at first."""
    by_id = {id: [*map(_answer, own)] for id, own in groupby(given, itemgetter("id"))}
    files = store.without_decoding(rows.select_columns("image"))
    lines = []
    for place, id in enumerate(rows["id"]):
        closed = {"verdict": NOT_JUDGED, "p_unsafe": None, "reason": ""}
        if id not in by_id:
            closed["reason"] = _why(files[place]["image"])
        now, *then = by_id.get(id, [closed] * versions)
        line = {"picture": id, **now}
        for earlier in then:
            line |= {f"{key}_before": value for key, value in earlier.items()}
            line["changed"] = _changed(earlier["verdict"], now["verdict"])
        lines.append(line)
    table = pd.DataFrame(lines)
    numbers = [column for column in table if column.startswith("p_unsafe")]
    table = table.astype(dict.fromkeys(numbers, float))
    keys = table.assign(rank=table["verdict"].map(ORDER.index), sure=-table["p_unsafe"])
    keys["same"] = keys["changed"] == "" if versions > 1 else False
    order = keys.sort_values(["same", "rank", "sure", "picture"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _answer(row: dict) -> dict:
    if "error" in row:
        return {"verdict": NOT_JUDGED, "p_unsafe": None, "reason": f"{NO_ANSWER}{row['error']}"}
    reason = row["rationale"] or row["reply"] or ""
    return {"verdict": row["verdict"], "p_unsafe": row["p_unsafe"], "reason": reason}


def _why(file: dict | None) -> str:
    """Return why a picture cannot be opened."""
    try:
        load_image(file["bytes"] if file else b"", name="cannot be opened")
    except ImageError as error:
        return str(error)
    return "cannot be opened"


def _changed(before: str, now: str) -> str:
    return "" if before == now or NOT_JUDGED in (before, now) else f"{before} → {now}"


def _decide(
    table: pd.DataFrame, by_path: Mapping, risk: float, judge: str
) -> tuple[pd.DataFrame | None, str]:
    """Add the column ``decision``; return what it costs, leaving one out, and a sentence on it."""
    own = table[(table["label"] != "") & table["p_unsafe"].notna()]
    if own.empty:
        return None, f"{judge} gave no P(unsafe) on a labelled picture, so there are no thresholds"
    known = own["p_unsafe"], own["label"]
    at = risk_control.thresholds(*known, risk)
    table["decision"] = at.decide(table["p_unsafe"])
    pairs = [by_path[name].get("pair", name) for name in own["picture"]]
    held_out = risk_control.leave_one_out(*known, pairs, risk)
    note, least = f"at a risk of {risk:g}: {at}", risk_control.needed(risk)
    counts = {label: int((own["label"] == label).sum()) for label in (UNSAFE, SAFE)}
    few = [f"{n} {label}" for label, n in counts.items() if n < least]
    if len(few) == len(counts):
        note = (
            f"at a risk of {risk:g}: too few labels for a threshold: every picture goes to a "
            f"person ({least} of each class are needed; there are {' and '.join(few)})"
        )
    elif few:
        note += f". It takes {least} labelled pictures of a class; there are {' and '.join(few)}"
    return risk_control.measure(held_out, own["label"], pairs).assign(missing=""), note


def _scores(table: pd.DataFrame, by_path: Mapping, judge: str, policy: str) -> pd.DataFrame | None:
    """Score the labelled pictures under each version; Wilson and bootstrap as everywhere."""
    own = table[(table["label"] != "") & (table["verdict"] != NOT_JUDGED)]
    if own.empty:
        return None
    own = own.assign(id=own["picture"], judge=judge)
    own["pair"] = [by_path[name].get("pair", name) for name in own["id"]]
    parts = [own.assign(policy=policy)]
    if "verdict_before" in own:
        earlier = own[own["verdict_before"] != NOT_JUDGED].assign(policy=f"{policy} before")
        earlier = earlier.assign(verdict=earlier["verdict_before"])
        parts.append(earlier.assign(p_unsafe=earlier["p_unsafe_before"]))
    scores = metrics.score_table(pd.concat(parts, ignore_index=True))
    return scores[~scores["policy"].isin(metrics.AVERAGES)].reset_index(drop=True)
