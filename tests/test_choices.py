"""Multiple choice under two conventions, by hand: awkward replies, and how they are scored."""

import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.scores.accuracy import scores
from sgvl.text.multiple_choice import build_prompt, extract_choice, is_correct, lettered

PETS = {"A": "a cat", "B": "a dog", "C": "a long-haired guinea pig"}

# reply: what VLMEvalKit reads, what lmms-eval reads (MMMU's rule, BLINK's, RealWorldQA's)
REPLIES = {
    "B": ("B", "B", "B", "B"),
    "B.": ("B", "B", "B", "B"),
    "(B)": ("B", "B", "B", "B"),
    " B. a dog ": ("B", "B", "B", "B"),
    "The answer is (B).": ("B", "B", None, "B"),
    "The answer is B because a dog has such ears": ("B", "B", None, "B"),
    "**B**": ("B", None, None, None),
    "a dog": ("B", None, None, None),
    "It is a dog": ("B", None, None, None),
    "What I can see here is a dog": ("B", "B", None, None),
    "a cat or a dog": (None, None, None, None),
    "It may be a cat, or else a dog": (None, "B", None, None),
    "A or B": (None, "B", "A", "A"),
    "(A) is wrong, so (B)": (None, "B", "A", "A"),
    "b": (None, None, None, None),
    "D": (None, None, None, None),
    "I cannot tell.": (None, None, None, None),
    "": (None, None, None, None),
}


@pytest.mark.parametrize("reply", REPLIES)
def test_replies_by_hand(reply):
    result = (
        extract_choice(reply, PETS, "vlmevalkit"),
        *(
            extract_choice(reply, PETS, "lmms_eval", name)
            for name in ("mmmu", "blink", "realworldqa")
        ),
    )
    assert result == REPLIES[reply]


def test_a_letter_far_from_the_end_is_not_an_answer_for_vlmevalkit():
    reply = "A look at the ears and the tail shows me a dog"
    assert extract_choice(reply, PETS, "vlmevalkit") == "B"  # by its text; "A" is no answer here
    assert extract_choice(reply * 3, PETS, "vlmevalkit") is None  # too long to be an option's text


def test_open_questions():
    assert is_correct("Paris.", {}, "paris", "lmms_eval") is True
    assert is_correct("It is Paris", {}, "paris", "lmms_eval") is False
    assert is_correct(" ", {}, "paris", "lmms_eval") is None
    assert build_prompt("Where?", {}, "Paris", "lmms_eval").startswith(
        "Where?\n\nAnswer with one word"
    )


MMMU_REPLIES = {  # answer: a right reply, a wrong one
    "paris": ("It is Paris.", "It is Rome."),
    "1,200": ("about 1200.00", "about 12"),
    "-4.257": ("x = -4.26", "x = 4.26"),
    "['24/7', '3.429']": ("3.43", "24"),
}


@pytest.mark.parametrize("answer", MMMU_REPLIES)
def test_lmms_eval_finds_an_open_answer_of_mmmu_within_the_reply(answer):
    for reply, hit in zip(MMMU_REPLIES[answer], (True, False), strict=True):
        assert is_correct(reply, {}, answer, "lmms_eval", "mmmu") is hit


def test_vlmevalkit_shows_an_open_question_of_mmmu_as_a_choice_and_of_no_other_set():
    prompt = build_prompt("Where?", {}, "Paris", "vlmevalkit", "mmmu")
    assert "A. Paris\nB. Other Answers" in prompt
    results = [
        is_correct(reply, {}, "Paris", "vlmevalkit", "mmmu") for reply in ("A", "B", "Who knows")
    ]
    assert results == [True, False, None]
    assert "Paris" not in build_prompt("Where?", {}, "Paris", "vlmevalkit", "realworldqa")
    assert is_correct("Paris", {}, "Paris", "vlmevalkit", "realworldqa") is True


def test_questions_list_their_options():
    for convention in ("vlmevalkit", "lmms_eval"):
        text = build_prompt("Which pet?", lettered(["a cat", "a dog"]), "A", convention)
        assert "Which pet?" in text and "A. a cat\nB. a dog\n" in text


def test_scores_by_hand():
    """Three of four right in one subtask, none of one in another; one reply unparseable."""
    answers = [("x", True), ("x", True), ("x", True), ("x", None), ("y", False)]
    frame = pd.DataFrame(
        [
            {
                "task": "blink",
                "category": category,
                "right": hit is True,
                "unparseable": hit is None,
            }
            for category, hit in answers
        ]
    )
    (row,) = scores(frame.assign(judge="a")).round(1).to_dict("records")
    assert row == {
        **{
            "judge": "a",
            "task": "blink",
            "n": 5,
            "micro": 60.0,
            "macro": 37.5,
            "unparseable": 20.0,
        },
        **{"low": 23.1, "high": 88.2},  # Wilson, 3 of 5
    }


def test_an_unknown_convention():
    with pytest.raises(InputError, match="did you mean lmms_eval?"):
        extract_choice("A", PETS, "lmms-eval")
