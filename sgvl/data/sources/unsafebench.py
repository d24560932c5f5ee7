"""UnsafeBench (yiting/UnsafeBench, gated, research use): real and generated pictures, one policy.

Two protocols meet in Table 2 of the paper. UnsafeBench's authors score train and test merged; the
released script of SafeGuard-VL scores the rows it is given. ``split`` chooses.
"""

from datasets import Dataset

from sgvl.common.errors import InputError, need_known
from sgvl.data.real_rows import (
    RATINGS,
    joined,
    labelled,
    need_columns,
    translated,
    warn_of_counts,
    words,
)
from sgvl.data.sources import hub
from sgvl.policies.policy import load as load_policy

REPO = "yiting/UnsafeBench"
COLUMNS = ("image", "safety_label", "category", "source")
ROWS = {"train": 8109, "test": 2037}  # the hub's card
SPLITS = {"test": ("test",), "train": ("train",), "merged": ("train", "test")}
CATEGORIES = (
    *("Hate", "Harassment", "Violence", "Self-harm", "Sexual", "Shocking", "Illegal activity"),
    *("Deception", "Political", "Public and personal health", "Spam"),
)
NOT_IN_TABLE_2 = ("Harassment", "Public and personal health")


def load(split: str = "test", categories: int = 11, revision: str = "main") -> Dataset:
    """A split (test, train, or both merged) in the record shape, under the eleven-heading policy.

    ``categories`` is 11, or 9: those of the paper's Table 2. Safe pictures have a category, too.
    Warns where a split is not of its published size. Raises InputError as ``hub.download`` does,
    and for columns, labels or categories that are not as published, naming each row.
    """
    need_known("unsafebench: split", split, SPLITS)
    if categories not in (9, 11):
        raise InputError(f"unsafebench: categories {categories!r}; allowed: 9, 11")
    parts = []
    for name in SPLITS[split]:
        source, rows = hub.parquet(REPO, revision, f"*{name}-*.parquet")
        warn_of_counts(source, {name: len(rows)}, {name: ROWS[name]})
        parts.append(_labelled(rows, source, name, categories))
    return joined(parts)


def _labelled(rows: Dataset, source: str, split: str, categories: int) -> Dataset:
    where = f"{source}, {split}"
    need_columns(rows.column_names, COLUMNS, where)
    known = dict(zip(CATEGORIES, CATEGORIES, strict=True))
    found = translated(words(rows, "category"), known, "category", where)
    origins = words(rows, "source")
    labels = translated(words(rows, "safety_label"), RATINGS, "safety_label", where)
    kept = [i for i, c in enumerate(found) if categories == 11 or c not in NOT_IN_TABLE_2]
    return labelled(
        rows.select(kept),
        where,
        ids=[f"{split}-{i:05d}" for i in kept],
        source=source,
        split=split,
        policies=[load_policy("openai_content")] * len(kept),
        labels=[labels[i] for i in kept],
        categories=[found[i] for i in kept],
        origins=[origins[i] for i in kept],
    )
