"""Four benchmarks of general ability, questions and answers: MMMU, RealWorldQA, BLINK, MMT-Bench.

=============  =================================================================================
column         content
=============  =================================================================================
id, source     as in ``sgvl.data.real_rows``
set            mmmu, realworldqa, blink or mmt
category       subject, or subtask
images         one or more pictures, as files
question       without its options, with marks such as ``<image 1>`` where the authors put them
options        as texts, in the order of their letters; none for an open question
answer         a letter, or the words of an open question
=============  =================================================================================
"""

import ast
import base64
import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_uppercase

from datasets import Dataset, Features, Image, List, Value

from sgvl.common.errors import InputError, need_known, raise_any
from sgvl.data.arrow import write_rows
from sgvl.data.real_rows import OK, need_columns, picture_status, warn_of_counts
from sgvl.data.sources import hub

TEXT = Value("string")
FEATURES = Features(
    {"id": TEXT, "source": TEXT, "set": TEXT, "category": TEXT}
    | {"images": List(Image(decode=False)), "question": TEXT, "options": List(TEXT), "answer": TEXT}
)
REPOS = {
    "mmmu": ("MMMU/MMMU", "*validation-*.parquet"),
    "realworldqa": ("xai-org/RealworldQA", "*test-*.parquet"),
    "blink": ("BLINK-Benchmark/BLINK", "*/val-*.parquet"),
    # One of four files: those with all questions have seven gigabytes each.
    "mmt": ("OpenGVLab/MMT-Bench", "*MMT-Bench_VAL.tsv"),
}
# The paper's percentages are whole numbers of these questions.
ROWS = {"mmmu": 900, "realworldqa": 765, "blink": 1901, "mmt": 3127}
# RealWorldQA's questions contain their options, one per line, and end with how to answer.
_OPTION = re.compile(r"([A-Z])(?:[.:)]\s*|\s+)(\S.*)")  # some lack the full stop
_HOW_TO_ANSWER = re.compile(r"\s*Please answer directly with\b.*\Z", re.DOTALL)


def load(benchmark: str, revision: str = "main") -> Dataset:
    """Load the questions and answers of one benchmark: mmmu, realworldqa, blink or mmt.

    Warns if it does not have its published size.

    Raises
    ------
    InputError
        As ``hub.download`` does, and for columns, answers or pictures that are not as published,
        row by row.
    """
    need_known("general: benchmark", benchmark, REPOS)
    repo, pattern = REPOS[benchmark]
    if benchmark == "mmt":
        source, files = hub.download(repo, revision, pattern)
        published = (row for file in files.values() for row in _tsv(file, source))
    else:
        source, published = hub.parquet(repo, revision, pattern)
        for column in published.column_names:
            if column.startswith("image"):
                published = published.cast_column(column, Image(decode=False))
    needed, read = READERS[benchmark]
    problems: list[str] = []

    def rows() -> Iterator[dict]:
        for k, row in enumerate(published):
            if k == 0:
                need_columns(list(row), needed, source)
            try:
                question = {"id": f"{benchmark}-{k}", "category": "", **read(row)}
            except (ValueError, SyntaxError, TypeError, AttributeError) as error:
                raise InputError(f"{source}, row {k}: not as published: {error}") from None
            problems.extend(f"{source}, row {k}: {problem}" for problem in _problems(question))
            yield question | {"source": source, "set": benchmark}

    questions = write_rows(rows(), FEATURES)
    raise_any(problems if len(questions) else [f"{source}: 0 rows; there is nothing to ask"])
    warn_of_counts(source, {benchmark: len(questions)}, {benchmark: ROWS[benchmark]})
    return questions


def _problems(question: dict) -> Iterator[str]:
    letters = ascii_uppercase[: len(question["options"])]
    if letters and question["answer"] not in letters:
        yield f"answer {question['answer']!r}; allowed: {', '.join(letters)}"
    for status in map(picture_status, question["images"]):
        if status != OK:
            yield f"a picture cannot be judged ({status})"


def _mmmu(row: dict) -> dict:
    options = ast.literal_eval(row["options"])  # published as the text of a Python list
    return {
        "id": row["id"],
        "category": re.sub(r"^validation_|_\d+$", "", row["id"]),
        "images": _images(row, 7),
        "question": row["question"],
        "options": [str(option) for option in options],
        "answer": row["answer"],
    }


def _realworldqa(row: dict) -> dict:
    question, options = _split_options(row["question"], row["answer"])
    return {
        "images": [row["image"]],
        "question": question,
        "options": options,
        "answer": row["answer"],
    }


def _split_options(text: str, answer: str) -> tuple[str, list[str]]:
    """Split a question from its options; one whose options are not clear stays whole."""
    lines = [line.strip() for line in _HOW_TO_ANSWER.sub("", text).split("\n") if line.strip()]
    for k in range(1, len(lines)):
        matches = [_OPTION.fullmatch(line) for line in lines[k:]]
        letters = [match[1] for match in matches if match]
        if letters == list(ascii_uppercase[: len(matches)]) and answer in letters:
            return "\n".join(lines[:k]), [match[2] for match in matches]
    is_letter = len(answer) == 1 and answer in ascii_uppercase
    return (text if is_letter else "\n".join(lines)), []


def _blink(row: dict) -> dict:
    return {
        "id": row["idx"],
        "category": row["sub_task"],
        "images": _images(row, 4),
        "question": row["question"],
        "options": list(row["choices"]),
        "answer": row["answer"].strip("()"),
    }


def _mmt(row: dict) -> dict:
    options = [row[letter] for letter in "ABCDEFGHI" if row.get(letter)]
    return {
        "id": f"mmt-{row['index']}",
        "category": row["category"],
        "images": [{"bytes": base64.b64decode(row["image"], validate=True), "path": None}],
        "question": row["question"],
        "options": options,
        "answer": row["answer"],
    }


def _images(row: dict, most: int) -> list[dict]:
    return [row[f"image_{k}"] for k in range(1, most + 1) if row.get(f"image_{k}")]


def _tsv(file: Path, source: str) -> Iterator[dict]:
    """Yield the rows of a table with base64 pictures, which exceed csv's default limit per cell."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with file.open(encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text, delimiter="\t")
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {file.name} is no table: {error}") from None
    finally:
        csv.field_size_limit(limit)  # it is one for the whole process


READERS: dict[str, tuple[tuple[str, ...], Callable]] = {
    "mmmu": (("id", "question", "options", "image_1", "answer"), _mmmu),
    "realworldqa": (("image", "question", "answer"), _realworldqa),
    "blink": (("idx", "question", "sub_task", "image_1", "choices", "answer"), _blink),
    "mmt": (("index", "question", "A", "B", "answer", "category", "image"), _mmt),
}
