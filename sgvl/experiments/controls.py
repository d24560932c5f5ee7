"""Blind controls: scores that are reached from the picture alone or from the policy alone.

A benchmark of policy following must not be solvable from half of its input. Each control gives one
half to a judge, or to a linear probe: a logistic regression on features of that half (traces of
edits, tags of the picture, words of the policy, form of the policy). A control is *at chance* if
its 95 % interval holds a balanced accuracy of 50 %.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

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

SCORE = ["n", "value", "low", "high", "at_chance"]  # of a control


def edit_traces(dataset: Dataset) -> list[dict]:
    """Extract features of the edits of drawn pictures, a dict for each picture.

    The features are the numbers of things, of filled boxes and of empty boxes, their combination,
    and the roughness of the boxes' upper rims (mean squared difference of neighbouring pixels).
    """
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


def scene_tags(dataset: Dataset) -> list[dict]:
    """Extract the tags of each picture: its exact content, without a policy."""
    return [dict.fromkeys(tags, 1) for tags in dataset["tags"]]


def policy_words(policies: Iterable[Policy]) -> list[dict]:
    """Extract the clauses of each policy, without a picture."""
    return [dict.fromkeys(policy.render("brief").split("; "), 1) for policy in policies]


def policy_form(policies: Iterable[Policy]) -> list[dict]:
    """Extract the form of each policy without its words.

    The features are its length, its default, the number of clauses, and the status and number of
    exceptions of each clause by position.
    """
    rows = []
    for policy in policies:
        form = {"length": len(policy.render("brief")), f"all else {policy.default}": 1}
        for k, rule in enumerate(policy.rules):
            form |= {f"{rule.status} at {k}": 1, f"exceptions at {k}": len(rule.places)}
        rows.append(form | {"clauses": len(policy.rules)})
    return rows


def fit_probe(features, labels):
    """Fit a logistic regression on a dict of features and a label for each row."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        DictVectorizer(sparse=False),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", C=0.1, max_iter=1000),
    )
    return model.fit(features, labels)


def linear_probe(features, labels, other_features, other_labels, pairs) -> dict:
    """Fit a logistic regression on another draw of the set, and score it on this one.

    Cross-validation within one set would not do: where labels are balanced exactly, leaving out a
    fold makes the rest unbalanced the other way, and the probe scores below chance.

    Parameters
    ----------
    features, labels : of the set to score, a dict and a label for each row
    other_features, other_labels : of the set to fit, drawn with another seed
    pairs : the pair of each row to score

    Returns
    -------
    dict
        n, value, low, high (balanced accuracy in percent, 95 % interval), at_chance.
    """
    model = fit_probe(other_features, other_labels)
    return _score(labels, model.predict(features), pairs)


def _score(labels, predictions, pairs, resamples=2000, seed=0) -> dict:
    """Return n, the balanced accuracy in percent with its interval, and at_chance."""
    score = balanced_accuracy_interval(labels, predictions, pairs, resamples, seed)
    at_chance = bool(score.low <= 50 <= score.high)
    return {"n": len(labels), **score._asdict(), "at_chance": at_chance}


def of_levels(dataset: Dataset, other: Dataset, levels: Iterable[str]) -> pd.DataFrame:
    """Probe edit traces alone, within each level that has both labels.

    ``other`` is the same set drawn with another seed. Columns: policy, control, and what
    ``linear_probe`` returns.
    """
    traces, other_traces = edit_traces(dataset), edit_traces(other)
    rows = []
    for level in levels:
        labels, other_labels = store.labels(dataset, level), store.labels(other, level)
        if len(set(labels)) == 2:
            score = linear_probe(traces, labels, other_traces, other_labels, dataset["pair"])
            rows.append({"policy": level, "control": "edit traces", **score})
    return pd.DataFrame(rows)


def of_policies(dataset: Dataset, other: Dataset) -> pd.DataFrame:
    """Probe each half of a set whose rows have policies of their own.

    ``other`` is the same set drawn with another seed. Columns: control, and what ``linear_probe``
    returns.
    """
    sets = (dataset, other)
    labels, other_labels = map(store.labels, sets)
    policies = [store.policies(rows) for rows in sets]
    controls = {
        "edit traces": map(edit_traces, sets),
        "picture, no policy": map(scene_tags, sets),
        "policy, no picture": map(policy_words, policies),
        "form of the policy": map(policy_form, policies),
    }
    rows = []
    for control, (features, other_features) in controls.items():
        score = linear_probe(features, labels, other_features, other_labels, dataset["pair"])
        rows.append({"control": control, **score})
    return pd.DataFrame(rows)


