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
    """Return one table of all rows of several sets, without pictures; policies by name.

    Policy and label of pictures without labels are None.
    """
    frames = []
    for name, dataset in sets.items():
        frame = dataset.select_columns(["id", "split", "category", "pair", "status"]).to_pandas()
        about = {"policy": None, "label": None}
        if is_labelled(dataset):
            policies = [policy.name for policy in store.policies(dataset)]
            about = {"policy": policies, "label": store.labels(dataset)}
        frames.append(frame.assign(set=name, **about))
    return pd.concat([pd.DataFrame(columns=COLUMNS), *frames], ignore_index=True)[COLUMNS]


def is_labelled(dataset: Dataset) -> bool:
    """Return whether the rows of a set bring policies and labels of their own."""
    return {"policy", "label"} <= set(dataset.column_names)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Count rows, pictures, pairs and policies of each set in a table from ``rows``.

    ``unsafe`` is a percentage of its labelled rows, ``usable`` of all.
    """
    return table.groupby("set", sort=False).agg(
        rows=("id", "size"),
        pictures=("id", "nunique"),
        pairs=("pair", "nunique"),
        policies=("policy", "nunique"),
        unsafe=("label", lambda own: round(100 * float(own.dropna().eq("unsafe").mean()), 1)),
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
        if not is_labelled(dataset):
            continue
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


def published_pairs(bench: Dataset, count: int = 4, blur: bool = True) -> list[dict]:
    """Return some whole pairs of published pictures, small, as ``figures.show_pairs`` takes them.

    They are evenly spread; the counterpart is the picture whose id is not the name of the pair.
    """
    pairs: dict[str, dict[str, int]] = {}
    bench = store.usable(bench)
    for place, (pair, id_) in enumerate(zip(bench["pair"], bench["id"], strict=True)):
        pairs.setdefault(pair, {}).setdefault(id_, place)
    whole = [(pair, ids) for pair, ids in pairs.items() if len(ids) == 2 and pair in ids]
    views = []
    for k in store.even_indices(len(whole), min(count, len(whole))) if whole else []:
        pair, ids = whole[k]
        original, counterpart = ids.pop(pair), *ids.values()
        members = {"unsafe": original, "safe": counterpart}
        small = {name: _small(bench, place, 2 * SIDE, blur) for name, place in members.items()}
        views.append({**small, "title": pair})
    return views


def opposites(sets: Mapping[str, Dataset]) -> Dataset | None:
    """Return the first two rows that show one picture under policies of opposite labels.

    None if no set has such rows.
    """
    for dataset in sets.values():
        if not is_labelled(dataset):
            continue
        rows, labels = store.usable(dataset), store.labels(store.usable(dataset))
        files = store.without_decoding(rows)
        first: dict[tuple, int] = {}
        for place, (pair, label) in enumerate(zip(rows["pair"], labels, strict=True)):
            first.setdefault((pair, label), place)
            other = first.get((pair, "safe" if label == "unsafe" else "unsafe"))
            if other is not None and files[other]["image"] == files[place]["image"]:
                return rows.select([other, place])
    return None


def first_questions(drawn: Dataset | None, published: Mapping[str, Dataset]) -> pd.DataFrame:
    """Return one question of each task of the drawn set, and of each published set."""
    columns = ["set", "category", "question", "answer"]
    sets = {"general": drawn, **published} if drawn is not None else published
    frames = [
        rows.select_columns(columns[1:]).to_pandas().assign(set=name) for name, rows in sets.items()
    ]
    table = pd.concat([pd.DataFrame(columns=columns), *frames], ignore_index=True)[columns]
    kinds = table["category"].where(table["set"].eq("general"), "")
    return table[~table.assign(category=kinds).duplicated(["set", "category"])]


def gallery(sets: Mapping[str, Dataset], blur: bool) -> list[dict]:
    """Return the first pictures of each set, small, as ``figures.show_gallery`` takes them."""
    return [
        {"image": thumbnail(image, SIDE, blur), "title": f"{name}: {row['id']}"}
        for name, dataset in sets.items()
        for row, image in islice(_pictures(dataset), EACH)
    ]


def _small(dataset: Dataset, place: int, side: int, blur: bool) -> Image:
    row = store.without_decoding(dataset.select([place]))[0]
    return thumbnail(load_image(row["image"]["bytes"], name=row["id"]), side, blur)


def _pictures(dataset: Dataset) -> Iterator[tuple[dict, Image]]:
    """Yield the usable pictures of a set, each once, with one of its rows."""
    seen = set()
    for row in store.without_decoding(store.usable(dataset)):
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row, load_image(row["image"]["bytes"], name=row["id"])
