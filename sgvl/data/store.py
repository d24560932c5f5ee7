"""Data sets on disk: one Parquet file each, and a manifest of digests that every reader checks."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from datasets import Dataset, Image, disable_progress_bars

from sgvl import __version__
from sgvl.common.errors import InputError, need_known
from sgvl.data import Sample
from sgvl.data.images import load_image
from sgvl.data.real_rows import OK
from sgvl.policies.policy import Policy

MANIFEST = "manifest.json"

disable_progress_bars()  # a bar a file says nothing, and stays in the executed notebook


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(datasets: Mapping[str, Dataset], folder: Path, seed: int) -> dict:
    """Write each data set to ``folder/name.parquet``, then the manifest, last. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for name, dataset in datasets.items():
        path = folder / f"{name}.parquet"
        dataset.to_parquet(path)
        sets[name] = {"rows": len(dataset), "columns": dataset.column_names, "sha256": sha256(path)}
    manifest = {"sgvl": __version__, "seed": seed, "sets": sets}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def read(name: str, folder: Path) -> Dataset:
    """A saved data set, after its file has been compared with the manifest.

    Raises ``InputError`` when the file is missing, unknown to the manifest, or not the one written.
    """
    path = folder / f"{name}.parquet"
    writer = "02_recaption" if name in ("captions", "replay") else "01_data"
    try:
        sets = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sets"]
    except (OSError, ValueError, KeyError):
        broken = f"{folder / MANIFEST} is missing or broken; run notebook {writer} first"
        raise InputError(broken) from None
    need_known(f"{folder}, written by {writer}: no data set", name, sets)
    if not path.is_file() or sha256(path) != sets[name]["sha256"]:
        raise InputError(f"{path} is not the file of its manifest; write it again")
    # A cache by digest: the library's own knows a file by path and time, and could be stale.
    cache = folder / ".cache" / sets[name]["sha256"][:16]
    return Dataset.from_parquet(str(path), cache_dir=str(cache))


def even_indices(rows: int, wanted: int, group: int = 1) -> list[int]:
    """Indices of ``wanted`` rows in whole groups, evenly spread over a set; 0 wants all of them.

    >>> even_indices(12, 4, group=2)
    [0, 1, 6, 7]
    """
    groups, take = rows // group, (wanted or rows) // group
    if not 0 < take <= groups:
        raise InputError(
            f"{wanted} rows wanted of a set of {rows}, in groups of {group}; "
            "ask for one group at least, for no more than there are, or for 0, which is all"
        )
    first = [k * groups // take * group for k in range(take)]
    return [start + i for start in first for i in range(group)]


def take_evenly(dataset: Dataset, wanted: int, group: int = 1) -> Dataset:
    """At most ``wanted`` rows in whole groups, evenly spread over the set; 0 wants all of them."""
    return dataset.select(even_indices(len(dataset), min(wanted, len(dataset)), group))


def usable(dataset: Dataset) -> Dataset:
    """The rows whose picture can be judged, which are all rows of a drawn set."""
    if "status" not in dataset.column_names:
        return dataset
    return dataset.select([i for i, status in enumerate(dataset["status"]) if status == OK])


def left_out(dataset: Dataset) -> pd.DataFrame:
    """The pictures that cannot be judged, each once: id, and status, which is the reason."""
    if "status" not in dataset.column_names:
        return pd.DataFrame(columns=["id", "status"])
    rows = dataset.select_columns(["id", "status"]).to_pandas()
    return rows[rows["status"] != OK].drop_duplicates("id", ignore_index=True)


def some_pairs(dataset: Dataset, wanted: int) -> Dataset:
    """The rows of ``wanted`` pairs, evenly spread over the set; 0 wants all of them."""
    pairs = list(dict.fromkeys(dataset["pair"]))
    chosen = {pairs[k] for k in even_indices(len(pairs), wanted)}
    return dataset.select([i for i, pair in enumerate(dataset["pair"]) if pair in chosen])


def samples(dataset: Dataset) -> list[Sample]:
    """The pictures of a data set as judges take them, each once; drawn scenes bring their tags.

    Pictures are decoded under the limits of ``sgvl.data.images``; a broken one raises
    ``ImageError``.
    """
    known = [name for name in ("id", "image", "tags") if name in dataset.column_names]
    files = {row["id"]: row for row in without_decoding(dataset.select_columns(known))}
    return [
        Sample(id_, load_image(row["image"]["bytes"], name=id_), frozenset(row.get("tags", ())))
        for id_, row in files.items()
    ]


def without_decoding(dataset: Dataset) -> Dataset:
    """The rows with their pictures as files in memory: to look at the rest, or to pass them on."""
    return dataset.cast_column("image", Image(decode=False))


def from_rows(rows: Iterable[dict]) -> Dataset:
    """Rows made from those of another data set, with its pictures as they came."""
    return Dataset.from_list(list(rows)).cast_column("image", Image())


def policy_cases(dataset: Dataset) -> list[tuple[Sample, Policy]]:
    """Pictures with the policy of their own row, for sets in which every row has one."""
    shown = {sample.id: sample for sample in samples(dataset)}
    return [(shown[id_], p) for id_, p in zip(dataset["id"], policies(dataset), strict=True)]


def policies(dataset: Dataset) -> list[Policy]:
    """The policy that each row brings."""
    return [Policy.model_validate_json(text, strict=False) for text in dataset["policy"]]


def labels(dataset: Dataset, column: str = "label") -> list[str]:
    """A column of labels in words, safe or unsafe."""
    return [dataset.features[column].int2str(label) for label in dataset[column]]
