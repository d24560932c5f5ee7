"""The record shape of real data: one row a picture and a policy, with the label that people gave.

==========  ====================================================================================
column      what it holds
==========  ====================================================================================
id          of the picture; its rows share it where it is labelled under several policies
image       the file as it came, or none
source      where it comes from, with the commit: ``tyodd/SafeEditBench@1a2b3c4d``
origin      where the picture itself comes from, as published: UnsafeBench's Laion5B and Lexica;
            empty where nothing is said
split       test, train or another
category    as published; empty where there is none
pair        joins a picture and its edited counterpart; the id where there is no pair
policy      a ``Policy`` as JSON: its name and its text
label       safe or unsafe
status      "ok", or why the picture cannot be judged: the ``kind`` of an ``ImageError``, or how
            its download failed
==========  ====================================================================================

No row is left out for its picture's sake: what cannot be judged is counted, by its status.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from sgvl.common.errors import InputError, nearest
from sgvl.data.images import ImageError, load_image
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

RATINGS = {"Safe": SAFE, "Unsafe": UNSAFE}  # as two of the published sets spell them
LABEL = ClassLabel(names=["safe", "unsafe"])  # the positive class is unsafe
OK = "ok"
SHOWN = 10  # problems of one file that are told in full
TEXT = Value("string")
FEATURES = Features(
    {"id": TEXT, "image": Image(decode=False), "source": TEXT, "origin": TEXT, "split": TEXT}
    | {"category": TEXT, "pair": TEXT, "policy": TEXT, "label": LABEL, "status": TEXT}
)


def labelled(
    images: Dataset,
    where: str,
    *,
    ids: Sequence[str],
    source: str,
    split: str | Sequence[str],
    policies: Sequence[Policy],
    labels: Sequence[str],
    categories: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    origins: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
) -> Dataset:
    """Pictures and what is known of them, one entry a row, in the record shape.

    ``images`` has a column ``image`` of files that are not decoded. Without a ``status`` every
    picture is decoded once, to see whether it can be. Raises InputError, opening with ``where``,
    for no rows, and for a picture that is labelled twice under one policy.
    """
    if not len(images):
        raise InputError(f"{where}: 0 rows; there is nothing to judge")
    names = [policy.name for policy in policies]
    twice = [key for key, n in Counter(zip(ids, names, strict=True)).items() if n > 1]
    complain(f"{where}: {id_} is labelled twice under {name}; keep one row" for id_, name in twice)
    rows = len(images)
    images = images.select_columns("image").cast_column("image", Image(decode=False))
    columns = {
        "id": ids,
        "source": [source] * rows,
        "origin": origins or [""] * rows,
        "split": [split] * rows if isinstance(split, str) else split,
        "category": categories or [""] * rows,
        "pair": pairs or ids,
        "policy": [policy.model_dump_json(by_alias=True) for policy in policies],
        "label": [LABEL.str2int(label) for label in labels],
        "status": status or [picture_status(row["image"]) for row in images],
    }
    for name, values in columns.items():
        images = images.add_column(name, list(values), feature=FEATURES[name])
    return images.select_columns(list(FEATURES)).cast_column("image", Image())


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Splits in the record shape, one after another."""
    return concatenate_datasets(parts).select_columns(list(FEATURES))


def picture_status(file: dict) -> str:
    """Decode a picture under the limits of ``sgvl.data.images``: "ok", or why it cannot be."""
    try:
        load_image(file["bytes"])
    except ImageError as error:
        return error.kind
    return OK


def complain(problems) -> None:
    """Raise what is wrong with a file, if anything is: the first problems, and how many more."""
    problems = list(problems)
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    if problems:
        raise InputError(problems[:SHOWN] + more)


def need_columns(found: Sequence[str], needed: Sequence[str], where: str) -> None:
    """Raise InputError for columns that a file should have and has not."""
    complain(
        f"{where}: column {name!r} is missing; {nearest(name, found)}"
        for name in needed
        if name not in found
    )


def words(dataset: Dataset, column: str) -> list[str | None]:
    """A column in words, whether it was published as text or as the numbers of a ClassLabel."""
    feature, values = dataset.features[column], dataset[column]
    if isinstance(feature, ClassLabel):
        return [None if value is None else feature.int2str(value) for value in values]
    return list(values)


def translated(values: Sequence, known: Mapping[str, str], column: str, where: str) -> list[str]:
    """Published spellings in ours. Raises InputError that names each row of another spelling."""
    allowed = ", ".join(known)
    complain(
        f"{where}, row {row}: {column} {value!r}; allowed: {allowed}"
        for row, value in enumerate(values)
        if value not in known
    )
    return [known[value] for value in values]


def warn_of_counts(where: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Warn where a data set is no longer of the size it was published with: scores then differ."""
    for name, n in expected.items():
        if found.get(name, 0) != n:
            warnings.warn(f"{where}: {name}: {found.get(name, 0)}, expected {n}", stacklevel=3)
