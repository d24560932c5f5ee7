"""Pictures of your own: a folder, a file of labels, and the policies they were labelled under.

image,label                          {"image": "a.jpg", "label": "safe", "policy": "house"}
a.jpg,safe                           {"image": "sub/b.png", "label": "unsafe", "policy": "law"}
sub/b.png,unsafe
"""

import codecs
import csv
import difflib
import io
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from datasets import Dataset

from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.common.paths import user_path
from sgvl.data.arrow import write_files
from sgvl.data.images import ImageError, file_inside
from sgvl.data.real_rows import make_rows
from sgvl.data.sources.label_studio import path_of
from sgvl.data.sources.label_studio import rows as tasks_as_rows
from sgvl.policies.policy import Policy, load_all
from sgvl.text.verdict import SAFE, UNSAFE

NEEDED = ("image", "label")
COLUMNS = (*NEEDED, "id", "policy", "pair", "category", "split")
SEPARATORS = ",;\t|"
PICTURE = "picture"  # stands for image, as in the tables of ``sgvl.judge``


def load(path: str, labels: str, policies: Sequence[str]) -> Dataset:
    """Load the pictures that a file of labels names, in the record shape.

    A picture that exists and cannot be decoded keeps its row, with the reason as its status.

    Parameters
    ----------
    path : folder of the pictures; relative to the current directory or the checkout, as ``labels``
    labels : CSV with a header (cells between commas, semicolons, tabs or bars), JSON Lines, a JSON
        array of such lines, or Label Studio's JSON export, as ``label_studio`` describes; UTF-8.
        ``image`` or ``picture`` is a path within the folder, ``label`` is safe or unsafe. Optional:
        ``policy`` (name of one of ``policies``; needed if there are several), ``id`` (the path),
        ``pair`` (the id), ``category``, ``split`` (test). Capitals in names and labels do not
        count, an empty cell or null is as none, and other columns are passed over with a warning.
    policies : names or files of policies; a policy without rules will do

    Raises
    ------
    InputError
        That names the file, the lines and the allowed values, all problems at once: for a missing,
        misspelt or repeated column, a label of another spelling, a missing picture, one that is
        labelled twice under one policy, and two of one id.
    """
    file, root = user_path(labels), user_path(path)
    rules = {policy.name: policy for policy in load_all(policies)} if policies else {}
    problems = [] if root.is_dir() else [f"{root}: no such folder"]
    problems += [] if rules else [f"{file}: name the policies of the labels under `policies`"]
    raise_any(problems)
    rows, files = labelled(file, root, rules)
    places = {same: place for place, same in enumerate(files)}
    return make_rows(
        write_files(files.values()),
        str(file),
        ids=[row["id"] for row in rows],
        source=root.name,
        split=[row["split"] for row in rows],
        policies=[rules[row["policy"]] for row in rows],
        labels=[row["label"] for row in rows],
        categories=[row["category"] for row in rows],
        pairs=[row.get("pair", row["id"]) for row in rows],
        places=[places[row["file"]] for row in rows],
    )


def labelled(
    file: Path, root: Path, rules: Mapping[str, Policy]
) -> tuple[list[dict], dict[tuple, Path]]:
    """Read a file of labels; return its rows and the files of their pictures.

    Parameters
    ----------
    file, root : the labels, and the folder of the pictures
    rules : policies that a label can be about, by name

    Returns
    -------
    tuple
        Rows, with the columns of the file, ``path`` (of the picture within ``root``) and ``file``
        (a key of the second part). Raises InputError as ``load`` does.
    """
    problems: list[str] = []
    only = next(iter(rules)) if len(rules) == 1 else None
    rows = []
    files: dict[tuple, Path] = {}  # each once
    by_id: dict[str, tuple] = {}  # the file of each id, its path and line
    judged: dict[tuple, int | str] = {}  # the line of each picture and policy
    for line, cells in _lines(file, problems):
        row = {"policy": only, "category": "", "split": "test"} | cells
        if isinstance(row.get("label"), str):
            row["label"] = row["label"].strip().lower()
        wrong = list(_wrong(row, rules))
        problems += [f"{file}, {_at(line)}: {problem}" for problem in wrong]
        if not isinstance(row.get("image"), str):
            continue
        image = path_of(row["image"].replace("\\", "/"), root)
        try:
            picture = file_inside(image, root)
        except ImageError as error:
            problems.append(f"{file}, {_at(line)}: {error}")
            continue
        if wrong:
            continue
        inside = str(PurePosixPath(image))
        row = {"id": inside, "path": inside} | row
        stat = picture.stat()
        same = (stat.st_dev, stat.st_ino)  # one file under any of its paths
        other, other_image, earlier = by_id.setdefault(row["id"], (same, image, line))
        if other != same:
            where = f"{file}, {_at(earlier, line)}"
            problems.append(f"{where}: {other_image} and {image} share the id {row['id']}")
        elif (earlier := judged.setdefault((same, row["policy"]), line)) != line:
            where = f"{file}, {_at(earlier, line)}"
            problems.append(f"{where}: {image} is labelled twice under {row['policy']}; keep one")
        files.setdefault(same, picture)
        rows.append(row | {"split": row["split"].strip().lower(), "file": same})
    raise_any(problems)
    return rows, files


def _at(*places: int | str) -> str:
    """Return the words for lines by number, or other places."""
    numbers = all(isinstance(place, int) for place in places)
    plural = "s" if len(places) > 1 else ""
    return f"line{plural} " * numbers + " and ".join(map(str, places))


