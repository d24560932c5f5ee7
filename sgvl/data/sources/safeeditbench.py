"""SafeEditBench as released (tyodd/SafeEditBench, gated, CC BY 4.0): one call, pictures inside.

A row is a picture under one of five policies, whose texts come with it. Not every picture is
labelled under every policy, which is why the levels differ in size.
"""

from collections import Counter, defaultdict
from pathlib import PurePosixPath

from datasets import Dataset

from sgvl.data.real_rows import complain, labelled, need_columns, translated, warn_of_counts, words
from sgvl.data.sources import hub
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

REPO = "tyodd/SafeEditBench"
COLUMNS = ("image", "image_path", "safety_label", "policy_name", "policy")
LEVELS = {f"Policy L{k}": f"L{k}" for k in range(1, 6)}
# Solved from the printed scores, and 601 rows on the hub's card: see sgvl.report.audit.
ROWS = {"L1": 118, "L2": 118, "L3": 122, "L4": 119, "L5": 124}
ALONE = "pictures without a counterpart"
EDITED = "_edited"  # x.jpg is the unsafe original, x_edited.jpg its safe counterpart


def load(revision: str = "main") -> Dataset:
    """The test split under its five policies, in the record shape; ``pair`` joins x and x_edited.

    Warns where a level is not of its published size, and of pictures without a counterpart. Raises
    InputError as ``hub.download`` does, and for columns, labels or levels that are not as
    published, naming each row.
    """
    source, rows = hub.parquet(REPO, revision, "*test-*.parquet")
    need_columns(rows.column_names, COLUMNS, source)
    levels = translated(words(rows, "policy_name"), LEVELS, "policy_name", source)
    policies = _policies(levels, rows["policy"], source)
    ids = [PurePosixPath(path).stem for path in rows["image_path"]]
    pairs = [id_.removesuffix(EDITED) for id_ in ids]
    warn_of_counts(source, Counter(levels), ROWS)
    pictures = Counter(dict(zip(ids, pairs, strict=True)).values())
    alone = sum(n == 1 for n in pictures.values())
    warn_of_counts(source, {ALONE: alone}, {ALONE: 0})
    labels = words(rows, "safety_label")
    return labelled(
        rows,
        source,
        ids=ids,
        source=source,
        split="test",
        policies=[policies[level] for level in levels],
        labels=translated(labels, {w: w for w in (SAFE, UNSAFE)}, "safety_label", source),
        pairs=pairs,
    )


def _policies(levels, texts, source: str) -> dict[str, Policy]:
    """The policy of each level, which must have one text."""
    told = defaultdict(set)
    for level, text in zip(levels, texts, strict=True):
        told[level].add((text or "").strip())
    complain(
        f"{source}: {level} has {len(found)} texts, or an empty one; expected one policy a level"
        for level, found in told.items()
        if len(found) > 1 or "" in found
    )
    return {
        level: Policy(name=level, title=f"Policy {level}", origin=source, text=found.pop())
        for level, found in told.items()
    }
