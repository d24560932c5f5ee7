"""The annotator, driven by the values of its controls; tests/test_browser_annotator.py types."""

import io
import json
import re
from base64 import b64decode

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset

from sgvl.editing import annotation
from sgvl.judges.records import Records
from sgvl.policies.policy import load_all
from sgvl.widgets import Annotator
from sgvl.world import sets

L1, L3 = LEVELS = load_all(["L1", "L3"])
IDS = 3


@pytest.fixture(scope="module")
def bench() -> Dataset:
    return sets.unsafebench(per_category=1).select(range(IDS))


@pytest.fixture
def opened(bench, tmp_path):
    def annotator(name="ann", **options):
        return Annotator(bench, LEVELS, tmp_path / "votes", annotator=name, **options)

    return annotator


def type_(widget, text: str) -> None:
    """Let the field grow letter by letter, as a browser does; what is left of it may be cleared."""
    for letter in text:
        widget.controls["line"].value += letter


def lines(tmp_path, name="ann") -> list[tuple]:
    file = tmp_path / "votes" / f"{name}.jsonl"
    rows = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    return [(row["id"], row["policy"], row["verdict"], row["note"]) for row in rows]


def pixels(widget) -> np.ndarray:
    uri = re.search('src="data:image/webp;base64,([^"]+)"', widget.screen.value)[1]
    return np.asarray(PIL.Image.open(io.BytesIO(b64decode(uri))).convert("RGB"), float)


def test_each_picture_is_asked_about_once_and_kept_as_it_is_typed(opened, tmp_path):
    widget = opened()
    assert "Picture 1 of 3, blurred; 0 of 3 pictures done (0%)." in widget.text
    type_(widget, "su")
    assert re.search(r"L1.*\| safe", widget.text) and re.search(r"L3.*\| unsafe", widget.text)
    assert lines(tmp_path) == []
    type_(widget, " a toy? s\n")
    first, second, _ = widget.order
    assert lines(tmp_path) == [
        (first, "L1", "safe", "a toy? s"),
        (first, "L3", "unsafe", "a toy? s"),
    ]
    assert widget.controls["line"].value == ""
    assert "Picture 2 of 3, blurred; 1 of 3 pictures done (33%). Saved." in widget.text
    type_(widget, "S?\n")
    assert lines(tmp_path)[2:] == [(second, "L1", "safe", ""), (second, "L3", "unsure", "")]
    type_(widget, "ss\n")
    assert "3 of 3 pictures done (100%)" in widget.text and "thank you" in widget.text
    type_(widget, "uu\n")  # nothing is left to be said
    assert len(lines(tmp_path)) == 6


@pytest.mark.parametrize(
    ("line", "problem"),
    [("s", "1 letters for 2"), ("ssu", "3 letters for 2"), ("sx", "Not a verdict: x"), ("", "0 ")],
)
def test_a_line_that_is_no_answer_is_not_saved_and_stays(opened, tmp_path, line, problem):
    widget = opened()
    type_(widget, f"{line}\n")
    assert problem in widget.text and "Not saved" in widget.text
    assert widget.controls["line"].value == line and lines(tmp_path) == []
    assert widget.place == 0


def test_letters_that_were_on_their_way_never_reach_the_next_picture(opened, tmp_path):
    """The browser goes on for a moment with the old text, to which more is typed."""
    widget = opened()
    line = widget.controls["line"]
    line.value = "su\n"
    for late in ("su\n", "su\nu", "su\nuu\n", "su\nuu\nuu\n"):
        line.value = late
        assert line.value == "" and widget.place == 1
    assert len(lines(tmp_path)) == 2
    type_(widget, "su\n")  # the same verdicts, typed anew
    assert widget.place == 2 and len(lines(tmp_path)) == 4


def test_a_second_session_goes_on_and_another_annotator_starts_anew(opened, tmp_path):
    type_(opened(), "su\n")
    again = opened()
    assert again.place == 1 and "1 of 3 pictures done" in again.text
    other = opened("bob")
    assert other.place == 0 and "0 of 3" in other.text
    assert len({tuple(opened(name).order) for name in "abcdefgh"}) > 1
    assert opened().order == again.order and opened(seed=5).order != opened(seed=6).order
    type_(other, "uu\n")
    assert len(lines(tmp_path)) == len(lines(tmp_path, "bob")) == 2


