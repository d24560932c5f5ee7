"""Pictures without labels, to be captioned: a folder of your own, or a data set on the hub."""

from datasets import Dataset, Image, concatenate_datasets

from sgvl.common.errors import InputError
from sgvl.data import arrow, real_rows
from sgvl.data.sources import hub

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def load(
    path: str = "", repo: str = "", revision: str = "main", files: str = "*", split: str = "train"
) -> Dataset:
    """Load pictures in the record shape, without policies and labels.

    Parameters
    ----------
    path : a folder, relative to the current directory or the checkout; or else
    repo : a data set on the hub
    revision : branch, tag or commit
    files : pattern of the files to take, as in ``fnmatch``. If Parquet files are among them, the
        pictures are their column ``image``, and other files are passed over.
    split : of the pictures; those of "train" are searched for in all other splits

    Raises
    ------
    InputError
        Unless one of ``path`` and ``repo`` is given, and as ``hub.files_of`` does.
    """
    if bool(path) == bool(repo):
        raise InputError("pictures: give either a path or a repo")
    source, pictures = hub.files_of(repo, revision, files, path)
    if tables := [name for name in pictures if name.endswith(".parquet")]:
        images, ids = _tables({name: pictures[name] for name in tables}, source)
    else:
        ids = [name for name in pictures if name.lower().endswith(SUFFIXES)]
        images = arrow.write_files(pictures[name] for name in ids)
    return real_rows.make_rows(images, source, ids=ids, source=source, split=split)


def _tables(files, source: str) -> tuple[Dataset, list[str]]:
    parts, ids = [], []
    for name, file in files.items():
        rows = hub.read_parquet(file, f"{source}, {name}", ["image"])
        parts.append(rows.select_columns("image").cast_column("image", Image(decode=False)))
        ids += [f"{name.removesuffix('.parquet')}-{row:05d}" for row in range(len(rows))]
    return concatenate_datasets(parts), ids
