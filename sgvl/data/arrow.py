"""Rows with pictures in Arrow files, of which the system maps into memory what is being read.

A set of pictures can be larger than memory, and one Arrow array holds 2 GiB at most. So pictures
are written one after another, and rows that share a picture refer to it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features, Image
from datasets.arrow_writer import ArrowWriter
from datasets.fingerprint import get_temporary_cache_files_directory

from sgvl.common.files import replaced, sha256, writing

ROW = "row "  # before the number of the row whose picture a row has
TOGETHER = 100, 2**26  # rows and bytes of a batch in a file: the smaller of both


def write_rows(rows: Iterable[dict], features: Features) -> Dataset:
    """Write rows to a temporary file as they come, and return them as a data set.

    The file is removed when the process ends; ``TMPDIR`` says where there is room for it.
    """
    file = temporary_file(".arrow")
    with (
        writing(file),
        ArrowWriter(features=features, path=str(file), writer_batch_size=16) as writer,
    ):
        for row in rows:
            writer.write(row)
        writer.finalize()
    return Dataset.from_file(str(file))


def temporary_file(suffix: str) -> Path:
    """Return a path for a file that is removed when the process ends."""
    return Path(get_temporary_cache_files_directory()) / f"{uuid4().hex}{suffix}"


def write_files(files: Iterable[Path | None]) -> Dataset:
    """Write files to a column ``image`` as ``write_rows`` does.

    There is no image for None, and for a file that is empty or cannot be read.
    """

    def image(file: Path | None) -> dict | None:
        with suppress(OSError):
            if content := file and file.read_bytes():
                return {"bytes": content, "path": None}
        return None

    features = Features({"image": Image(decode=False)})
    return write_rows(({"image": image(file)} for file in files), features)


def join(
    pictures: Dataset,
    columns: Mapping[str, Sequence],
    places: Sequence[int] | None = None,
    features: Features | None = None,
) -> Dataset:
    """Add columns to pictures without a copy of these.

    Parameters
    ----------
    columns : values by name, one for each row of the result
    places : which of ``pictures`` each row of the result has; by default all of them, in order
    features : of ``columns``; by default inferred
    """
    added = Dataset.from_dict(dict(columns), features)
    own = pictures if places is None else pictures.select(places)
    table = own.with_format("arrow")[:]  # slices of the file
    for name in added.column_names:
        table = table.append_column(name, added.data.column(name))
    info = DatasetInfo(features=Features({**pictures.features, **added.features}))
    # The library's own fingerprint would read every byte.
    return Dataset(table, info, fingerprint=uuid4().hex)


def fold(dataset: Dataset) -> Dataset:
    """Replace each picture that an earlier row has too by a reference to that row.

    ``open_parquet`` puts the pictures back. A set without such rows is returned as it is.
    """
    files = dataset.cast_column("image", Image(decode=False))
    first: dict[bytes, int] = {}
    places = []
    for place, image in enumerate(files["image"]):
        content = image and image["bytes"]
        key = hashlib.sha256(content).digest() if content else b"%d" % place
        places.append(first.setdefault(key, place))
    if places == list(range(len(files))):
        return dataset
    rows = (
        row if of == place else row | {"image": {"bytes": b"", "path": f"{ROW}{of}"}}
        for place, (row, of) in enumerate(zip(files, places, strict=True))
    )
    return write_rows(rows, files.features).cast_column("image", Image())


def is_folded(path: Path) -> bool:
    """Check whether rows of a Parquet file refer to the pictures of others, see ``fold``."""
    with pq.ParquetFile(path) as parquet:
        if "image" not in parquet.schema_arrow.names:
            return False
        images = parquet.read(columns=["image.path"]).column("image")
    return any(str(path).startswith(ROW) for path in pc.struct_field(images, "path").to_pylist())


def _unfold(dataset: Dataset) -> Dataset:
    if "image" not in dataset.column_names:
        return dataset
    images = dataset.data.column("image")
    paths = pc.struct_field(images, "path").to_pylist()
    without = pc.equal(pc.binary_length(pc.struct_field(images, "bytes")), 0).to_pylist()
    places = [
        int(path[len(ROW) :]) if empty and path and path.startswith(ROW) else place
        for place, (path, empty) in enumerate(zip(paths, without, strict=True))
    ]
    if places == list(range(len(dataset))):
        return dataset
    texts = dataset.remove_columns("image")
    joined = join(dataset.select_columns("image"), texts.to_dict(), places, texts.features)
    return joined.select_columns(dataset.column_names)


def open_parquet(path: Path, digest: str) -> Dataset:
    """Open a Parquet file of this digest through its copy in Arrow's format, in ``.cache``.

    The copy is compared with the digest that was noted when it was written; one that is not there,
    or was changed or cut since, is written again.
    """
    copy = path.parent / ".cache" / f"{path.stem}.arrow"
    note = copy.with_suffix(".json")
    if not copy.is_file() or _read(note) != {"parquet": digest, "arrow": sha256(copy)}:
        copy.parent.mkdir(exist_ok=True)
        # Several workers may write it: each a file of its own.
        with replaced(copy, str(os.getpid())) as fresh:
            _convert(path, fresh)
            arrow = sha256(fresh)
        with replaced(note, str(os.getpid())) as noted:
            noted.write_text(json.dumps({"parquet": digest, "arrow": arrow}), encoding="utf-8")
    return _unfold(Dataset.from_file(str(copy)))


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _convert(path: Path, copy: Path) -> None:
    with pq.ParquetFile(path) as parquet:
        rows, most = TOGETHER
        own = path.stat().st_size // max(1, parquet.metadata.num_rows)  # bytes of a row
        at_once = max(1, min(rows, most // max(1, own)))
        with (
            pa.OSFile(str(copy), "wb") as file,
            pa.ipc.new_stream(file, parquet.schema_arrow) as to,
        ):
            # One group of rows at a time: an iterator over all of them keeps what it has read.
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(at_once, [group]):
                    to.write_batch(batch)
