"""The cases of a data set: each picture under its policies, with the right answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.data import Sample, store
from sgvl.data.real_rows import LABEL, OK
from sgvl.policies.policy import LEVELS, Policy, load_all
from sgvl.text.verdict import SAFE


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

    Drawn scenes are labelled exactly, under any policies by name or path, by default all levels. A
    row that lists ``levels`` comes under no other level.
    Rows that bring policies and labels of their own keep them; ``names`` chooses among those. A
    file among the names is the edited policy of its name: the same pictures come under its text,
    with the labels that they have.

    Raises
    ------
    InputError
        For a name that matches nothing.
    """
    if "label" not in dataset.column_names:
        levels = {policy.name: policy for policy in load_all(names)}
        table = label_cases(dataset, levels.values())
        return Cases(table, [levels[name] for name in table["policy"]])
    policies = store.policies(dataset)
    known = list(dict.fromkeys(policy.name for policy in policies))
    files = [name for name in names if Path(name).suffix == ".md"]
    edited = {policy.name: policy for policy in load_all(files)} if files else {}
    names = [str(name) for name in names if name not in files] + list(edited)
    hint = "; the file of an edited policy keeps its `name`"
    raise_any(
        f"no policy {name!r} in this data set; {nearest(name, known)}{hint * (name in edited)}"
        for name in names
        if name not in known
    )
    policies = [edited.get(policy.name, policy) for policy in policies]
    table = dataset.select_columns(["id", "pair"]).to_pandas()
    table = table.assign(policy=[p.name for p in policies], label=store.labels(dataset))
    kept = table["policy"].isin(names or known)
    return Cases(table[kept], [p for p, keep in zip(policies, kept, strict=True) if keep])


def label_cases(dataset: Dataset, policies: Iterable[Policy]) -> pd.DataFrame:
    """Label every drawn picture under every policy: id, pair, policy, label, and the rule.

    Labels are computed from the tags, so that any policy labels any drawn scene exactly. A row that
    lists ``levels`` comes under no other level.
    """
    names = [name for name in ("id", "tags", "pair", "levels") if name in dataset.column_names]
    rows = []
    for policy in policies:
        for row in dataset.select_columns(names):
            if policy.name in LEVELS and policy.name not in row.get("levels", LEVELS):
                continue
            ruling = policy.label(row["tags"])
            rows.append((row["id"], row["pair"], policy.name, ruling.label, ruling.rule))
    return pd.DataFrame(rows, columns=["id", "pair", "policy", "label", "rule"])


def label_of(row: Mapping, policy: Policy) -> str:
    """Return the label of a row under a policy: from its tags, or else the stored one.

    A stored label is that of the row's own policy.
    """
    return policy.label(row["tags"]).label if "tags" in row else LABEL.int2str(row["label"])


class Case(NamedTuple):
    """A row of a data set under one policy, with its label under it."""

    place: int  # of the row
    policy: Policy
    label: str


def training_cases(dataset: Dataset, policies: Sequence[Policy] = ()) -> list[Case]:
    """List the cases to train on.

    Rows that bring policies of their own keep them; ``policies`` chooses among those by name. The
    two of a picture that have opposite labels come one after the other, before all that have no
    such partner. Drawn scenes without policies come under each of ``policies``, in order. Rows
    whose picture cannot be read are left out.

    Raises
    ------
    InputError
        For pictures without labels, and if no row is left.
    """
    columns = [name for name in ("tags", "label", "status") if name in dataset.column_names]
    rows = dataset.select_columns(columns)
    own = store.policies(dataset) if "policy" in dataset.column_names else None
    if own is None and "tags" not in columns:
        raise InputError("pictures without labels teach no verdicts; choose a set that has labels")
    names = [policy.name for policy in policies]
    cases = []
    for place, row in enumerate(rows):
        chosen = policies
        if own is not None:
            chosen = [own[place]] if own[place].name in names or not names else []
        if row.get("status", OK) == OK:
            cases += [Case(place, policy, label_of(row, policy)) for policy in chosen]
    if not cases:
        about = f" under {', '.join(names)}" if names else ""
        raise InputError(f"no row{about} has a picture that can be read: nothing to train on")
    return _by_opposites(cases, list(dataset["pair"])) if own is not None else cases


def _by_opposites(cases: Sequence[Case], pairs: Sequence[str]) -> list[Case]:
    """Order cases: first those in twos of one pair and of opposite labels, then the others."""
    groups: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for case in cases:
        groups[pairs[case.place]][case.label == SAFE].append(case)
    twos, others = [], []
    for sides in groups.values():
        both = min(map(len, sides))
        for two in zip(*sides, strict=False):
            twos += sorted(two, key=lambda case: case.place)
        others += sorted(sum((side[both:] for side in sides), []), key=lambda case: case.place)
    return twos + others
