"""The four general benchmarks, in the exact published schema, from a hub on this machine."""

import base64
import json
import warnings
from functools import partial

import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.images import load_image
from sgvl.data.sources import general
from sgvl.experiments import ability
from sgvl.judges import ask_all, make_judge
from sgvl.judges.base import SpeakingJudge
from sgvl.models.reply import Reply
from sgvl.scores import accuracy
from sgvl.text.prompts import GENERAL as GENERAL_PROMPTS

WANTED = {
    "mmmu": [
        ("validation_Art_Theory_7", "Art_Theory", 2, ["a cat", "a dog's"], "B"),
        ("validation_Math_1", "Math", 1, [], "12"),
    ],
    "realworldqa": [
        ("realworldqa-0", "", 1, ["A dog", "A tree"], "A"),
        ("realworldqa-1", "", 1, [], "2"),
    ],
    "blink": [("val_Jigsaw_1", "Jigsaw", 2, ["first", "second"], "B")],
    "mmt": [("mmt-17", "naming", 1, ["cat", "dog", "tree"], "C")],
}


@pytest.mark.parametrize("name", WANTED)
def test_questions_come_in_one_shape(serve_general, name):
    server = serve_general(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = general.load(name)
    assert rows.features == general.FEATURES and set(rows["set"]) == {name}
    assert [
        (row["id"], row["category"], len(row["images"]), row["options"], row["answer"])
        for row in rows
    ] == WANTED[name]
    assert load_image(rows[0]["images"][0]["bytes"]).size == (224, 224)
    assert "MMT-Bench_ALL.tsv" not in server.asked


def without(column):
    return lambda row: {name: cell for name, cell in row.items() if name != column}


@pytest.mark.parametrize("name", WANTED)
def test_a_missing_column_is_named(serve_general, name):
    serve_general(name, without("answer"))
    with pytest.raises(InputError, match="column 'answer' is missing"):
        general.load(name)


@pytest.mark.parametrize("name", ["mmmu", "blink", "mmt"])
def test_an_answer_that_is_no_option_is_named_with_its_row(serve_general, name):
    serve_general(name, lambda row: row | {"answer": "(Z)"})
    with pytest.raises(InputError, match=r"row 0: answer '\(?Z\)?'; allowed: A, B"):
        general.load(name)


def test_no_question_at_all(serve_general):
    hub = serve_general("mmt")
    files = hub.repos["OpenGVLab/MMT-Bench"]
    files["MMT-Bench_VAL.tsv"] = files["MMT-Bench_VAL.tsv"].splitlines(keepends=True)[0]
    with pytest.raises(InputError, match="0 rows; there is nothing to ask"):
        general.load("mmt")


@pytest.mark.parametrize(
    "name, cells", [("mmmu", {"options": "[a cat"}), ("mmt", {"image": "no base64"})]
)
def test_a_cell_that_cannot_be_read_is_named_with_its_row(serve_general, name, cells):
    serve_general(name, lambda row: row | cells)
    with pytest.raises(InputError, match="row 0: not as published"):
        general.load(name)


@pytest.mark.parametrize("name", WANTED)
def test_a_picture_that_cannot_be_judged_is_named_with_its_row(serve_general, name):
    column = {"mmmu": "image_1", "blink": "image_1"}.get(name, "image")
    broken = {"bytes": b"GIF89a", "path": None}
    if name == "mmt":
        broken = base64.b64encode(broken["bytes"]).decode()
    serve_general(name, lambda row: row | {column: broken})
    with pytest.raises(InputError, match=r"row 0: a picture cannot be judged \(image_decode\)"):
        general.load(name)


ROADS = {  # a question of RealWorldQA, its answer: what is asked, and the options
    "one option has no full stop": (
        "Where\nis it?\nA. left\nB right\nC. there\nPlease answer directly with the letter.",
        *("C", "Where\nis it?", ["left", "right", "there"]),
    ),
    "one option is missing": (
        "Where is it?\nA. left\nC. there\nPlease answer directly with the letter.",
        *("C", "Where is it?\nA. left\nC. there\nPlease answer directly with the letter.", []),
    ),
    "an option is broken off": (
        "Where is it?\nA. left\nof us\nB. there",
        *("B", "Where is it?\nA. left\nof us\nB. there", []),
    ),
    "none": ("How many?\nPlease answer directly with a word.", "2", "How many?", []),
}


@pytest.mark.parametrize("case", ROADS)
def test_options_within_a_question(serve_general, case):
    published, answer, question, options = ROADS[case]
    serve_general("realworldqa", lambda row: row | {"question": published, "answer": answer})
    row = general.load("realworldqa")[0]
    assert (row["question"], row["options"], row["answer"]) == (question, options, answer)


def test_another_size_is_warned_of(serve_general, monkeypatch):
    monkeypatch.setitem(general.ROWS, "mmt", 3127)
    serve_general("mmt")
    with pytest.warns(UserWarning, match="mmt: 1, expected 3127"):
        general.load("mmt")


@pytest.fixture(scope="module")
def nano():
    return make_judge({"kind": "chat", "id": "nano-base", "max_new_tokens": 8})


def answers_of(judge, sets, convention, folder):
    """Ask every set, each answer stored in ``folder``."""
    ask = partial(ask_all, judge, folder=folder)
    return pd.concat(ability.answering(ask, rows, convention) for rows in sets).assign(judge="j")


@pytest.mark.parametrize("convention", GENERAL_PROMPTS)
def test_a_real_judge_is_asked_and_no_question_twice(
    serve_general, nano, tmp_path, convention, monkeypatch
):
    """Every set, with questions of several pictures and open ones, from the hub to a table."""
    sets = [serve_general(name) and general.load(name) for name in WANTED]
    store.save({name: rows for name, rows in zip(WANTED, sets, strict=True)}, tmp_path, seed=0)
    saved = [store.read(name, tmp_path) for name in WANTED]
    answers = answers_of(nano, saved, convention, tmp_path)
    assert list(answers["task"]) == ["mmmu", "mmmu", "realworldqa", "realworldqa", "blink", "mmt"]
    records = tmp_path / "nano-base.replies.jsonl"
    lines = records.read_text().splitlines()
    assert len(lines) == 6 and set(answers["given"]) == {json.loads(x)["reply"] for x in lines}
    with monkeypatch.context() as patch:
        patch.setattr(nano, "replies", lambda requests: pytest.fail("asked again"))
        again = answers_of(nano, saved, convention, tmp_path)
    pd.testing.assert_frame_equal(again, answers)
    records.write_text("\n".join(lines[:-1]) + "\n")
    pd.testing.assert_frame_equal(answers_of(nano, saved, convention, tmp_path), answers)
    table = accuracy.scores(answers).set_index("task")
    assert table["n"].to_dict() == {"mmmu": 2, "realworldqa": 2, "blink": 1, "mmt": 1}


class Parrot(SpeakingJudge):
    """Gives the replies that it was made with, and keeps the requests."""

    def __init__(self, replies):
        self.id, self.answers, self.requests = "parrot", list(replies), []

    def reply_identity(self):
        return {"kind": "parrot"}

    def replies(self, requests):
        self.requests += [(len(sample.image), text) for sample, text in requests]
        yield [(i, Reply(self.answers.pop(0)), "") for i in range(len(requests))]


def test_replies_by_hand_become_scores(serve_general, tmp_path):
    """MMMU: one right, one unparseable. RealWorldQA: one right, one wrong."""
    sets = [serve_general(name) and general.load(name) for name in ("mmmu", "realworldqa")]
    parrot = Parrot(["(B)", "hm", "A", "3"])
    answers = answers_of(parrot, sets, "vlmevalkit", tmp_path)
    assert [images for images, _ in parrot.requests] == [2, 1, 1, 1]
    assert (
        "A. a cat\nB. a dog's" in parrot.requests[0][1]
        and "A. 12\nB. Other" in parrot.requests[1][1]
    )
    assert parrot.requests[2][1].count("A dog") == 1  # the options stand once
    table = accuracy.scores(answers).set_index("task")
    assert table["micro"].to_dict() == {"mmmu": 50, "realworldqa": 50}
    assert table["unparseable"].to_dict() == {"mmmu": 50, "realworldqa": 0}


def test_general_is_the_plain_mean_over_sets_of_any_size():
    answers = [("mmmu", k < 30) for k in range(60)] + [("blink", True)] * 20
    overall = accuracy.overall(pd.DataFrame(answers, columns=["task", "right"]))
    # Wilson: 30 of 60 is 37.7 to 62.3, 20 of 20 is 83.9 to 100; half the root of summed squares
    assert overall.round(1).to_dict() == {"value": 75.0, "low": 64.9, "high": 81.1, "n": 80.0}


def test_an_unknown_benchmark():
    with pytest.raises(InputError, match="did you mean mmmu?"):
        general.load("mmu")