def test_a_name_is_asked_for_and_a_bad_one_is_refused(opened, tmp_path):
    widget = opened("")
    assert "Write your name" in widget.text and "<img" not in widget.screen.value
    type_(widget, "su\n")
    assert not (tmp_path / "votes").exists()
    widget.controls["line"].value = ""
    widget.controls["name"].value = "../ann"
    assert "use letters" in widget.text
    widget.controls["name"].value = "ann"
    assert "Picture 1 of 3" in widget.text


def test_an_answer_can_be_changed_and_both_are_kept(opened, tmp_path):
    widget = opened()
    type_(widget, "su hm\n")
    back, forward = widget.buttons
    back.click()
    assert "Picture 1 of 3" in widget.text and re.search(r"L3.*unsafe *\| hm", widget.text)
    type_(widget, "ss\n")
    first = widget.order[0]
    assert lines(tmp_path)[2:] == [(first, "L1", "safe", ""), (first, "L3", "safe", "")]
    assert widget.place == 1
    forward.click()
    forward.click()
    forward.click()
    assert "1 of 3 pictures done" in widget.text and "last one" in widget.text
    back.click()
    assert "Picture 3 of 3" in widget.text


def test_a_picture_is_blurred_until_it_is_asked_for_and_the_next_one_again(opened):
    widget = opened()

    def sharpness():
        return np.abs(np.diff(pixels(widget), axis=1)).max()

    blurred = sharpness()
    widget.controls["show"].value = True
    assert sharpness() > 3 * blurred
    type_(widget, "su\n")
    assert not widget.controls["show"].value and sharpness() < 60
    assert "blurred" in widget.text


def test_nothing_on_the_page_tells_the_label(opened, bench):
    widget = opened()
    page = widget.screen.value + widget.children[-1].value + widget.text
    page = re.sub('base64,[^"]+', "", page)
    for id_, category in zip(bench["id"], bench["category"], strict=True):
        assert id_ not in page and f">{category}<" not in page
    assert "Weapons are removed" not in widget.text and "fit for most people" in page


def test_policies_and_notes_are_escaped(bench, tmp_path):
    loud = L1.model_copy(update={"title": "<script>alert(1)</script>"})
    widget = Annotator(bench, [loud], tmp_path, annotator="ann")
    type_(widget, "s <img src=x>\n")
    widget.buttons[0].click()
    html = widget.screen.value + widget.children[-1].value
    assert "<script" not in html and "<img src=x" not in html and "&lt;img src=x&gt;" in html


def test_an_adjudicator_sees_the_divided_cases_alone_with_their_votes(opened, bench, tmp_path):
    for name, line in (("ann", "su sharp"), ("bob", "ss"), ("cat", "su")):
        widget = opened(name)
        while widget.place < IDS:  # of the first picture in the set alone, one case is divided
            type_(widget, f"{line if widget.order[widget.place] == bench['id'][0] else 'ss'}\n")
    votes = annotation.read(tmp_path / "votes", widget.digests, LEVELS)
    cases = votes[["id", "policy"]].drop_duplicates()
    divided = annotation.divided(annotation.decide(cases.assign(pair=cases["id"]), votes))
    own = {"annotator": "judge", "cases": divided, "votes": votes}
    judge = Annotator(bench, LEVELS, tmp_path / "settled", **own)
    assert "Picture 1 of 1" in judge.text and "L1" not in judge.text
    assert re.search(r"L3.*\| *\| 2 unsafe, 1 safe; sharp", judge.text)
    type_(judge, "s\n")
    settled = annotation.read(tmp_path / "settled", judge.digests, LEVELS)
    final = annotation.decide(divided, votes, settled)
    assert final[["id", "label", "decision"]].to_numpy().tolist() == [
        [bench["id"][0], "safe", "adjudicated"]
    ]


def test_a_held_file_is_said_and_nothing_is_lost(opened, tmp_path):
    widget = opened()
    digest = widget.digests[widget.order[0]]
    annotation.append(tmp_path / "votes", "ann", [])
    with Records(tmp_path / "votes" / "ann.jsonl", {"annotator": "ann"}, ("verdict", "note")):
        type_(widget, "su\n")
        assert "Not saved" in widget.text and "another run holds it" in widget.text
    widget.controls["line"].value = "su"
    type_(widget, "\n")
    assert len(lines(tmp_path)) == 2 and digest in (tmp_path / "votes" / "ann.jsonl").read_text()