def _wrong(row: dict, rules: dict) -> Iterator[str]:
    """Yield the problems of one row."""
    for name, value in row.items():
        if value is not None and not isinstance(value, str):
            yield f"{name} is {value!r}; write it as text"
    if "image" not in row:
        yield "image is empty; write the picture's path within the folder"
    if "label" not in row:
        yield f"label is empty; write {SAFE} or {UNSAFE}, or leave the row out"
    if row["policy"] is None:
        yield f"name the policy of this label in a column `policy`: {' or '.join(rules)}"
    allowed = {"label": (SAFE, UNSAFE), "policy": (*rules, None)}
    for name, values in allowed.items():
        if name in row and row[name] not in values:
            yield f"{name} {row[name]!r}; allowed: {', '.join(filter(None, values))}"
    split = str(row["split"]).strip().lower()
    if split != "train" and difflib.get_close_matches(split, ["train"]):
        # Pictures of "train" are searched for in all other splits.
        yield f"split {row['split']!r}; did you mean train?"


def _lines(file: Path, problems: list[str]) -> Iterator[tuple[int | str, dict]]:
    """Yield the place and the cells of each row with its columns; add what is wrong to problems."""
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        allowed = " or ".join(READERS)
        raise InputError(f"{file}: labels are a file that ends in {allowed}; save a sheet as .csv")
    text, passed_over, checked = _text(file), {}, {}
    for line, names, values in reader(text, file, problems):
        found = tuple(str(name).strip().lower() for name in names)
        columns = found
        if "image" not in found:
            columns = tuple("image" if name == PICTURE else name for name in found)
        if columns not in checked:
            checked[columns] = list(_wrong_columns(columns, found))
            where = _header(text)[0] if reader is _csv else line
            problems += [f"{file}, {_at(where)}: {problem}" for problem in checked[columns]]
            passed_over |= dict.fromkeys(c for c in columns if c and c not in COLUMNS)
        if not checked[columns]:
            cells = zip(columns, values, strict=True)
            yield line, {c: v for c, v in cells if c in COLUMNS and v is not None and v != ""}
    if passed_over and not problems:
        warnings.warn(f"{file}: columns passed over: {', '.join(passed_over)}", stacklevel=3)


def _wrong_columns(columns: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """Yield the problems of the names of a row's columns, which the file calls ``found``."""
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        none = " or ".join(map(repr, missing))
        names = ", ".join(filter(None, found)) or "none"
        yield f"no column {none}; columns found: {names}; needed: {', '.join(NEEDED)}"
    absent = [name for name in COLUMNS if name not in columns and name not in missing]
    for name, n in Counter(columns).items():
        if n > 1 and name:
            yield f"column {name!r} stands there {n} times; keep one"
        elif name not in COLUMNS and difflib.get_close_matches(name, absent):
            yield f"no such column {name!r}; {nearest(name, absent)}"


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}, line {line}: not UTF-8 text; save it as UTF-8") from None


def _csv(text: str, file: Path, problems: list[str]) -> Iterator[tuple[int, list, list]]:
    """Yield line, names and cells of the rows that are not empty."""
    _, header = _header(text)
    try:
        separator = max(
            SEPARATORS, key=lambda sign: (_known_names(header, sign), header.count(sign))
        )
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = (row for row in reader if any(cell.strip() for cell in row))
        names = next(rows, [])
        for row in rows:
            if any(row[len(names) :]) or len(row) < len(names):
                problems.append(
                    f"{file}, line {reader.line_num}: expected {len(names)} cells, as the header "
                    f"has; quote cells that hold {separator!r}"
                )
            else:
                yield reader.line_num, names, row[: len(names)]
    except csv.Error as error:
        problems.append(f"{file}, line {reader.line_num}: {error}")


def _header(text: str) -> tuple[int, str]:
    """Return the first line that is not empty, and its number."""
    lines = enumerate(text.splitlines(), start=1)
    return next(((number, line) for number, line in lines if line.strip()), (1, ""))


def _known_names(header: str, separator: str) -> int:
    names = header.split(separator)
    return sum(name.strip(' "').lower() in (*COLUMNS, PICTURE) for name in names)


def _jsonl(text: str, file: Path, problems: list[str]) -> Iterator[tuple[int, list, list]]:
    """Yield line, keys and values of the objects, keys as often as they stand there."""
    for number, line in enumerate(io.StringIO(text), start=1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=tuple)
            json.dumps(pairs, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            problems.append(
                f"{where}: half a character (\\ud800 to \\udfff without its other half)"
            )
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: not JSON: {error}")
        else:
            if isinstance(pairs, tuple):
                yield number, [name for name, _ in pairs], [value for _, value in pairs]
            else:
                problems.append(f'{where}: expected {{"image": .., "label": ..}}')


def _json(text: str, file: Path, problems: list[str]) -> Iterator[tuple[str, list, list]]:
    """Yield place, names and values of the rows of an array of tasks or of plain objects."""
    try:
        tasks = json.loads(text, object_pairs_hook=_once)
        json.dumps(tasks, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    for place, columns in tasks_as_rows(
        tasks if isinstance(tasks, list) else [tasks], file, problems
    ):
        yield place, list(columns), list(columns.values())


def _once(pairs: list[tuple]) -> dict:
    if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        raise ValueError(f"{twice[0]!r} is set twice in one object")
    return dict(pairs)


READERS = {".csv": _csv, ".json": _json, ".jsonl": _jsonl, ".tsv": _csv}
