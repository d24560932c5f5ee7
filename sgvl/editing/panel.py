"""A simulated panel of annotators, whose causes of disagreement are known.

Each vote begins as the exact label. Then up to three things change it to the other one:

*a slip*, with a rate of the annotator's own, on any case;
*an unclear clause*: where it decides, each annotator reads each case one way or the other anew, so
that the same annotator contradicts itself;
*other values*: where a clause decides that an annotator does not share, the annotator says the
opposite every time.

``sgvl.editing.blame`` sees the votes alone and must find the shares that ``known_shares`` counts.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from sgvl.common.errors import need_known
from sgvl.editing import annotation
from sgvl.editing.annotation import COLUMNS, UNSURE, Vote
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

CAUSES = ("slips", "unclear", "values")  # in the order in which they change a vote


def simulate(
    cases: pd.DataFrame,
    policies: Sequence[Policy],
    slips: Mapping[str, float],
    unclear: Mapping[str, float] | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
    unsure: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Let a panel vote on every case of drawn scenes.

    Parameters
    ----------
    cases : with id, policy, label and rule, of ``sgvl.data.cases.label_cases``
    slips : share of votes that are slips, by annotator
    unclear : share of readings that go the other way, by clause: ``L3:drugs`` is the rule of L3
        about the tag drugs, ``L5:default`` what holds where no rule applies
    values : clauses that an annotator does not share, by annotator
    unsure : share of the readings that go the other way for which "unsure" is said instead
    seed : of all random choices

    Returns
    -------
    pandas.DataFrame
        The votes, with the exact label and, for each of ``CAUSES``, whether it changed the vote.

    Raises
    ------
    InputError
        For a clause, a policy or an annotator that does not exist.
    """
    unclear, values = unclear or {}, values or {}
    for name in values:
        need_known("values: no annotator", name, slips)
    rules = {
        clause: _rule(clause, policies) for own in (unclear, *values.values()) for clause in own
    }
    rng = np.random.default_rng((seed, 60))
    decided_by = list(zip(cases["policy"], cases["rule"], strict=True))

    def rates(clauses: Mapping[str, float]) -> np.ndarray:
        of_rule = {rules[clause]: rate for clause, rate in clauses.items()}
        return np.array([of_rule.get(case, 0.0) for case in decided_by])

    frames = []
    for annotator, rate in slips.items():
        chance = rng.random((len(cases), 3))
        changes = {
            "slips": chance[:, 0] < rate,
            "unclear": chance[:, 1] < rates(unclear),
            "values": rates(dict.fromkeys(values.get(annotator, ()), 1.0)) > 0,
        }
        flipped = np.logical_xor.reduce(list(changes.values()))
        says_unsafe = cases["label"].eq(UNSAFE).to_numpy() ^ flipped
        verdict = np.where(says_unsafe, UNSAFE, SAFE).astype(object)
        verdict[changes["unclear"] & (chance[:, 2] < unsure)] = UNSURE
        votes = cases[["id", "policy", "label"]].assign(
            annotator=annotator, verdict=verdict, note="", **changes
        )
        frames.append(votes[[*COLUMNS, "label", *CAUSES]])
    return pd.concat(frames, ignore_index=True)


def store_votes(
    votes: pd.DataFrame, folder: Path, pictures: Mapping[str, str], policies: Sequence[Policy]
) -> None:
    """Write the votes of a panel as those of people are written, in place of an earlier panel's.

    Kernels that do so at a time, as those of a page with several visitors, wait for each other.

    Parameters
    ----------
    votes : from ``simulate``
    folder, pictures, policies : as ``annotation.read`` takes them
    """
    by_name = {policy.name: policy for policy in policies}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        shutil.rmtree(folder, ignore_errors=True)
        for annotator, own in votes.groupby("annotator"):
            rows = own[["id", "policy", "verdict", "note"]].itertuples(index=False)
            said = (Vote(id_, pictures[id_], by_name[name], v, note) for id_, name, v, note in rows)
            annotation.append(folder, annotator, said)


def _rule(clause: str, policies: Sequence[Policy]) -> tuple[str, str]:
    """Return the policy's name and the sentence of a clause such as ``L3:drugs``."""
    name, _, tag = clause.partition(":")
    by_name = {policy.name: policy for policy in policies}
    need_known("clause of no policy here:", name, by_name)
    texts = {tag: rule.text for rule in by_name[name].rules for tag in rule.tags}
    texts["default"] = f"Whatever no rule mentions is {by_name[name].default}."
    need_known(f"{name} has no clause about", tag, texts)
    return name, texts[tag]


def known_shares(votes: pd.DataFrame) -> pd.DataFrame:
    """Count what each cause adds to the disagreement, in points, when they come in turn.

    Parameters
    ----------
    votes : from ``simulate``

    Returns
    -------
    pandas.DataFrame
        Indexed by policy, and pooled: disagreement (percent of pairs of votes) and ``CAUSES``.
    """
    votes = votes.assign(said=votes["verdict"].ne(UNSURE), vote=votes["label"].eq(UNSAFE))
    parts = {}
    for cause in CAUSES:
        votes = votes.assign(vote=votes["vote"] ^ votes[cause])
        parts[cause] = _disagreement(votes)
    frame = pd.DataFrame(parts).diff(axis=1).fillna(pd.DataFrame(parts)[["slips"]])
    frame.insert(0, "disagreement", parts["values"])
    return frame


def _disagreement(votes: pd.DataFrame) -> pd.Series:
    """Return the percentage of pairs of votes that differ, by policy and pooled."""
    said = votes[votes["said"]].groupby(["policy", "id"], sort=False)["vote"]
    n, unsafe = said.size(), said.sum()
    counts = pd.DataFrame({"differ": unsafe * (n - unsafe), "pairs": n * (n - 1) / 2})
    counts = counts.groupby("policy", sort=False).sum()
    counts.loc["pooled"] = counts.sum()
    return 100 * counts["differ"] / counts["pairs"]
