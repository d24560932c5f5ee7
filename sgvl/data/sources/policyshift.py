"""PolicyShiftBench (Song et al., arXiv 2607.05910): one picture under policies that shift.

A case is a picture and a bundle of policies, one for each of seven risk categories; the label says
whether the picture breaks any. Bundles differ from case to case, so a policy is named after a hash
of its text.
"""

import hashlib

from datasets import Dataset

from sgvl.common.errors import need_known, raise_any
from sgvl.data import real_rows
from sgvl.data.sources import hub
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

REPO = "PolicyShiftGuard/PolicyShiftBench"
COLUMNS = ("question", "image", "image_idx", "section_title", "policy_name", "label")
SPLITS = {"id_test": ("id_test",), "ood_test": ("ood_test",), "merged": ("id_test", "ood_test")}
ROWS = {"merged": 2000}  # the paper's abstract
CASES = {"cases of both splits": ROWS["merged"], "pictures": 265}
LABELS = {"pass": SAFE, "block": UNSAFE}
OPENING = "**POLICIES:**"  # before it stand the instructions of the authors' own prompt


def load(split: str = "merged", revision: str = "main") -> Dataset:
    """Load a split (id_test, ood_test, or both merged) in the record shape.

    An id names a case; ``pair`` joins all cases of a picture, since intervals must keep them
    together. Warns if the merged set does not have its published size.

    Raises
    ------
    InputError
        As ``hub.parquet`` does, and for labels or policies that are not as published, row by row.
    """
    need_known("policyshift: split", split, SPLITS)
    # The repository mixes formats, so each split is read from its own file.
    files = {name: f"*{name}[-.]*parquet" for name in SPLITS[split]}
    parts = [_rows(*hub.parquet(REPO, revision, files[name], COLUMNS), name) for name in files]
    rows = real_rows.concatenate(parts)
    if split == "merged":
        counts = {"cases of both splits": len(rows), "pictures": len(set(rows["pair"]))}
        real_rows.warn_of_counts(REPO, counts, CASES)
    return rows


def _rows(source: str, rows: Dataset, split: str) -> Dataset:
    where = f"{source}, {split}"
    bundles = [question.partition(OPENING)[2].strip() for question in rows["question"]]
    raise_any(
        f"{where}, row {row}: question holds no policies after {OPENING}"
        for row, bundle in enumerate(bundles)
        if not bundle
    )
    return real_rows.make_rows(
        rows,
        where,
        ids=[f"{split}-{row:05d}" for row in range(len(rows))],
        source=source,
        split=split,
        policies=[_policy(bundle, source) for bundle in bundles],
        labels=real_rows.translate(rows, "label", LABELS, where),
        categories=rows["section_title"],
        pairs=[str(index) for index in rows["image_idx"]],
    )


def _policy(bundle: str, source: str) -> Policy:
    digest = hashlib.sha256(bundle.encode()).hexdigest()[:8]
    return Policy(name=f"bundle-{digest}", title="Active policies", origin=source, text=bundle)
