"""SafeEditBench as released (tyodd/SafeEditBench, gated, CC BY 4.0), pictures included.

A row is a picture under one of five policies; the policy's text is in the row. Not every picture is
labelled under every policy, so the levels differ in size. The training half, SafeEditTrain, was
never released: one of your own in the same form is read from a folder or from the hub.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from datasets import Dataset

from sgvl.common.errors import raise_any
from sgvl.common.files import sha256
from sgvl.common.paths import user_path
from sgvl.data import real_rows
from sgvl.data.sources import hub
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

REPO = "tyodd/SafeEditBench"
COLUMNS = ("image", "image_path", "safety_label", "policy_name", "policy")
LEVELS = {f"Policy L{k}": f"L{k}" for k in range(1, 6)}
# Solved from the printed scores, and 601 rows on the hub's card: see sgvl.report.audit.
ROWS = {"L1": 118, "L2": 118, "L3": 122, "L4": 119, "L5": 124}
ALONE = "pictures without a counterpart"
CHECKSUMS = "SHA256SUMS"  # of a release, written last; `sha256sum -c` reads it
EDITED = "_edited"  # x.jpg is the unsafe original, x_edited.jpg its safe counterpart


def load(revision: str = "main", repo: str = REPO, path: str = "", split: str = "test") -> Dataset:
    """Load a split under its five policies, in the record shape.

    ``pair`` joins x and x_edited. Warns of pictures without a counterpart and, in the published
    test split, of a level that does not have its published size.

    Parameters
    ----------
    revision : branch, tag or commit
    repo : a data set on the hub in the form of the published one
    path : a folder in that form, which comes before ``repo``
    split : part of the names of its Parquet files, as test in ``data/test-00000-of-00001.parquet``

    Raises
    ------
    InputError
        As ``hub.parquet`` does, for a Parquet file of a release that is not that of its checksums,
        and for labels or levels that are not as published, row by row.
    """
    if path:
        raise_any(_changed(user_path(path)))
    source, rows = hub.parquet(repo, revision, f"*{split}-*.parquet", COLUMNS, path)
    levels = real_rows.translate(rows, "policy_name", LEVELS, source)
    policies = _policies(levels, rows["policy"], source)
    ids = [PurePosixPath(path).stem for path in rows["image_path"]]
    pairs = [id_.removesuffix(EDITED) for id_ in ids]
    published = ROWS if (repo, path, split) == (REPO, "", "test") else {}
    real_rows.warn_of_counts(source, Counter(levels), published)
    pictures = Counter(dict(zip(ids, pairs, strict=True)).values())
    alone = sum(n == 1 for n in pictures.values())
    real_rows.warn_of_counts(source, {ALONE: alone}, {ALONE: 0})
    return real_rows.make_rows(
        rows,
        source,
        ids=ids,
        source=source,
        split=split,
        policies=[policies[level] for level in levels],
        labels=real_rows.translate(rows, "safety_label", {w: w for w in (SAFE, UNSAFE)}, source),
        pairs=pairs,
    )


def _changed(folder: Path) -> Iterator[str]:
    """Yield the Parquet files of a folder that are not those of its checksums, if it has any."""
    sums = folder / CHECKSUMS
    for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else ():
        digest, _, name = line.partition("  ")
        file = folder / name
        if name.endswith(".parquet") and file.is_file() and sha256(file) != digest:
            yield f"{file} is not the file of {CHECKSUMS}; get the release again"


def _policies(levels, texts, source: str) -> dict[str, Policy]:
    """Return the policy of each level; raise InputError unless each level has exactly one text."""
    texts_of = defaultdict(set)
    for level, text in zip(levels, texts, strict=True):
        texts_of[level].add((text or "").strip())
    raise_any(
        f"{source}: {level} has {len(texts)} texts, or an empty one; expected one policy a level"
        for level, texts in texts_of.items()
        if len(texts) > 1 or "" in texts
    )
    return {
        level: Policy(name=level, title=f"Policy {level}", origin=source, text=texts.pop())
        for level, texts in texts_of.items()
    }
