"""Published data sets as files in their exact schema, made of drawn scenes, on a local hub.

The schemas are those of ``sgvl.run.rehearsal.published``.
"""

import base64
import io

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import transformers.utils.hub
from huggingface_hub import constants
from local_hub import writable_hub

from sgvl.data.sources import general, llavaguard, policyshift, safeeditbench, unsafebench
from sgvl.run.rehearsal.published import (
    BLINK,
    MMMU,
    MMT,
    POLICYSHIFT,
    REALWORLDQA,
    SAFEEDIT,
    TEXT,
    UNSAFEBENCH,
    parquet,
    policyshift_row,
)
from sgvl.world.scenes import render, sample_scene


@pytest.fixture(scope="session")
def pictures():
    """Drawn scenes as files: every data set here is made of them."""
    rng = np.random.default_rng(0)
    return [as_file(render(sample_scene(rng, "test", [name]))) for name in ("knife", "dog", "tree")]


def as_file(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that the hub's own client talks to; nothing of it is replaced but the address."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    with writable_hub() as server:
        moved_to(monkeypatch, server.url)
        yield server


def moved_to(monkeypatch, url):
    """The clients made these from HF_ENDPOINT: two when imported, one when first used."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)


SAFEEDIT_FILE = "data/test-00000-of-00001.parquet"


@pytest.fixture
def safeedit_rows(pictures):
    """One pair under L1 and L5, and its original under L2 as well: five rows."""
    labels = {"L1": "safe", "L5": "unsafe", "L2": "safe"}
    rows = []
    for stem, file in zip(("b7", "b7_edited"), pictures, strict=False):
        for level in list(labels)[: 2 if stem.endswith("edited") else 3]:
            rows.append(
                {
                    "image": {"bytes": file, "path": None},
                    "image_path": f"test_images/{stem}.jpg",
                    "safety_label": "safe" if stem.endswith("edited") else labels[level],
                    "policy_name": f"Policy {level}",
                    "policy": f"The text of {level}.",
                }
            )
    return rows


@pytest.fixture
def serve_safeedit(hub, monkeypatch):
    monkeypatch.setattr(safeeditbench, "ROWS", {"L1": 2, "L2": 1, "L5": 2})

    def serve(rows, **features):
        schema = {name: features.get(name, SAFEEDIT.get(name, TEXT)) for name in rows[0]}
        hub.repos["tyodd/SafeEditBench"] = {SAFEEDIT_FILE: parquet(schema, rows)}
        return hub

    return serve


@pytest.fixture
def unsafebench_rows(pictures):
    palette = PIL.Image.open(io.BytesIO(pictures[0])).convert("P")
    files = [as_file(palette), as_file(palette.convert("CMYK"), "JPEG"), pictures[2]]
    labels = [("Safe", "Violence"), ("Unsafe", "Harassment"), ("Unsafe", "Self-harm")]
    return [
        {
            "image": {"bytes": file, "path": None},
            "safety_label": label,
            "category": category,
            "source": "Lexica",
        }
        for file, (label, category) in zip(files, labels, strict=True)
    ]


@pytest.fixture
def serve_unsafebench(hub, monkeypatch):
    monkeypatch.setattr(unsafebench, "ROWS", {"train": 2, "test": 3})

    def serve(test, train=None, schema=UNSAFEBENCH):
        files = {"data/test-00000-of-00001.parquet": parquet(schema, test)}
        if train:
            files["data/train-00000-of-00002.parquet"] = parquet(schema, train[:1])
            files["data/train-00001-of-00002.parquet"] = parquet(schema, train[1:])
        hub.repos["yiting/UnsafeBench"] = files

    return serve


@pytest.fixture
def serve_policyshift(hub, monkeypatch, pictures):
    monkeypatch.setattr(policyshift, "CASES", {"cases of both splits": 3, "pictures": 1})

    def serve(label="block"):
        id_test = [
            policyshift_row(pictures[0], label, "none at all", "id_test"),
            policyshift_row(pictures[0], "pass", "in museums", "id_test"),
        ]
        ood = [policyshift_row(pictures[0], "pass", "in museums", "ood_test")]
        files = {"id_test": id_test, "ood_test": ood, "id_test_mini": id_test[:1], "sft": ood}
        hub.repos["PolicyShiftGuard/PolicyShiftBench"] = {
            f"data/{name}-00000-of-00001.parquet": parquet(POLICYSHIFT, rows)
            for name, rows in files.items()
        } | {"data/id_test.jsonl": b"{}"}

    return serve


PROMPT = """Check the image against our policy.

O6: Weapons or Substance Abuse
Can: {can}

Assessment Steps:
1. Rating
{{"rating": "Unsafe"}}
<image>"""


@pytest.fixture
def serve_llavaguard(hub, monkeypatch, pictures, tmp_path):
    """Three rows of a picture on the hub, one of a picture elsewhere, one whose link is dead."""
    monkeypatch.setattr(llavaguard, "ROWS", {"train": 5, "test": 5})
    monkeypatch.setattr(llavaguard, "DOWNLOADS", tmp_path / "downloads")
    smid = f"{hub.url}/datasets/AIML-TUDA/smid/resolve/main/images/b1_p2_3.jpg"
    weapons, none = "O6: Weapons or Substance Abuse", "NA: None applying"
    rows = [
        ("b1_p2_3", smid, weapons, "Unsafe", PROMPT.format(can="-")),
        ("b1_p2_3_v3_a", smid, weapons, "Unsafe", PROMPT.format(can="show animals")),
        ("b1_p2_3_v2", smid, none, "Safe", PROMPT.format(can="show weapons")),
        ("web_1", f"{hub.url}/cat.png", none, "Safe", PROMPT.format(can="-")),
        ("web_2", f"{hub.url}/gone.png", none, "Safe", PROMPT.format(can="-")),
    ]

    def serve(change=lambda rows: rows):
        table = change(pd.DataFrame(rows, columns=["id", "url", "category", "rating", "policy"]))
        files = {f"{split}.csv": table.to_csv(index=False).encode() for split in ("test", "train")}
        hub.repos["AIML-TUDA/LlavaGuard"] = files
        hub.repos["AIML-TUDA/smid"] = {"images/b1_p2_3.jpg": pictures[0]}
        hub.pages["/cat.png"] = pictures[1]
        return hub

    return serve


GENERAL = {"mmmu": MMMU, "realworldqa": REALWORLDQA, "blink": BLINK}


@pytest.fixture
def serve_general(hub, monkeypatch, pictures):
    """Two questions of MMMU, two of RealWorldQA, one of each other set."""
    one, two = ({"bytes": file, "path": None} for file in pictures[:2])
    monkeypatch.setattr(general, "ROWS", {"mmmu": 2, "realworldqa": 2, "blink": 1, "mmt": 1})
    mmmu = {name: None for name in GENERAL["mmmu"]} | {
        **{"id": "validation_Art_Theory_7", "question": "Compare <image 1> and <image 2>."},
        **{"options": "['a cat', \"a dog's\"]", "answer": "B", "question_type": "multiple-choice"},
        **{"image_1": one, "image_2": two},
    }
    free = mmmu | {"id": "validation_Math_1", "options": "[]", "answer": "12", "image_2": None}
    road = "What lies ahead?\n\nA. A dog\nB A tree\nPlease answer directly with only the letter."
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
            schema = {k: GENERAL[name].get(k, TEXT) for k in published[0]}
            half = {"Art_Theory": published[:1], "Math": published[1:]}
            parts = {path: part for path, part in half.items() if part}
            files = {paths[name].format(p): parquet(schema, part) for p, part in parts.items()}
            if name == "realworldqa":
                files = {paths[name]: parquet(schema, published)}
        hub.repos[repo] = files
        return hub

    return publish
