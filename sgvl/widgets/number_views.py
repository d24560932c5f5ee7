"""What a class is shown of numbers that a run has measured: rollouts, a collapse, averages.

Each function here turns the state of a widget's controls into what it shows, and does nothing else.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from sgvl.report import figures
from sgvl.scores.metrics import score_table
from sgvl.text.verdict import UNPARSEABLE, UNSAFE, parse
from sgvl.training import grpo, reward
from sgvl.widgets.parts import Bar, Picture, Shown, Table, chart, picture, show

SMALL, CURVE = 160, 640  # pixels; the smallest letters of the curve are then 18 high


class Prompt(NamedTuple):
    """What a group of rollouts was asked: the picture, and the words with the policy."""

    picture: Picture
    words: str


def prompts(rows) -> dict[str, Prompt]:
    """The prompts of ``grpo.prompt_row`` by their id, which is ``sample`` in the rollouts."""
    return {
        row["id"]: Prompt(
            picture(row["image"], "The picture of this prompt.", SMALL), row["prompt"][0]["content"]
        )
        for row in rows
    }


def rollouts(frame: pd.DataFrame, asked: Mapping[str, Prompt], step: int, number: int) -> Shown:
    """One group of a GRPO run: the ``number``-th prompt of a step, from 1, and all its replies.

    ``frame`` is what ``grpo.rollouts`` returned. Equal replies share a row.
    """
    at_step = frame[frame["step"] == step]
    sample = at_step["sample"].unique()[number - 1]
    own = at_step[at_step["sample"] == sample]
    columns = ["advantage", "reward", "verdict", "reply"]
    replies = own.groupby(columns, sort=False).size().rename("times").reset_index()
    replies = replies.sort_values("advantage", ascending=False)
    learnt = (
        "All rewards are equal: no advantage, nothing to learn, a dead group."
        if grpo.groups(own)["dead"].item()
        else "What earned more than the mean becomes likelier, what earned less rarer."
    )
    label = f"The label is {own['label'].iloc[0]}."
    mean = f"{len(own)} replies with mean reward {own['reward'].mean():.2f}. {learnt}"
    prompt = asked[sample]
    return show(prompt.picture, prompt.words, f"{label} {mean}", Table(replies))


def collapse(judgements: pd.DataFrame, step: int) -> Shown:
    """A judge after ``step`` steps of training on one level: what it calls unsafe under each.

    ``judgements`` is a judgement frame of one judge a step, in a column ``step``.
    """
    own = judgements[judgements["step"] == step]
    rows = []
    for policy, part in own.groupby("policy"):
        n, right = len(part), (part["label"] == part["verdict"]).sum()
        rows.append({
            "policy": policy,
            "unsafe by rule": f"{(part['label'] == UNSAFE).sum()} of {n}",
            "called unsafe": f"{(part['verdict'] == UNSAFE).sum()} of {n}",
            "unreadable": f"{(part['verdict'] == UNPARSEABLE).sum()} of {n}",
            "mean P(unsafe), %": Bar(100 * part["p_unsafe"].mean()),
            "right": f"{right} of {n}",
        })  # fmt: skip
    right = (own["label"] == own["verdict"]).mean()
    caught = own[own["label"] == UNSAFE]["verdict"].eq(UNSAFE)
    head = f"After {step} steps on L1 it is right in {right:.0%} of all cases"
    return show(
        f"{head} and catches {caught.sum()} of {len(caught)} unsafe.", Table(pd.DataFrame(rows))
    )


def averages(judgements: pd.DataFrame, judge: str, pairs: int) -> Shown:
    """A judge's headline values on the first ``pairs`` pairs, with both averages and intervals."""
    kept = judgements["pair"].drop_duplicates()[:pairs]
    own = judgements[(judgements["judge"] == judge) & judgements["pair"].isin(kept)]
    scores = score_table(own, resamples=500)
    frame = pd.DataFrame({
        "over": scores["policy"],
        "what": scores["metric"].str.replace("f1", "F1"),
        "n": scores["n"],
        "unsafe": scores["positives"],
        "value [95 % interval], %": [Bar(r.value, r.low, r.high) for r in scores.itertuples()],
    })  # fmt: skip
    value = scores.set_index("policy")["value"]
    gap = abs(value["macro"] - value["pooled"])
    said = f"{judge} on {pairs} pairs: macro {value['macro']:.1f}, pooled {value['pooled']:.1f}, "
    return show(f"{said}{gap:.1f} points apart.", Table(frame))


def threshold(judgements: pd.DataFrame, judge: str, percent: int) -> Shown:
    """Precision and recall of a judge if P(unsafe) of at least ``percent`` is called unsafe."""
    own = judgements[judgements["judge"] == judge]
    unsafe, called = own["label"] == UNSAFE, own["p_unsafe"] >= percent / 100
    hit = (unsafe & called).sum()
    rates = {
        "precision": hit / called.sum() if called.any() else float("nan"),
        "recall": hit / unsafe.sum() if unsafe.any() else float("nan"),
    }
    bars = [Bar(100 * rate) for rate in rates.values()]
    words = "Precision against recall at every threshold, with a mark at this one."
    curve = figures.precision_recall(unsafe, own["p_unsafe"], rates["recall"], rates["precision"])
    return show(
        f"{judge} calls {called.sum()} of {len(own)} unsafe.",
        Table(pd.DataFrame({"rate": rates.keys(), "%": bars})),
        chart(curve, words, CURVE),
    )


def rewarded(label: str, reply: str) -> Shown:
    """What each reward pays for a reply to a case with this label."""
    read = parse(reply)
    said = f"Read as {read.verdict}" + (f" ({read.reason})." if read.reason else ".")
    paid = {kind: reward.rewards_of(kind, [reply], label)[0] for kind in reward.REWARDS}
    return show(said, Table(pd.DataFrame({"reward": paid.keys(), "pays": paid.values()})))