def jointly(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the controls of several sets, with simultaneous 95 % intervals (Bonferroni).

    Among k intervals of 95 % each, some miss the true value far more often than in 5 % of cases.
    Each is therefore widened by the ratio of the normal quantiles at 1 - 0.05 / (2 k) and at 0.975,
    and ``at_chance`` follows from the wider one.

    Parameters
    ----------
    tables : what ``of_levels`` or ``of_policies`` returned for each set; without any, the result
        has no rows
    """
    from scipy.special import ndtri

    if not tables:
        return pd.DataFrame(columns=["set", "policy", "control", *SCORE])
    table = pd.concat(tables, names=["set"]).reset_index("set").reset_index(drop=True)
    wider = ndtri(1 - 0.05 / (2 * len(table))) / ndtri(0.975)
    for side in ("low", "high"):
        table[side] = (table["value"] + wider * (table[side] - table["value"])).clip(0, 100)
    return table.assign(at_chance=(table["low"] <= 50) & (table["high"] >= 50))


class BlankPolicy(Policy):
    """A policy without text: its prompt holds the instructions alone."""

    def render(self, form="full") -> str:
        """Return "" in every form."""
        return ""

    @property
    def digest(self) -> str:
        """The digest of no text: a policy of this name with a default is another one."""
        return hashlib.sha256(b"").hexdigest()


BLANK_POLICY = BlankPolicy(name="blank", title="Blank", default="permitted", rules=[])
BLANK_SAMPLE = Sample("blank", Image.new("RGB", (224, 224), (128, 128, 128)))


def blind_answers(ask: Ask, samples: Sequence[Sample], cases: Cases) -> pd.DataFrame:
    """Ask a judge about a grey picture under each policy, and about each picture without a policy.

    Parameters
    ----------
    ask : sends cases to the judge
    samples : pictures of ``cases``: all of them, or some

    Returns
    -------
    pandas.DataFrame
        The rows of these pictures in the table of ``cases``, with the verdicts ``no_picture`` and
        ``no_policy``; None where another worker asked.
    """
    policies = cases.distinct()
    # One picture belongs to one worker, so there is an answer for every policy or for none.
    answers = ask([(BLANK_SAMPLE, policy) for policy in policies])
    by_policy = {p.digest: row["verdict"] for p, row in zip(policies, answers, strict=False)}
    by_picture: dict[str, str | None] = {}

    def requests() -> Iterator[tuple[Sample, Policy]]:
        for sample in samples:
            by_picture[sample.id] = None
            yield sample, BLANK_POLICY

    by_picture |= {row["id"]: row["verdict"] for row in ask(requests())}
    table = cases.table.assign(
        no_picture=[by_policy.get(policy.digest) for policy in cases.policies],
        no_policy=cases.table["id"].map(by_picture),
    )
    return table[table["id"].isin(by_picture)]


def blind_scores(answers: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Score judges on half of the input, within each policy that has both labels.

    Parameters
    ----------
    answers : what ``blind_answers`` returned, with a column judge

    Returns
    -------
    pandas.DataFrame
        judge, policy, control, n, value, low, high (balanced accuracy in percent), at_chance.
    """
    verdicts = {"policy, no picture": "no_picture", "picture, no policy": "no_policy"}
    rows = [
        {"judge": judge, "policy": policy, "control": control}
        | _score(own["label"], own[column], own["pair"], resamples, seed)
        for (judge, policy), own in answers.groupby(["judge", "policy"], sort=False)
        if own["label"].nunique() == 2
        for control, column in verdicts.items()
    ]
    return pd.DataFrame(rows, columns=["judge", "policy", "control", *SCORE])


def follow_scores(answers: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Score judges on a policy-following set.

    Parameters
    ----------
    answers : a judgement frame

    Returns
    -------
    pandas.DataFrame
        judge, n, value, low, high (balanced accuracy in percent), at_chance, unparseable (percent).
    """
    rows = []
    for judge, own in answers.groupby("judge", sort=False):
        unparseable = 100 * float((own["verdict"] == UNPARSEABLE).mean())
        score = _score(own["label"], own["verdict"], own["pair"], resamples, seed)
        rows.append({"judge": judge, **score, "unparseable": unparseable})
    return pd.DataFrame(rows, columns=["judge", *SCORE, "unparseable"])
