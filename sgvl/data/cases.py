"""What judges are asked about a data set: each picture under its policies, and the right answer."""

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

    ``cases`` has the columns id, pair, policy (a name) and label, and for drawn scenes the rule
    that fired; ``policies`` has the policy of each case, in the same order. One name may stand for
    policies of several texts, as with LlavaGuard's; an id meets only one of them.
    """

    cases: pd.DataFrame
    policies: list[Policy]

    def distinct(self) -> list[Policy]:
        """The different policies, in the order of their first case."""
        return list({policy.digest: policy for policy in self.policies}.values())

    def by_shared_policies(
        self, samples: Iterable[Sample]
    ) -> Iterator[tuple[list[Sample], list[Policy]]]:
        """Pictures with the policies that they share: each block is one call of ``judge_all``.

        Where every picture is asked about under every policy, that is a single block.
        """
        own: dict[str, list[Policy]] = {}
        for id_, policy in zip(self.cases["id"], self.policies, strict=True):
            own.setdefault(id_, []).append(policy)
        blocks: dict[tuple[str, ...], list[Sample]] = {}
        for sample in samples:
            if sample.id in own:
                blocks.setdefault(tuple(p.digest for p in own[sample.id]), []).append(sample)
        for shown in blocks.values():
            yield shown, own[shown[0].id]


def cases_of(dataset: Dataset, names: Sequence[str | Path] = ()) -> Cases:
    """The cases of a data set, under all its policies or the ones named.

    Drawn scenes are labelled exactly, under any policies by name or path, by default all levels.
    Real pictures bring policies and labels of their own; ``names`` chooses among those. Raises
    InputError for a name that matches nothing.
    """
    if "label" not in dataset.column_names:
        levels = load_all(names)
        return Cases(label_cases(dataset, levels), [p for p in levels for _ in range(len(dataset))])
    policies = store.policies(dataset)
    known = list(dict.fromkeys(policy.name for policy in policies))
    if strange := [str(name) for name in names if name not in known]:
        raise InputError(f"no policy {n!r} in this data set; {nearest(n, known)}" for n in strange)
    cases = dataset.select_columns(["id", "pair"]).to_pandas()
    cases = cases.assign(policy=[p.name for p in policies], label=store.labels(dataset))
    kept = cases["policy"].isin(names or known)
    return Cases(cases[kept], [p for p, keep in zip(policies, kept, strict=True) if keep])


def label_cases(dataset: Dataset, policies: Iterable[Policy]) -> pd.DataFrame:
    """Every picture under every policy: id, pair, policy, label, and the rule that fired.

    Labels are computed from the tags, so that any policy labels any drawn scene exactly.
    """
    columns = dataset.select_columns(["id", "tags", "pair"])
    rows = []
    for policy in policies:
        for row in columns:
            ruling = policy.label(row["tags"])
            rows.append((row["id"], row["pair"], policy.name, ruling.label, ruling.rule))
    return pd.DataFrame(rows, columns=["id", "pair", "policy", "label", "rule"])
