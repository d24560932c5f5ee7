"""Tables and pictures about data sets, for notebook 01."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL.Image import Image

from sgvl.data import store
from sgvl.data.images import image_digest, load_image, thumbnail
from sgvl.data.real_rows import OK

COLUMNS = ["set", "id", "split", "category", "pair", "policy", "label", "status"]
SIDE = 96  # pixels of a picture in the gallery
EACH = 6  # pictures of each set in the gallery
NEAR = 6  # bits of 63: a resized or compressed copy differs by no more


def rows(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Return one table of all rows of several sets, without pictures; policies by name."""
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


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Count rows, pictures, pairs and policies of each set in a table from ``rows``.

    ``unsafe`` and ``usable`` are percentages of its rows.
    """
    return table.groupby("set", sort=False).agg(
        rows=("id", "size"),
        pictures=("id", "nunique"),
        pairs=("pair", "nunique"),
        policies=("policy", "nunique"),
        unsafe=("label", lambda labels: round(100 * float((labels == "unsafe").mean()), 1)),
        usable=("status", lambda status: round(100 * float((status == OK).mean()), 1)),
    )


def count_questions(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Count questions, categories, open questions and pictures of each set of questions."""
    counts = {
        name: {
            "questions": len(rows),
            "categories": len(set(rows["category"])),
            "open": sum(not options for options in rows["options"]),
            "pictures": sum(map(len, rows["images"])),
        }
        for name, rows in sets.items()
    }
    return pd.DataFrame(counts).T


def tables(
    pictures: Mapping[str, Dataset], questions: Mapping[str, Dataset]
) -> dict[str, pd.DataFrame]:
    """Return the tables about real data by their captions; none for what is not there."""
    table = rows(pictures)
    by_caption = {
        "Sets; unsafe and usable rows in percent": summary(table),
        "Rows by category and status": pd.crosstab(
            [table["set"], table["category"]], table["status"]
        ),
        "Rows by policy and label": pd.crosstab([table["set"], table["policy"]], table["label"]),
        "Training pictures that are also in another split": leaks(pictures),
        "Equal pictures with two labels under one policy": conflicts(pictures),
        "Questions of general ability": count_questions(questions),
    }
    return {caption: table for caption, table in by_caption.items() if len(table)}


def leaks(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Find training pictures that are also in another split, even resized or compressed again.

    Every picture of a split "train" is compared with every picture of other splits, within a set
    and across sets. Columns: set, id, other_set, other_id, and distance, in bits of 63.
    """
    train, other = [], []
    for name, dataset in sets.items():
        for row, image in _pictures(dataset):
            side = train if row["split"] == "train" else other
            side.append((name, row["id"], perceptual_hash(image)))
    pairs = []
    rest = np.array([bits for _, _, bits in other]).reshape(-1, 63)
    for name, id_, bits in train:
        distances = (rest != bits).sum(axis=1)
        for k in np.flatnonzero(distances <= NEAR):
            pairs.append((name, id_, *other[k][:2], int(distances[k])))
    columns = ["set", "id", "other_set", "other_id", "distance"]
    return pd.DataFrame(pairs, columns=columns).sort_values("distance", ignore_index=True)


def conflicts(sets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Find pictures of equal pixels that are safe in one row and unsafe in another of one policy.

    One of the labels is wrong. Columns: set, id, policy, label.
    """
    frames = [pd.DataFrame(columns=["set", "id", "policy", "label", "pixels", "text"])]
    for name, dataset in sets.items():
        pixels = {row["id"]: image_digest(image) for row, image in _pictures(dataset)}
        table = rows({name: dataset})[["set", "id", "policy", "label"]]
        table = table.assign(pixels=table["id"].map(pixels), text=list(dataset["policy"]))
        frames.append(table.dropna(subset="pixels"))
    table = pd.concat(frames)
    labels = table.groupby(["pixels", "text"])["label"].transform("nunique")
    columns = ["set", "id", "policy", "label"]
    return table[labels > 1].sort_values(["pixels", "text"], ignore_index=True)[columns]


def perceptual_hash(image: Image) -> np.ndarray:
    """Hash a picture to 63 bits that survive resizing and compression.

    They say which of the lowest 8 x 8 frequencies of its cosine transform, at 32 x 32 grey pixels,
    are above their median. The first frequency, which is the brightness, is left out.
    """
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((32, 32)), float)
    low = dctn(grey)[:8, :8].ravel()[1:]
    return low > np.median(low)


def pair_views(bench: Dataset, indices: Iterable[int]) -> list[dict]:
    """Return pairs as ``figures.show_pairs`` takes them; ``indices`` are of the originals."""
    return [
        {
            "unsafe": bench[i]["image"],
            "safe": bench[i + 1]["image"],
            "box": bench[i]["box"],
            "title": f"{bench[i]['category']}: {bench[i]['edit']}",
        }
        for i in indices
    ]


def gallery(sets: Mapping[str, Dataset], blur: bool) -> list[dict]:
    """Return the first pictures of each set, small, as ``figures.show_gallery`` takes them."""
    return [
        {"image": thumbnail(image, SIDE, blur), "title": f"{name}: {row['id']}"}
        for name, dataset in sets.items()
        for row, image in islice(_pictures(dataset), EACH)
    ]


def _pictures(dataset: Dataset) -> Iterator[tuple[dict, Image]]:
    """Yield the usable pictures of a set, each once, with one of its rows."""
    seen = set()
    for row in store.without_decoding(store.usable(dataset)):
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row, load_image(row["image"]["bytes"], name=row["id"])
