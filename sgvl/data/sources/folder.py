"""Pictures of your own: a folder, a file of labels, and the policies they were labelled under.

image,label                          {"image": "a.jpg", "label": "safe", "policy": "house"}
a.jpg,safe                           {"image": "sub/b.png", "label": "unsafe", "policy": "law"}
sub/b.png,unsafe
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset, Features, Image

from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.common.paths import user_path
from sgvl.data.images import ImageError, load_image
from sgvl.data.real_rows import OK, make_rows, need_columns
from sgvl.policies.policy import load_all
from sgvl.text.verdict import SAFE, UNSAFE

NEEDED = ("image", "label")
COLUMNS = (*NEEDED, "id", "policy", "pair", "category", "split")


def load(path: str, labels: str, policies: Sequence[str]) -> Dataset:
    """Load the pictures that a file of labels names, in the record shape.

    All pictures are in memory until they are saved. One that exists and cannot be decoded keeps
    its row, with the reason as its status.

    Parameters
    ----------
    path : folder of the pictures; relative to the current directory or the checkout, as ``labels``
    labels : CSV (with a header) or JSON Lines, UTF-8. ``image`` is a path within the folder,
        ``label`` is safe or unsafe. Optional: ``policy`` (name of one of ``policies``; needed
        if there are several), ``id`` (the path), ``pair`` (the id), ``category``, ``split``
        (test).
    policies : names or files of policies; a policy without rules will do

    Raises
    ------
    InputError
        That names the file, the line and the allowed values: for an unknown or missing column, a
        label of another spelling, a missing picture, and one labelled twice under one policy.
    """
    file, root = user_path(labels), user_path(path)
    rules = {policy.name: policy for policy in load_all(policies)} if policies else {}
    problems = [] if root.is_dir() else [f"{root}: no such folder"]
    problems += [] if rules else [f"{file}: name the policies of the labels under `policies`"]
    raise_any(problems)
    only = next(iter(rules)) if len(rules) == 1 else None
    rows, files, status = [], [], []
    for line, cells in _lines(file):
        where = f"{file}, line {line}"
        row = {name: value for name, value in cells.items() if value != ""}
        row = {"policy": only, "category": "", "split": "test"} | row
        problems += [f"{where}: {p}" for p in _wrong(row, rules)]
        status.append(OK)
        try:
            load_image(row.get("image", ""), root)
        except ImageError as error:
            status[-1] = error.kind
            problems += [f"{where}: {error}"] if error.kind in ("path", "missing") else []
        if not problems:
            files.append({"bytes": (root / row["image"]).read_bytes(), "path": None})
        rows.append({"id": row.get("image")} | row)
    raise_any(problems)
    return make_rows(
        Dataset.from_dict({"image": files}, Features({"image": Image(decode=False)})),
        str(file),
        ids=[row["id"] for row in rows],
        source=root.name,
        split=[row["split"] for row in rows],
        policies=[rules[row["policy"]] for row in rows],
        labels=[row["label"] for row in rows],
        categories=[row["category"] for row in rows],
        pairs=[row.get("pair", row["id"]) for row in rows],
        status=status,
    )


def _wrong(row: dict, rules: dict) -> Iterator[str]:
    """Yield the problems of one row."""
    for name, value in row.items():
        if value is not None and not isinstance(value, str):
            yield f"{name} is {value!r}; write it as text"
    allowed = {"label": (SAFE, UNSAFE), "policy": tuple(rules)}
    for name, values in allowed.items():
        if row.get(name) not in values:
            yield f"{name} {row.get(name)!r}; allowed: {', '.join(values)}"


def _lines(file: Path) -> Iterator[tuple[int, dict]]:
    """Yield the line numbers and cells of a CSV or JSON Lines file, after checking its columns."""
    readers = {".csv": _csv, ".jsonl": _jsonl}
    if file.suffix not in readers:
        raise InputError(f"{file}: labels are a file that ends in {' or '.join(readers)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            for line, cells in readers[file.suffix](text, file):
                need_columns(list(cells), NEEDED, f"{file}, line {line}")
                raise_any(
                    f"{file}, line {line}: no such column {name!r}; {nearest(str(name), COLUMNS)}"
                    for name in cells
                    if name not in COLUMNS
                )
                yield line, cells
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text; save it as UTF-8") from None


def _csv(text, file: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(text)
    for cells in reader:
        if None in cells or None in cells.values():
            raise InputError(
                f"{file}, line {reader.line_num}: expected {len(reader.fieldnames)} cells, as the "
                "header has; quote commas"
            )
        yield reader.line_num, cells


def _jsonl(text, file: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(text, start=1):
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file}, line {number}: not JSON: {error}") from None
        if not isinstance(cells, dict):
            raise InputError(f'{file}, line {number}: expected {{"image": .., "label": ..}}')
        yield number, cells
