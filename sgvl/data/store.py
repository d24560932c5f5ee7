"""Data sets on disk: one Parquet file each, and a manifest of digests that ``read`` checks."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pandas as pd
from datasets import Dataset, Image, disable_progress_bars

from sgvl import __version__
from sgvl.common.errors import InputError, Unavailable, need_known
from sgvl.common.files import replaced, sha256, write
from sgvl.common.kept import Kept
from sgvl.common.paths import user_path
from sgvl.data import Sample, arrow
from sgvl.data.images import load_image
from sgvl.data.real_rows import OK
from sgvl.policies.policy import Policy

MANIFEST = "manifest.json"
# Decoded pictures by their files: the next judge of this process is asked about the same ones.
OPENED = Kept(2**28, lambda image: 4 * image.width * image.height)  # bytes; five of 12 megapixels

disable_progress_bars()  # one bar per file would stay in the executed notebook


def save(
    datasets: Mapping[str, Dataset],
    folder: Path,
    seed: int | None = None,
    absent: Mapping[str, str] | None = None,
) -> dict:
    """Write each data set to ``folder/name.parquet``, then the manifest, which is returned.

    ``seed`` is the one that drew them; None where nothing was drawn. ``absent`` gives the reason
    for each set that could not be had; ``read`` repeats it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for name, dataset in datasets.items():
        path = folder / f"{name}.parquet"
        with replaced(path) as part:
            # Real pictures come under several policies.
            (arrow.fold(dataset) if "status" in dataset.column_names else dataset).to_parquet(part)
        sets[name] = {"rows": len(dataset), "columns": dataset.column_names, "sha256": sha256(path)}
    manifest = {"sgvl": __version__, "seed": seed, "sets": sets}
    manifest |= {"absent": dict(absent)} if absent else {}
    write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def read(name: str, folder: Path) -> Dataset:
    """Load a saved data set after checking its digest against the manifest.

    A name with a folder, as ``runs/nano/safeedit/train/safeedit_train``, is that of a set there.

    Raises Unavailable for a set that could not be had, and InputError if the file is missing, not
    in the manifest, or not the one that was written.
    """
    if "/" in name:
        folder, name = user_path(PurePosixPath(name).parent), PurePosixPath(name).name
    path = folder / f"{name}.parquet"
    writer = "02_recaption" if name == "captions" else "01_data"
    writer = "01b_safeedit" if "safeedit" in folder.parts else writer
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests = {saved: str(facts["sha256"]) for saved, facts in manifest["sets"].items()}
        absent = dict(manifest.get("absent", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{folder / MANIFEST} is missing or broken; run notebook {writer} first"
        ) from None
    if name in absent:
        raise Unavailable(f"{name} cannot be had: {absent[name]}")
    need_known(f"{folder}, written by {writer}: no data set", name, digests)
    if not path.is_file() or sha256(path) != digests[name]:
        raise InputError(f"{path} is not the file of its manifest; write it again")
    return arrow.open_parquet(path, digests[name])


def even_indices(rows: int, wanted: int, group: int = 1) -> list[int]:
    """Return indices of ``wanted`` rows, evenly spread, in whole groups; 0 stands for all rows.

    >>> even_indices(12, 4, group=2)
    [0, 1, 6, 7]
    """
    groups, take = rows // group, (wanted or rows) // group
    if not 0 < take <= groups:
        raise InputError(
            f"{wanted} rows wanted of a set of {rows}, in groups of {group}; "
            "choose at least one group, at most all of them, or 0 for all rows"
        )
    first = [k * groups // take * group for k in range(take)]
    return [start + i for start in first for i in range(group)]


def take_evenly(dataset: Dataset, wanted: int, group: int = 1) -> Dataset:
    """Select at most ``wanted`` rows, evenly spread, in whole groups; 0 stands for all rows."""
    return dataset.select(even_indices(len(dataset), min(wanted, len(dataset)), group))


def usable(dataset: Dataset) -> Dataset:
    """Select the rows whose picture can be judged: all rows of a drawn set."""
    if "status" not in dataset.column_names:
        return dataset
    return dataset.select([i for i, status in enumerate(dataset["status"]) if status == OK])


def left_out(dataset: Dataset) -> pd.DataFrame:
    """Return the pictures that cannot be judged, each once: id, and status with the reason."""
    if "status" not in dataset.column_names:
        return pd.DataFrame(columns=["id", "status"])
    rows = dataset.select_columns(["id", "status"]).to_pandas()
    return rows[rows["status"] != OK].drop_duplicates("id", ignore_index=True)


def some_pairs(dataset: Dataset, wanted: int) -> Dataset:
    """Select the rows of ``wanted`` pairs, evenly spread over the set; 0 stands for all pairs."""
    pairs = list(dict.fromkeys(dataset["pair"]))
    chosen = {pairs[k] for k in even_indices(len(pairs), wanted)}
    return dataset.select([i for i, pair in enumerate(dataset["pair"]) if pair in chosen])


def has_tags(dataset: Dataset) -> bool:
    """Return whether a set holds drawn scenes with their tags, which label them exactly."""
    return "tags" in dataset.column_names


class Lazy(Sequence):
    """A sequence of ``length`` items, each made by ``make(index)`` when it is read."""

    def __init__(self, length: int, make: Callable):
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice):
        chosen = range(self._length)[index]
        return list(map(self._make, chosen)) if isinstance(index, slice) else self._make(chosen)


def samples(dataset: Dataset) -> Sequence[Sample]:
    """Return the pictures of a data set, each once, for a judge; drawn scenes have their tags.

    A picture is decoded when it is read, so that a large set need not fit in memory. This raises
    ImageError for a picture outside the limits of ``sgvl.data.images``.
    """
    ids, sample = list(dict.fromkeys(dataset["id"])), _opener(dataset)
    return Lazy(len(ids), lambda k: sample(ids[k]))


def _opener(dataset: Dataset) -> Callable[[str], Sample]:
    """Return a function that decodes the picture of an id; it keeps the last one."""
    known = [name for name in ("id", "image", "tags") if name in dataset.column_names]
    rows = without_decoding(dataset.select_columns(known))
    places = {id_: place for place, id_ in enumerate(rows["id"])}

    @lru_cache(maxsize=1)
    def sample(id_: str) -> Sample:
        row = rows[places[id_]]
        file = row["image"]["bytes"]
        key = hashlib.sha256(file).digest()
        [image] = OPENED.of([key], [file], lambda new: [load_image(file, name=id_)])
        image = image.copy() if key in OPENED else image  # a caller may change its own
        return Sample(id_, image, frozenset(row.get("tags", ())))

    return sample


def without_decoding(dataset: Dataset) -> Dataset:
    """Return the rows with their pictures as undecoded files, to read other columns or pass on."""
    return dataset.cast_column("image", Image(decode=False))


def beside_pictures(
    dataset: Dataset, rows: Iterable[dict], places: Sequence[int] | None = None
) -> Dataset:
    """Build a data set of rows beside pictures of another one, which are not copied.

    Parameters
    ----------
    rows : of the new set, without their pictures
    places : the row of ``dataset`` whose picture each of them has; by default its own
    """
    rows = list(rows)
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return arrow.join(dataset.select_columns("image"), columns, places)


def policy_cases(
    dataset: Dataset, own: Sequence[Policy] | None = None
) -> Sequence[tuple[Sample, Policy]]:
    """Return (picture, policy) for each row: its own policy, or that of ``own``.

    Pictures are decoded when they are read.
    """
    own = policies(dataset) if own is None else own
    ids, sample = list(dataset["id"]), _opener(dataset)
    return Lazy(len(ids), lambda row: (sample(ids[row]), own[row]))


def policies(dataset: Dataset) -> list[Policy]:
    """Return the policy of each row."""
    return [Policy.model_validate_json(text, strict=False) for text in dataset["policy"]]


def labels(dataset: Dataset, column: str = "label") -> list[str]:
    """Return a column of labels as the words safe and unsafe."""
    word = dataset.features[column].int2str  # ``features`` is copied each time
    return list(map(word, dataset[column]))
