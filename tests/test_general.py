"""The four general benchmarks, in the exact published schema, from a hub on this machine."""

import base64
import warnings

import pytest
from datasets import Image, List
from published import TEXT, parquet

from sgvl.data import general
from sgvl.errors import InputError

SCHEMAS = {
    "mmmu": {
        **{"id": TEXT, "question": TEXT, "options": TEXT, "explanation": TEXT},
        **{f"image_{k}": Image() for k in range(1, 8)},
        **{"img_type": TEXT, "answer": TEXT, "topic_difficulty": TEXT, "question_type": TEXT},
        "subfield": TEXT,
    },
    "realworldqa": {"image": Image(), "question": TEXT, "answer": TEXT},
    "blink": {
        **{"idx": TEXT, "question": TEXT, "sub_task": TEXT},
        **{f"image_{k}": Image() for k in range(1, 5)},
        **{"choices": List(TEXT), "answer": TEXT, "prompt": TEXT},
    },
}
MMT = ("index", "question", *"ABCDEFGHI", "answer", "category", "l2-category", "image", "split")


@pytest.fixture
def serve(hub, monkeypatch, pictures):
    """Two questions of MMMU, two of RealWorldQA, one of each other set."""
    one, two = ({"bytes": file, "path": None} for file in pictures[:2])
    monkeypatch.setattr(general, "ROWS", {"mmmu": 2, "realworldqa": 2, "blink": 1, "mmt": 1})
    mmmu = {name: None for name in SCHEMAS["mmmu"]} | {
        **{"id": "validation_Art_Theory_7", "question": "Compare <image 1> and <image 2>."},
        **{"options": "['a cat', \"a dog's\"]", "answer": "B", "question_type": "multiple-choice"},
        **{"image_1": one, "image_2": two},
    }
    free = mmmu | {"id": "validation_Math_1", "options": "[]", "answer": "12", "image_2": None}
    road = "What lies ahead?\nA. A dog\nB. A tree\nPlease answer with the letter."
    rows = {
        "mmmu": [mmmu, free],
        "realworldqa": [
            {"image": one, "question": road, "answer": "A"},
            {"image": two, "question": "How many signs?", "answer": "2"},
        ],
        "blink": [
            {"idx": "val_Jigsaw_1", "question": "Which fits?", "sub_task": "Jigsaw", "image_1": one}
            | {"image_2": two, "image_3": None, "image_4": None, "choices": ["first", "second"]}
            | {"answer": "(B)", "prompt": "Which fits? (A) first (B) second"}
        ],
    }
    cells = ["17", "What is it?", "cat", "dog", "tree", *[""] * 6, "C", "naming", "recognition"]
    mmt = [*cells, base64.b64encode(pictures[2]).decode(), "val"]
    paths = {
        "mmmu": "{}/validation-00000-of-00001.parquet",
        "realworldqa": "data/test-00000-of-00002.parquet",
        "blink": "{}/val-00000-of-00001.parquet",
    }

    def publish(name, change=lambda row: row):
        repo, _ = general.REPOS[name]
        if name == "mmt":
            row = change(dict(zip(MMT, mmt, strict=True)))
            table = "\n".join("\t".join(cells) for cells in (list(row), row.values())) + "\n"
            files = {"MMT-Bench_VAL.tsv": table.encode(), "MMT-Bench_ALL.tsv": b"seven gigabytes"}
        else:
            published = [change(row) for row in rows[name]]
            schema = {k: SCHEMAS[name].get(k, TEXT) for k in published[0]}
            half = {"Art_Theory": published[:1], "Math": published[1:]}
            parts = {path: part for path, part in half.items() if part}
            files = {paths[name].format(p): parquet(schema, part) for p, part in parts.items()}
            if name == "realworldqa":
                files = {paths[name]: parquet(schema, published)}
        hub.repos[repo] = files
        return hub

    return publish


WANTED = {
    "mmmu": [
        ("validation_Art_Theory_7", "Art_Theory", 2, ["a cat", "a dog's"], "B"),
        ("validation_Math_1", "Math", 1, [], "12"),
    ],
    "realworldqa": [("0", "", 1, ["A dog", "A tree"], "A"), ("1", "", 1, [], "2")],
    "blink": [("val_Jigsaw_1", "Jigsaw", 2, ["first", "second"], "B")],
    "mmt": [("17", "naming", 1, ["cat", "dog", "tree"], "C")],
}


@pytest.mark.parametrize("name", WANTED)
def test_questions_come_in_one_shape(serve, name):
    server = serve(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = general.load(name)
    assert rows.features == general.FEATURES and set(rows["set"]) == {name}
    assert [
        (row["id"], row["category"], len(row["images"]), row["options"], row["answer"])
        for row in rows
    ] == WANTED[name]
    assert rows[0]["images"][0].size == (224, 224)
    assert "MMT-Bench_ALL.tsv" not in server.asked


def without(column):
    return lambda row: {name: cell for name, cell in row.items() if name != column}


@pytest.mark.parametrize("name", WANTED)
def test_a_missing_column_is_named(serve, name):
    serve(name, without("answer"))
    with pytest.raises(InputError, match="column 'answer' is missing"):
        general.load(name)


@pytest.mark.parametrize("name", WANTED)
def test_an_answer_that_is_no_option_is_named_with_its_row(serve, name):
    serve(name, lambda row: row | {"answer": "(Z)"})
    with pytest.raises(InputError, match=r"row 0: answer '\(?Z\)?'; allowed: A, B"):
        general.load(name)


@pytest.mark.parametrize(
    "name, cells", [("mmmu", {"options": "[a cat"}), ("mmt", {"image": "no base64"})]
)
def test_a_cell_that_cannot_be_read_is_named_with_its_row(serve, name, cells):
    serve(name, lambda row: row | cells)
    with pytest.raises(InputError, match="row 0: not as published"):
        general.load(name)


def test_another_size_is_warned_of(serve, monkeypatch):
    monkeypatch.setitem(general.ROWS, "mmt", 3127)
    serve("mmt")
    with pytest.warns(UserWarning, match="mmt: 1, expected 3127"):
        general.load("mmt")


def test_an_unknown_benchmark():
    with pytest.raises(InputError, match="did you mean mmmu?"):
        general.load("mmu")
