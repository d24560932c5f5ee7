"""Blind controls: what can be had without reading both the picture and the policy.

A benchmark of policy following must not be solvable from half of its input. Each control hands one
half to a judge, or fits a linear probe on it (the traces of edits, the picture, the policy's words,
the policy's form) in another draw of the set. At chance means that 50 % lies inside its interval.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL import Image

from sgvl.data import Sample, store
from sgvl.data.cases import Cases
from sgvl.experiments.ability import Ask
from sgvl.policies.policy import Policy
from sgvl.scores.metrics import balanced_accuracy_interval
from sgvl.text.verdict import UNPARSEABLE

REACHED = ["n", "value", "low", "high", "at_chance"]  # of a control


def edit_traces(dataset: Dataset) -> list[dict]:
    """Per picture: how many things and smoothed boxes it shows, how many boxes are empty, and how
    rough the rims of the boxes are (mean squared difference of neighbouring pixels)."""
    rows = []
    for row in dataset:
        grey = np.asarray(row["image"].convert("L"), dtype=float)
        rims = [np.diff(grey[top, left:right]) for left, top, right, _ in row["fills"]]
        rows.append(
            {
                "things": len(row["tags"]) - 1,
                "boxes": len(row["fills"]),
                "empty": row["empty"],
                f"form {len(row['tags'])}/{len(row['fills'])}/{row['empty']}": 1,
                "rim": float(np.mean([np.mean(rim**2) for rim in rims])) if rims else 0.0,
            }
        )
    return rows


def picture(dataset: Dataset) -> list[dict]:
    """Everything that a picture can tell without a policy: its tags, exactly."""
    return [dict.fromkeys(tags, 1) for tags in dataset["tags"]]


def policy_words(policies: Iterable[Policy]) -> list[dict]:
    """The words of a policy's clauses, without a picture."""
    return [dict.fromkeys(policy.render("brief").split("; "), 1) for policy in policies]


def policy_form(policies: Iterable[Policy]) -> list[dict]:
    """A policy without its words: how many clauses, of which status, in which order, how long."""
    rows = []
    for policy in policies:
        form = {"length": len(policy.render("brief")), f"all else {policy.default}": 1}
        for k, rule in enumerate(policy.rules):
            form |= {f"{rule.status} at {k}": 1, f"exceptions at {k}": len(rule.places)}
        rows.append(form | {"clauses": len(policy.rules)})
    return rows


def probe(half, labels, other_half, other_labels, pairs) -> dict:
    """Balanced accuracy, in percent with its interval, of a logistic regression.

    It is fitted on another draw of the set (``other_*``), not on folds of the same one: where a
    design is balanced exactly, leaving a fold out unbalances the rest the other way, and a probe
    then scores below chance. Returns n, value, low, high, at_chance.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        DictVectorizer(sparse=False),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", C=0.1, max_iter=1000),
    )
    return _reached(labels, model.fit(other_half, other_labels).predict(half), pairs)


def _reached(labels, predicted, pairs) -> dict:
    reached = balanced_accuracy_interval(labels, predicted, pairs)
    inside = bool(reached.low <= 50 <= reached.high)
    return {"n": len(labels), **reached._asdict(), "at_chance": inside}


def of_levels(dataset: Dataset, other: Dataset, levels: Iterable[str]) -> pd.DataFrame:
    """Edit traces alone, within each level that has both labels. ``other``: from another seed."""
    traces, other_traces = edit_traces(dataset), edit_traces(other)
    rows = []
    for level in levels:
        labels, other_labels = store.labels(dataset, level), store.labels(other, level)
        if len(set(labels)) == 2:
            found = probe(traces, labels, other_traces, other_labels, dataset["pair"])
            rows.append({"policy": level, "control": "edit traces", **found})
    return pd.DataFrame(rows)


def of_policies(dataset: Dataset, other: Dataset) -> pd.DataFrame:
    """Controls of a set whose rows each have their own policy. ``other``: from another seed."""
    labels, other_labels = store.labels(dataset), store.labels(other)
    own, others = store.policies(dataset), store.policies(other)
    halves = {
        "edit traces": (edit_traces(dataset), edit_traces(other)),
        "picture, no policy": (picture(dataset), picture(other)),
        "policy, no picture": (policy_words(own), policy_words(others)),
        "form of the policy": (policy_form(own), policy_form(others)),
    }
    return pd.DataFrame(
        {"control": name, **probe(half, labels, other_half, other_labels, dataset["pair"])}
        for name, (half, other_half) in halves.items()
    )


def jointly(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Controls of several sets in one table, with intervals that hold for all of them together.

    k intervals of 95 % each miss somewhere far more often than 5 %. Bonferroni: each is widened by
    the ratio of the normal quantiles at 1 - 0.05 / (2 k) and at 0.975; ``at_chance`` reads those.
    """
    from scipy.special import ndtri

    table = pd.concat(tables, names=["set"]).reset_index("set").reset_index(drop=True)
    wider = ndtri(1 - 0.05 / (2 * len(table))) / ndtri(0.975)
    for side in ("low", "high"):
        table[side] = (table["value"] + wider * (table[side] - table["value"])).clip(0, 100)
    return table.assign(at_chance=(table["low"] <= 50) & (table["high"] >= 50))


