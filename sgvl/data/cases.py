"""The cases of a data set: each picture under its policies, with the right answer."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, nearest
from sgvl.data import Sample, store
from sgvl.policies.policy import Policy, load_all


class Cases(NamedTuple):
    """The cases of a data set.

    Parameters
    ----------
    table : columns id, pair, policy (a name) and label, and for drawn scenes the rule that fired
    policies : the policy of each row. One name may stand for policies of several texts, as with
        LlavaGuard's; an id comes under only one of them.
    """

    table: pd.DataFrame
    policies: list[Policy]

    def distinct(self) -> list[Policy]:
        """Return the different policies, in the order of their first case."""
        return list({policy.digest: policy for policy in self.policies}.values())

    def with_pictures(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Policy]]:
        """Yield the cases as judges take them, (sample, policy), sample by sample."""
        own: dict[str, list[Policy]] = {}
        for id_, policy in zip(self.table["id"], self.policies, strict=True):
            own.setdefault(id_, []).append(policy)
        return ((sample, policy) for sample in samples for policy in own.get(sample.id, ()))


def cases_of(dataset: Dataset, names: Sequence[str | Path] = ()) -> Cases:
    """Return the cases of a data set, under all its policies or the ones named.

    Drawn scenes are labelled exactly, under any policies by name or path, by default all levels.
    Rows that bring policies and labels of their own keep them; ``names`` chooses among those.

    Raises
    ------
    InputError
        For a name that matches nothing.
    """
    if "label" not in dataset.column_names:
        levels = load_all(names)
        return Cases(label_cases(dataset, levels), [p for p in levels for _ in range(len(dataset))])
    policies = store.policies(dataset)
    known = list(dict.fromkeys(policy.name for policy in policies))
    if unknown := [str(name) for name in names if name not in known]:
        raise InputError(f"no policy {n!r} in this data set; {nearest(n, known)}" for n in unknown)
    table = dataset.select_columns(["id", "pair"]).to_pandas()
    table = table.assign(policy=[p.name for p in policies], label=store.labels(dataset))
    kept = table["policy"].isin(names or known)
    return Cases(table[kept], [p for p, keep in zip(policies, kept, strict=True) if keep])


def label_cases(dataset: Dataset, policies: Iterable[Policy]) -> pd.DataFrame:
    """Label every drawn picture under every policy: id, pair, policy, label, and the rule.

    Labels are computed from the tags, so that any policy labels any drawn scene exactly.
    """
    columns = dataset.select_columns(["id", "tags", "pair"])
    rows = []
    for policy in policies:
        for row in columns:
            ruling = policy.label(row["tags"])
            rows.append((row["id"], row["pair"], policy.name, ruling.label, ruling.rule))
    return pd.DataFrame(rows, columns=["id", "pair", "policy", "label", "rule"])
