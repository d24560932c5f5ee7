"""One judge before every set: what Tables 2 to 6 and Figure 6 are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.data import store
from sgvl.data.cases import label_cases
from sgvl.experiments import ability
from sgvl.judges import Judge
from sgvl.judges.records import judge_all
from sgvl.policies.policy import Policy, load


class Sets(NamedTuple):
    """The test sets of a run, read once for all judges."""

    bench: Dataset  # SafeEditBench: pairs, judged under every level
    unsafebench: Dataset  # nine categories under the eleven-heading policy
    llavaguard: Dataset  # pictures with policies of their own
    following: Dataset  # pictures under random policies over harmful categories
    general: list[Dataset]  # questions that have nothing to do with safety


def read(
    folder: Path, pairs: int = 0, rows: int = 0, general: Sequence[str] = ("general",)
) -> Sets:
    """The sets in ``folder``; ``pairs`` of SafeEditBench and ``rows`` of each other, 0 for all.

    ``general`` names sets of questions: the drawn one, or published ones.
    """
    bench = store.read("safeeditbench", folder)
    names = ("unsafebench", "llavaguard_test", "following_harmful", *general)
    others = [store.read(name, folder) for name in names]
    # Drawn rows come in pairs; published questions do not, and may be odd in number.
    group = [1 if "options" in other.column_names else 2 for other in others]
    others = [store.take_evenly(other, rows, g) for other, g in zip(others, group, strict=True)]
    pairs_of_it = bench.select(store.even_indices(len(bench), 2 * pairs, group=2))
    return Sets(pairs_of_it, *others[:3], others[3:])


def examine(
    judge: Judge,
    sets: Sets,
    levels: Sequence[Policy],
    folder: Path,
    convention: str = "vlmevalkit",
) -> dict[str, pd.DataFrame]:
    """Everything that one judge answers, as frames by name, each with a column ``judge``.

    ``levels``, ``unsafebench``, ``llavaguard`` and ``following`` are judgement frames as
    ``sgvl.scores.metrics`` takes them; a category of UnsafeBench stands where the policy does.
    ``general`` and ``naming`` come from ``sgvl.experiments.ability``, and only from judges that
    speak; ``convention`` is that of published questions. Their answers, and those under fixed
    policies, are kept in ``folder`` and not asked for again.
    """
    content = [load("openai_content")]
    one = _judged(judge, store.samples(sets.unsafebench), content, folder)
    found = {
        "levels": judge_levels(judge, sets.bench, levels, folder),
        "unsafebench": one.assign(
            policy=sets.unsafebench["category"],
            label=store.labels(sets.unsafebench),
            pair=one["id"],
        ),
        "llavaguard": _own_policies(judge, sets.llavaguard),
        "following": _own_policies(judge, sets.following),
    }
    if hasattr(judge, "ask"):
        found["general"] = ability.of_judges([judge], sets.general, convention, folder)
        found["naming"] = ability.naming(judge, store.samples(sets.bench))
    return {name: frame.assign(judge=judge.name) for name, frame in found.items()}


def judge_levels(
    judge: Judge, bench: Dataset, levels: Sequence[Policy], folder: Path
) -> pd.DataFrame:
    """A judge's answers on SafeEditBench under every level, with the labels."""
    asked = _judged(judge, store.samples(bench), levels, folder)
    return asked.merge(label_cases(bench, levels), on=["id", "policy"]).assign(judge=judge.name)


def _judged(judge, samples, policies, folder) -> pd.DataFrame:
    records = folder / f"{judge.name.replace('/', '_')}.jsonl"
    return pd.DataFrame(judge_all(judge, samples, policies, records))


def _own_policies(judge: Judge, rows: Dataset) -> pd.DataFrame:
    """Judgements of rows that bring their policies; all count as one policy, the set's name."""
    verdicts = [j.verdict for j in judge.judge_cases(store.policy_cases(rows))]
    return pd.DataFrame(
        {"id": rows["id"], "pair": rows["pair"], "policy": rows["source"][0],
         "label": store.labels(rows), "verdict": verdicts}
    )  # fmt: skip
