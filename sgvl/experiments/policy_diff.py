"""What an edit of a policy changes: the flips that it should make, and those that a judge made.

Policies with rules label a drawn picture exactly, so the expected flips are known, with the rule
that fired before and after. A judge can *miss* one of them, or change a verdict that should stay
(*collateral*). Where the edit changes no status at all, every flip is collateral: the risk of the
wording. Golden cases, labelled by hand under the new version, test pictures without tags.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.cases import label_cases
from sgvl.policies.policy import Policy
from sgvl.scores import intervals
from sgvl.text.verdict import UNSAFE

MADE, MISSED, COLLATERAL, STAYS = "flip made", "missed", "collateral", "stays"
PASSED, FAILED, CHANGED = "golden passed", "golden failed", "changed"
NO_ANSWER, CLOSED = "no answer", "cannot be opened"
COLUMNS = [
    *("id", "pair", "label_before", "label", "rule_before", "rule"),
    *("severity", "verdict_before", "verdict", "p_before", "p", "outcome", "message"),
]
WRONG = (MISSED, COLLATERAL)
TOLERANCES = {"missed": 10.0, "collateral": 2.0, "golden": 0.0}  # percent that is no regression


def rows(dataset: Dataset, answers: Sequence[dict], now: Policy, before: Policy) -> pd.DataFrame:
    """Join the answers of a judge under both versions with what was to be expected.

    Parameters
    ----------
    dataset : drawn pictures with tags, golden cases with labels under ``now``, or pictures alone
    answers : of ``one_judge.ask`` about its usable pictures under [now, before]

    Returns
    -------
    pandas.DataFrame
        One row for each picture: id, pair, label_before, label, rule_before, rule, severity of
        what is prohibited (empty where they are not known), verdict_before, verdict, p_before, p,
        outcome, message.
    """
    known = _known(dataset, now, before).set_index("id")
    lines = []
    for id, (new, old) in groupby(answers, itemgetter("id")):
        line = {"id": id, **known.loc[id]}
        line |= {"verdict_before": old.get("verdict"), "verdict": new.get("verdict")}
        line |= {"p_before": old.get("p_unsafe"), "p": new.get("p_unsafe")}
        error = old.get("error") or new.get("error")
        line["outcome"] = NO_ANSWER if error else outcome_of(line)
        # The rule that fired is the reason of its own verdict, and of no other.
        reasons = [
            line[rule] if line[rule] and answer.get("verdict") == line[label]
            else answer.get("rationale")
            for rule, label, answer in (
                ("rule", "label", new), ("rule_before", "label_before", old)
            )
        ]  # fmt: skip
        line["message"] = f"{id}: {error}" if error else _message(line, now, before, *reasons)
        lines.append(line)
    for id, status in store.left_out(dataset).itertuples(index=False):
        lines.append({"id": id, "outcome": CLOSED, "message": f"{id}: cannot be opened ({status})"})
    return pd.DataFrame(lines, columns=COLUMNS).astype({"p_before": float, "p": float})


def _known(dataset: Dataset, now: Policy, before: Policy) -> pd.DataFrame:
    """Return what is known of each picture: labels, the rules that fired, its pair."""
    columns = COLUMNS[:7]
    if store.has_tags(dataset):
        if "pair" not in dataset.column_names:
            dataset = dataset.add_column("pair", list(dataset["id"]))
        if now.default is None or before.default is None:
            raise InputError("drawn pictures need two versions with rules; judge a folder instead")
        new, old = (label_cases(dataset, [policy]) for policy in (now, before))
        severity = {
            row["id"]: now.label(row["tags"]).severity or before.label(row["tags"]).severity
            for row in dataset.select_columns(["id", "tags"])
        }
        new = new.assign(label_before=old["label"], rule_before=old["rule"])
        new["severity"] = new["id"].map(severity)
        return new[columns].drop_duplicates("id")
    known = dataset.select_columns(["id", "pair"]).to_pandas()
    known["label"] = store.labels(dataset) if "label" in dataset.column_names else ""
    return known.reindex(columns=columns, fill_value="").drop_duplicates("id")


def outcome_of(line: Mapping) -> str:
    """Return the outcome of a case: from its verdicts under both versions, and from its labels."""
    flipped = line["verdict"] != line["verdict_before"]
    if line["label_before"]:
        if line["label"] == line["label_before"]:
            return COLLATERAL if flipped else STAYS
        return MADE if flipped and line["verdict"] == line["label"] else MISSED
    if line["label"]:
        return PASSED if line["verdict"] == line["label"] else FAILED
    return CHANGED if flipped else STAYS


def sentence(table: pd.DataFrame, judge: str, origin: str) -> str:
    """Say in words what the edit changes, and what a judge made of it.

    Parameters
    ----------
    table : as ``rows`` returns it
    judge : its name
    origin : where pictures with exact labels come from, as "drawn for this edit"
    """
    count = Counter(table["outcome"])
    open_ = count[NO_ANSWER] + count[CLOSED]
    answered = table[~table["outcome"].isin([NO_ANSWER, CLOSED])]
    exact, texts = answered[answered["label_before"] != ""], []
    if total := len(exact):
        n = int((exact["label"] != exact["label_before"]).sum())
        missed, moved = count[MISSED], count[COLLATERAL]
        share = f"{n} ({100 * n / total:.0f} %)" if n else "none"
        made = {0: "all", n: "none"}.get(missed, n - missed)
        what = f"{'other ' if n else ''}verdict{'s' if moved > 1 else ''}"
        parts = [f"made {made} of these flips (missed {missed} of {n})"] if n else []
        if n < total:
            parts.append(f"moved {moved or 'no'} {what} (collateral {moved} of {total - n})")
        texts.append(f"{total} pictures {origin}. It changes the label of {share}")
        texts[-1] += f": {judge} {' and '.join(parts)}."
    if golden := count[PASSED] + count[FAILED]:
        texts.append(f"{judge} failed {count[FAILED]} of {golden} golden cases.")
    if plain := int((answered["label"] == "").sum()):
        texts.append(
            f"{judge} changed its verdict on {count[CHANGED]} of {plain} pictures without labels: "
            "which of these changes are right is not known."
        )
    return " ".join([*texts, f"No verdict on {open_}."] if open_ else texts)


def _message(line: Mapping, now: Policy, before: Policy, why: str, why_before: str) -> str:
    """Write the line that a person can send to the author of a picture."""
    words = f"{line['id']}: {line['verdict']} under {now.name} {now.digest[:12]}"
    words += f" ({why})" if why else ""
    words += f"; before, under {before.digest[:12]}: {line['verdict_before']}"
    words += f" ({why_before})" if why_before and why_before != why else ""
    if line["outcome"] in WRONG:
        words += f". Expected: {line['label_before']} → {line['label']}"
    return words + (f". Expected: {line['label']}" if line["outcome"] == FAILED else "")


def summary(
    table: pd.DataFrame, now: Policy, before: Policy, tolerances: Mapping[str, float] = TOLERANCES
) -> pd.DataFrame:
    """Count the outcomes, with 95 % intervals over pairs, in percent (P(unsafe) in points).

    Columns: measure, n, value, low, high, tolerance, regression. A measure is a regression where
    its value is above its tolerance.
    """
    only_words = now.default and before.default and not now.compare(before)
    answered = table[~table["outcome"].isin([NO_ANSWER, CLOSED])]
    exact = answered[answered["label_before"] != ""]
    flips = exact[exact["label"] != exact["label_before"]]
    others = exact[exact["label"] == exact["label_before"]]
    golden = answered[answered["outcome"].isin([PASSED, FAILED])]
    plain = answered[answered["label"] == ""]
    toward = np.where(flips["label"] == UNSAFE, 1.0, -1.0)
    change = answered["p"] - answered["p_before"]
    measures = [
        ("expected flips", exact, exact["label"] != exact["label_before"], 0),
        ("missed", flips, flips["outcome"] == MISSED, 0),
        ("collateral", others, others["outcome"] == COLLATERAL, 0),
        *(
            (f"missed, severity {severity}", own, own["outcome"] == MISSED, 0)
            for severity, own in flips.groupby("severity")
            if severity
        ),
        ("golden", golden, golden["outcome"] == FAILED, 0),
        ("changed", plain, plain["outcome"] == CHANGED, 0),
        ("right before", exact, exact["verdict_before"] == exact["label_before"], 0),
        ("right now", exact, exact["verdict"] == exact["label"], 0),
        ("move of P(unsafe), expected flips", flips, toward * change[flips.index], -1),
        ("move of P(unsafe), other pictures", others, change[others.index].abs(), 0),
    ]
    lines = []
    for name, own, values, lowest in measures:
        values = values.dropna().astype(float)
        interval = intervals.average(values, own.loc[values.index, "pair"], lowest)
        title = "collateral (wording risk)" if name == "collateral" and only_words else name
        limit = {**TOLERANCES, **tolerances}.get(name)
        above = limit is not None and interval.value > limit
        row = {"measure": title, "n": len(values), **interval._asdict()}
        lines.append(row | {"tolerance": limit, "regression": above})
    frame = pd.DataFrame(lines)
    return frame[frame["n"] > 0].reset_index(drop=True)
