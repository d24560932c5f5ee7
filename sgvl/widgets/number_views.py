"""Views of what a run has measured: rollouts, a collapse, averages, a threshold, rewards.

Each function returns the view for one state of a widget's controls. A judgement frame is that of
``sgvl.scores.metrics``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from sgvl.report import figures
from sgvl.scores.metrics import score_table
from sgvl.text.verdict import UNPARSEABLE, UNSAFE, parse
from sgvl.training import grpo, reward
from sgvl.widgets.parts import Bar, Picture, Table, View, chart, compose, picture

SMALL, CURVE = 160, 640  # pixels; the smallest letters of the curve are then 18 high


class Prompt(NamedTuple):
    """The prompt of a group of rollouts: its picture, and its text with the policy."""

    picture: Picture
    text: str


def prompts(rows) -> dict[str, Prompt]:
    """Index rows of ``grpo.rows_of`` by their id, which is ``sample`` in the rollouts."""
    description = "The picture of this prompt."
    return {
        row["id"]: Prompt(picture(row["image"], description, SMALL), row["prompt"][-1]["content"])
        for row in rows
    }


def rollouts(frame: pd.DataFrame, prompts: Mapping[str, Prompt], step: int, number: int) -> View:
    """Show one group of a GRPO run: a prompt and all replies to it.

    Parameters
    ----------
    frame : rollouts, as ``grpo.rollouts`` returns them; equal replies share a row of the view
    prompts : by id of the sample
    step : of the training
    number : of the prompt within its step, from 1
    """
    at_step = frame[frame["step"] == step]
    sample = at_step["sample"].unique()[number - 1]
    group = at_step[at_step["sample"] == sample]
    columns = ["advantage", "reward", "verdict", "reply"]
    replies = group.groupby(columns, sort=False).size().rename("times").reset_index()
    replies = replies.sort_values("advantage", ascending=False)
    effect = (
        "All rewards are equal: no advantage, nothing to learn, a dead group."
        if grpo.groups(group)["dead"].item()
        else "Replies that earned more than the mean become more likely, the others less."
    )
    label = f"The label is {group['label'].iloc[0]}."
    mean = f"{len(group)} replies with mean reward {group['reward'].mean():.2f}."
    prompt = prompts[sample]
    return compose(prompt.picture, prompt.text, f"{label} {mean} {effect}", Table(replies))


def collapse(judgements: pd.DataFrame, step: int) -> View:
    """Show what a judge calls unsafe under each policy after ``step`` steps of training on L1.

    ``judgements`` is a judgement frame with a column ``step``.
    """
    at_step = judgements[judgements["step"] == step]
    rows = []
    for policy, part in at_step.groupby("policy"):
        n, right = len(part), (part["label"] == part["verdict"]).sum()
        rows.append({
            "policy": policy,
            "unsafe by rule": f"{(part['label'] == UNSAFE).sum()} of {n}",
            "called unsafe": f"{(part['verdict'] == UNSAFE).sum()} of {n}",
            "unparseable": f"{(part['verdict'] == UNPARSEABLE).sum()} of {n}",
            "mean P(unsafe), %": Bar(100 * part["p_unsafe"].mean()),
            "right": f"{right} of {n}",
        })  # fmt: skip
    right = (at_step["label"] == at_step["verdict"]).mean()
    caught, unsafe = _caught(at_step)
    return compose(
        f"After {step} steps on L1 it is right in {right:.0%} of all cases "
        f"and catches {caught} of {unsafe} unsafe pictures.",
        Table(pd.DataFrame(rows)),
    )


def caught_by_step(judgements: pd.DataFrame) -> str:
    """Say how many of the unsafe pictures a judge catches after each number of steps."""
    counts = [(step, *_caught(part)) for step, part in judgements.groupby("step")]
    course = "; ".join(f"{n} of {unsafe} after step {step}" for step, n, unsafe in counts)
    return f"Unsafe pictures that it catches: {course}."


def _caught(judgements: pd.DataFrame) -> tuple[int, int]:
    """Count the unsafe rows that were called unsafe, and all unsafe rows."""
    unsafe = judgements[judgements["label"] == UNSAFE]
    return (unsafe["verdict"] == UNSAFE).sum(), len(unsafe)


def averages(judgements: pd.DataFrame, judge: str, pairs: int) -> View:
    """Show a judge's headline values on the first ``pairs`` pairs, both averages, and intervals."""
    kept = judgements["pair"].drop_duplicates()[:pairs]
    rows = judgements[(judgements["judge"] == judge) & judgements["pair"].isin(kept)]
    scores = score_table(rows, resamples=500)
    frame = pd.DataFrame({
        "over": scores["policy"],
        "what": scores["metric"].str.replace("f1", "F1"),
        "n": scores["n"],
        "unsafe": scores["positives"],
        "value [95 % interval], %": [Bar(r.value, r.low, r.high) for r in scores.itertuples()],
    })  # fmt: skip
    value = scores.set_index("policy")["value"].round(1)
    gap = abs(value["macro"] - value["pooled"])
    both = f"macro {value['macro']:.1f}, pooled {value['pooled']:.1f}, {gap:.1f} points apart"
    return compose(f"{judge} on {pairs} pairs: {both}.", Table(frame))


def threshold(judgements: pd.DataFrame, judge: str, percent: int) -> View:
    """Show precision and recall if P(unsafe) of at least ``percent`` is called unsafe."""
    rows = judgements[judgements["judge"] == judge]
    unsafe, called = rows["label"] == UNSAFE, rows["p_unsafe"] >= percent / 100
    hits = (unsafe & called).sum()
    rates = {
        "precision": hits / called.sum() if called.any() else float("nan"),
        "recall": hits / unsafe.sum() if unsafe.any() else float("nan"),
    }
    bars = [Bar(100 * rate) for rate in rates.values()]
    description = "Precision against recall at every threshold, with a mark at this one."
    curve = figures.precision_recall(unsafe, rows["p_unsafe"], rates["recall"], rates["precision"])
    return compose(
        f"{judge} calls {called.sum()} of {len(rows)} unsafe.",
        Table(pd.DataFrame({"rate": rates.keys(), "%": bars})),
        chart(curve, description, CURVE),
    )


def rewards(label: str, reply: str) -> View:
    """Show what each reward pays for a reply to a case with this label."""
    parsed = parse(reply)
    verdict = f"Read as {parsed.verdict}" + (f" ({parsed.reason})." if parsed.reason else ".")
    paid = {name: reward.rewards_of(name, [reply], label)[0] for name in reward.REWARDS}
    return compose(verdict, Table(pd.DataFrame({"reward": paid.keys(), "pays": paid.values()})))
