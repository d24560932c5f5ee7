"""The history of a policy as a table: each edit, its expected flips, and those of a judge."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
from datasets import Dataset

from sgvl.data import store
from sgvl.experiments import policy_diff
from sgvl.judges import Judge, ask_all, under
from sgvl.judges.ask import unanswered
from sgvl.policies.policy import Policy
from sgvl.policies.versions import DIGITS, Version, edits

COLUMNS = [
    *("version", "date", "commit", "parent", "edits", "pictures", "expected"),
    *(policy_diff.MADE, policy_diff.MISSED, policy_diff.COLLATERAL, policy_diff.CHANGED),
]
OUTCOMES = COLUMNS[-4:]


def table(
    versions: Sequence[Version],
    pictures: Callable[[Policy, Policy], Dataset | None],
    judge: Judge | None,
    answers: Path,
) -> pd.DataFrame:
    """Describe each version of a policy, and the edit that led to it. No judge is asked anything.

    Parameters
    ----------
    versions : the oldest first
    pictures : takes the versions before and after an edit, and returns the pictures to count flips
        on, if there are any
    judge : whose stored answers are read
    answers : folder of them

    Returns
    -------
    pandas.DataFrame
        A row for each version. ``parent`` says whether the digest that the version names is that of
        the one before; ``expected`` counts the pictures whose exact label the edit changes, and the
        columns of outcomes count as ``policy_diff`` does. Empty where nothing is known or stored.
    """
    lines = [_about(versions[0])]
    for before, version in pairwise(versions):
        now, then = version.policy, before.policy.model_copy(update={"name": version.policy.name})
        line = _about(version) | {"parent": _parent(now, before.policy)}
        line["edits"] = "; ".join(edits(then, now)) or "none"
        if rows := pictures(then, now):
            line["pictures"] = len(rows)
            if store.has_tags(rows):
                pairs = ((then.label(tags).label, now.label(tags).label) for tags in rows["tags"])
                line["expected"] = sum(one != other for one, other in pairs)
            if judge:
                line |= _judged(judge, rows, now, then, answers)
        lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS, dtype=object).fillna("")


def _about(version: Version) -> dict:
    date = f"{version.date:%Y-%m-%d %H:%M}" if version.date else ""
    commit = version.commit[:DIGITS]
    return {"version": version.policy.digest[:DIGITS], "date": date, "commit": commit}


def _parent(now: Policy, before: Policy) -> str:
    if not now.parent:
        return ""
    return "as stated" if before.digest.startswith(now.parent) else f"states {now.parent[:DIGITS]}"


def _judged(judge: Judge, rows: Dataset, now: Policy, before: Policy, answers: Path) -> dict:
    """Count the outcomes of an edit where every answer is stored."""
    samples, versions = store.samples(store.usable(rows)), [now, before]
    if unanswered(judge, under(samples, versions), answers):
        return {}
    given = ask_all(judge, under(samples, versions), answers)
    outcomes = policy_diff.rows(rows, given, now, before)["outcome"].tolist()
    return {name: outcomes.count(name) for name in OUTCOMES}
