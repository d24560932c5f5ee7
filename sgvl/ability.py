"""What a model can do beside judging: say what a picture shows, and answer plain questions.

Both are measured before and after training, with the same pictures and the same words.
"""

from collections.abc import Sequence

import pandas as pd
from datasets import Dataset

from sgvl.concepts import PLACES, group
from sgvl.data import Sample
from sgvl.intervals import wilson
from sgvl.prompts import CAPTION
from sgvl.questions import answer_in


def naming(judge, samples: Sequence[Sample], prompt: str = CAPTION[0]) -> pd.DataFrame:
    """One row a drawn thing: id, thing, group, caption, and whether the caption names it."""
    captions = judge.ask([s.image for s in samples], [prompt] * len(samples))
    rows = []
    for sample, caption in zip(samples, captions, strict=True):
        words = f" {caption.replace(',', ' ').replace('.', ' ')} "
        for thing in sorted(set(sample.tags) - set(PLACES)):
            rows.append((sample.id, thing, group(thing), caption, f" {thing} " in words))
    return pd.DataFrame(rows, columns=["id", "thing", "group", "caption", "right"])


def answering(judge, rows: Dataset) -> pd.DataFrame:
    """One row a question of general ability: id, task, the answer given, whether it is right."""
    replies = judge.ask(list(rows["image"]), list(rows["question"]))
    given = [answer_in(reply) for reply in replies]
    return pd.DataFrame(
        {
            "id": rows["id"],
            "task": rows["category"],
            "given": given,
            "right": [g == a for g, a in zip(given, rows["answer"], strict=True)],
        }
    )


def shares(answers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Percent right for each value of ``by``, with Wilson 95 % intervals: value, low, high, n."""
    found = answers.groupby(by, sort=False)["right"].agg(["mean", "size"])
    rows = [percent(row["mean"], int(row["size"])) for _, row in found.iterrows()]
    return pd.DataFrame(rows, index=found.index)


def percent(share: float, n: int) -> dict:
    """A share of ``n`` cases as percent with its Wilson 95 % interval."""
    low, high = 100 * wilson(share, n)
    return {"value": float(100 * share), "low": float(low), "high": float(high), "n": int(n)}
