"""UnsafeBench (yiting/UnsafeBench, gated, research use): real and generated pictures, one policy.

Table 2 of the paper mixes two protocols: UnsafeBench's authors score train and test merged; the
released script of SafeGuard-VL scores the rows it is given. ``split`` chooses between them.
"""

from datasets import Dataset

from sgvl.common.errors import InputError, need_known
from sgvl.data import real_rows
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
    """Load a split in the record shape, under the eleven-heading policy.

    Warns of a split that does not have its published size.

    Parameters
    ----------
    split : test, train, or both merged
    categories : 11, or 9: those of the paper's Table 2. Safe pictures have a category, too.
    revision : branch, tag or commit

    Raises
    ------
    InputError
        As ``hub.parquet`` does, and for labels or categories that are not as published, row by row.
    """
    need_known("unsafebench: split", split, SPLITS)
    if categories not in (9, 11):
        raise InputError(f"unsafebench: categories {categories!r}; allowed: 9, 11")
    parts = []
    for name in SPLITS[split]:
        source, rows = hub.parquet(REPO, revision, f"*{name}-*.parquet", COLUMNS)
        real_rows.warn_of_counts(source, {name: len(rows)}, {name: ROWS[name]})
        parts.append(_rows(rows, source, name, categories))
    return real_rows.concatenate(parts)


def _rows(rows: Dataset, source: str, split: str, categories: int) -> Dataset:
    where = f"{source}, {split}"
    names = real_rows.translate(rows, "category", {name: name for name in CATEGORIES}, where)
    origins = real_rows.as_words(rows, "source")
    labels = real_rows.translate(rows, "safety_label", real_rows.RATINGS, where)
    kept = [i for i, name in enumerate(names) if categories == 11 or name not in NOT_IN_TABLE_2]
    return real_rows.make_rows(
        rows.select(kept),
        where,
        ids=[f"{split}-{i:05d}" for i in kept],
        source=source,
        split=split,
        policies=[load_policy("openai_content")] * len(kept),
        labels=[labels[i] for i in kept],
        categories=[names[i] for i in kept],
        origins=[origins[i] for i in kept],
    )
