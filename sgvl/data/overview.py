"""What real data holds: one table of all rows, and pictures that two splits share."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL.Image import Image

from sgvl.data import store
from sgvl.data.images import load_image, thumbnail
from sgvl.data.real_rows import OK

COLUMNS = ["set", "id", "split", "category", "pair", "policy", "label", "status"]
SIDE = 96  # pixels of a picture in the gallery
NEAR = 6  # of the 63 bits of two hashes: a copy that was resized or compressed differs by fewer


def rows(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """All rows of several sets, without their pictures; policies by name, labels in words."""
    frames = [
        dataset.select_columns(["id", "split", "category", "pair", "status"])
        .to_pandas()
        .assign(
            set=name,
            policy=[policy.name for policy in store.policies(dataset)],
            label=store.labels(dataset),
        )
        for name, dataset in sets.items()
    ]
    return pd.concat([pd.DataFrame(columns=COLUMNS), *frames], ignore_index=True)[COLUMNS]


def summary(told: pd.DataFrame) -> pd.DataFrame:
    """Of each set: rows, different pictures, pairs and policies; unsafe and usable rows, percent.

    ``told`` is what ``rows`` returned.
    """
    return told.groupby("set", sort=False).agg(
        rows=("id", "size"),
        pictures=("id", "nunique"),
        pairs=("pair", "nunique"),
        policies=("policy", "nunique"),
        unsafe=("label", lambda labels: round(100 * float((labels == "unsafe").mean()), 1)),
        usable=("status", lambda status: round(100 * float((status == OK).mean()), 1)),
    )


def questions(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Of each set of questions: how many, in how many categories, open ones, and pictures."""
    told = {
        name: {
            "questions": len(rows),
            "categories": len(set(rows["category"])),
            "open": sum(not options for options in rows["options"]),
            "pictures": sum(map(len, rows["images"])),
        }
        for name, rows in sets.items()
    }
    return pd.DataFrame(told).T


def leaks(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Training pictures that stand, perhaps resized or compressed anew, outside training as well.

    Every picture of a split "train" is compared with every one of another split, within a set and
    across sets. Columns: set, id, other_set, other_id, and distance, in bits of 63.
    """
    train, other = [], []
    for name, dataset in sets.items():
        for row, image in _pictures(dataset):
            side = train if row["split"] == "train" else other
            side.append((name, row["id"], perceptual_hash(image)))
    found = []
    rest = np.array([bits for _, _, bits in other]).reshape(-1, 63)
    for name, id_, bits in train:
        distances = (rest != bits).sum(axis=1)
        for k in np.flatnonzero(distances <= NEAR):
            found.append((name, id_, *other[k][:2], int(distances[k])))
    columns = ["set", "id", "other_set", "other_id", "distance"]
    return pd.DataFrame(found, columns=columns).sort_values("distance", ignore_index=True)


def perceptual_hash(image: Image) -> np.ndarray:
    """63 bits that outlast resizing and compression: which low frequencies are above the median.

    The cosine transform of the picture at 32 x 32 grey pixels; its 8 x 8 lowest frequencies, less
    the first, which is the brightness.
    """
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((32, 32)), float)
    low = dctn(grey)[:8, :8].ravel()[1:]
    return low > np.median(low)


def gallery(sets: Mapping[str, Dataset], blur: bool = True, each: int = 6) -> list[dict]:
    """The first pictures of each set, small, and blurred unless the reader asks to see them."""
    return [
        {"image": thumbnail(image, SIDE, blur), "title": f"{name}: {row['id']}"}
        for name, dataset in sets.items()
        for row, image in islice(_pictures(dataset), each)
    ]


def _pictures(dataset: Dataset) -> Iterator[tuple[dict, Image]]:
    """The usable pictures of a set, each once and one at a time, with a row of theirs."""
    seen = set()
    for row in store.without_decoding(store.usable(dataset)):
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row, load_image(row["image"]["bytes"], name=row["id"])