class BlankPolicy(Policy):
    """A policy without a word: what is left of a prompt when the policy is taken out."""

    def render(self, form="full") -> str:
        return ""


BLANK_POLICY = BlankPolicy(name="blank", title="Blank", default="permitted", rules=[])
BLANK_SAMPLE = Sample("blank", Image.new("RGB", (224, 224), (128, 128, 128)))


def blind_answers(ask: Ask, samples: Sequence[Sample], cases: Cases) -> pd.DataFrame:
    """Ask a judge with half of the input: a grey picture, and a blank policy.

    Returns
    -------
    DataFrame
        The table of ``cases`` with the verdicts ``no_picture`` and ``no_policy``.
    """
    policies = cases.distinct()
    grey = ask([(BLANK_SAMPLE, policy) for policy in policies])  # all or none, by the picture
    of_grey = {policy.digest: row["verdict"] for policy, row in zip(policies, grey, strict=False)}
    of_blank = {row["id"]: row["verdict"] for row in ask([(s, BLANK_POLICY) for s in samples])}
    return cases.table.assign(
        no_picture=[of_grey.get(policy.digest) for policy in cases.policies],
        no_policy=cases.table["id"].map(of_blank),
    )


def blind_scores(answers: pd.DataFrame) -> pd.DataFrame:
    """Score judges with half of the input, within each policy that has both labels.

    ``answers`` is what ``blind_answers`` returned, with a column judge.
    """
    halves = {"policy, no picture": "no_picture", "picture, no policy": "no_policy"}
    rows = [
        {"judge": judge, "policy": policy, "control": control}
        | _reached(own["label"], own[column], own["pair"])
        for (judge, policy), own in answers.groupby(["judge", "policy"], sort=False)
        if own["label"].nunique() == 2
        for control, column in halves.items()
    ]
    return pd.DataFrame(rows, columns=["judge", "policy", "control", *REACHED])


def follow_scores(answers: pd.DataFrame) -> pd.DataFrame:
    """Score how well judges follow the policies of a policy-following set.

    ``answers`` is a judgement frame. Columns: judge, n, value, low, high (balanced accuracy in
    percent), at_chance, unparseable (percent).
    """
    rows = []
    for judge, own in answers.groupby("judge", sort=False):
        unparseable = 100 * float((own["verdict"] == UNPARSEABLE).mean())
        scores = _reached(own["label"], own["verdict"], own["pair"])
        rows.append({"judge": judge, **scores, "unparseable": unparseable})
    return pd.DataFrame(rows, columns=["judge", *REACHED, "unparseable"])
