"""The record shape of real data: one row per picture and policy, with a label given by people.

==========  ====================================================================================
column      what it holds
==========  ====================================================================================
id          of the picture; its rows share it where it is labelled under several policies
image       the published file, or none
source      the data set with its commit: ``tyodd/SafeEditBench@1a2b3c4d``
origin      where the picture itself comes from, as published: UnsafeBench's Laion5B and Lexica;
            empty where nothing is published
split       test, train or another
category    as published; empty where there is none
pair        joins a picture and its edited counterpart; the id where there is no pair
policy      a ``Policy`` as JSON: its name and its text
label       safe or unsafe
rationale   why, as published; empty where nothing is published
status      "ok", or why the picture cannot be judged: the ``kind`` of an ``ImageError``, or how
            its download failed
==========  ====================================================================================

A row stays even if its picture cannot be judged; such rows are counted by status. A set of pictures
without labels has no columns policy, label and rationale.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.data.arrow import join
from sgvl.data.images import ImageError, load_image
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

RATINGS = {"Safe": SAFE, "Unsafe": UNSAFE}  # as two of the published sets spell them
LABEL = ClassLabel(names=["safe", "unsafe"])  # the positive class is unsafe
OK = "ok"
TEXT = Value("string")
FEATURES = Features(
    {"id": TEXT, "image": Image(decode=False), "source": TEXT, "origin": TEXT, "split": TEXT}
    | {"category": TEXT, "pair": TEXT, "policy": TEXT, "label": LABEL, "rationale": TEXT}
    | {"status": TEXT}
)


def make_rows(
    images: Dataset,
    where: str,
    *,
    ids: Sequence[str],
    source: str,
    split: str | Sequence[str],
    policies: Sequence[Policy] | None = None,
    labels: Sequence[str] | None = None,
    rationales: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    origins: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> Dataset:
    """Combine pictures and their labels, one entry per row, in the record shape.

    Parameters
    ----------
    images : with a column ``image`` of files, which are referred to and not copied
    where : data set and split, which open each error message
    policies, labels : of each row; pictures without labels have neither
    status : by default every picture is decoded once to find it
    places : which of ``images`` each row has; by default each its own

    Raises
    ------
    InputError
        For no rows, for two pictures of one id, and for a picture that is labelled twice under one
        policy.
    """
    if not len(ids):
        raise InputError(f"{where}: 0 rows; there is nothing to judge")
    rows, about = len(ids), {}
    if policies is not None:
        about = _about(where, ids, policies, labels, rationales or [""] * rows)
    images = images.select_columns("image").cast_column("image", Image(decode=False))
    if status is None:
        of_file = [picture_status(row["image"]) for row in images]
        status = of_file if places is None else [of_file[place] for place in places]
    sound = [row for row in range(rows) if status[row] == OK]
    raise_any(_shared_ids(images, where, ids, places or range(rows), sound))
    columns = {
        "id": ids,
        "source": [source] * rows,
        "origin": origins or [""] * rows,
        "split": [split] * rows if isinstance(split, str) else split,
        "category": categories or [""] * rows,
        "pair": pairs or ids,
        **about,
        "status": status,
    }
    own = Features({name: FEATURES[name] for name in columns})
    joined = join(images, {name: list(values) for name, values in columns.items()}, places, own)
    kept = [name for name in FEATURES if name in joined.column_names]
    return joined.select_columns(kept).cast_column("image", Image())


def _shared_ids(images: Dataset, where: str, ids, places, rows) -> Iterator[str]:
    """Yield the ids that two different pictures have, among these ``rows``."""
    first: dict[str, int] = {}
    for row in rows:
        earlier = first.setdefault(ids[row], row)
        one, other = places[earlier], places[row]
        if one != other and images[one]["image"]["bytes"] != images[other]["image"]["bytes"]:
            yield f"{where}, rows {earlier} and {row}: two pictures share the id {ids[row]}"


def _about(where: str, ids, policies, labels, rationales) -> dict[str, list]:
    """Return the columns about labels; raise InputError for a picture that is labelled twice."""
    names = [policy.name for policy in policies]
    twice = [key for key, n in Counter(zip(ids, names, strict=True)).items() if n > 1]
    raise_any(f"{where}: {id_} is labelled twice under {name}; keep one row" for id_, name in twice)
    return {
        "policy": [policy.model_dump_json(by_alias=True) for policy in policies],
        "label": [LABEL.str2int(label) for label in labels],
        "rationale": rationales,
    }


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """Join splits in the record shape, one after another."""
    return concatenate_datasets(parts).select_columns(list(FEATURES))


def picture_status(file: dict | None) -> str:
    """Decode a picture under the limits of ``sgvl.data.images``; return "ok" or the error kind."""
    try:
        load_image(file["bytes"] if file else b"")
    except ImageError as error:
        return error.kind
    return OK


def need_columns(columns: Sequence[str], needed: Sequence[str], where: str) -> None:
    """Raise InputError for the needed columns that are missing."""
    raise_any(
        f"{where}: column {name!r} is missing; {nearest(name, columns)}"
        for name in needed
        if name not in columns
    )


def as_words(rows: Dataset, column: str) -> list[str | None]:
    """Return a column as text, whether it was published as text or as a ClassLabel's numbers."""
    feature, values = rows.features[column], rows[column]
    if isinstance(feature, ClassLabel):
        return [None if value is None else feature.int2str(value) for value in values]
    return list(values)


def translate(rows: Dataset, column: str, known: Mapping[str, str], where: str) -> list[str]:
    """Map a column's published spellings to ours; raise InputError that names each other one."""
    values = as_words(rows, column)
    raise_any(
        f"{where}, row {row}: {column} {value!r}; allowed: {', '.join(known)}"
        for row, value in enumerate(values)
        if value not in known
    )
    return [known[value] for value in values]


def warn_of_counts(where: str, counts: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Warn where a data set no longer has its published size: its scores do not compare then."""
    for name, n in expected.items():
        if counts.get(name, 0) != n:
            warnings.warn(f"{where}: {name}: {counts.get(name, 0)}, expected {n}", stacklevel=3)
