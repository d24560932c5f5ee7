"""Text becomes a verdict here or nowhere: the table of replies in tests/replies."""

import itertools
import json
import time
from pathlib import Path

import pytest
import yaml

from sgvl.common.errors import InputError
from sgvl.text.verdict import PARSERS, SAFE, UNPARSEABLE, UNSAFE, Parsed, parse

LOOP = 50_000  # characters; what a model that loops until its token limit sends

REPLIES = Path(__file__).with_name("replies")
# What a reply of each form can look like.
SHAPES = {"good", "full stop", "bold", "fenced", "comma", "cut", "both", "denied", "second line",
          "other language", "refusal", "thought", "open thought", "empty"}  # fmt: skip
LENIENT = ("released", "llavaguard")  # parsers that follow somebody's script
FORMS = {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in REPLIES.glob("*.yaml")}
ROWS = [row for rows in FORMS.values() for row in rows]
GUARD = {"rating": "Unsafe", "category": "O6: Weapons", "rationale": "A knife; nothing safe."}

LOOPS = [
    ("answer", "Answer: unsafe " * (LOOP // 15), "more than one answer"),
    ("answer", "unsafe " * (LOOP // 7), "no answer"),
    ("sentence", "The image is unsafe. " * (LOOP // 21), "more than one answer"),
    ("json_rating", '{"rating": "Safe", "rationale": "' + "the " * (LOOP // 4), SAFE),
    ("json_rating", '{"a":' * (LOOP // 5), "broken JSON"),
    ("llavaguard", "{" * 5000, "no rating"),
    ("llama_guard", "unsafe\n" + "S1," * (LOOP // 3), "more than a verdict and its codes"),
    ("policyshift", "true | " * (LOOP // 7), "more than one answer"),
    ("singguard", "unsafe\n" + "<answer>R1" * (LOOP // 10), "no answer"),
    ("nemotron", "User Safety: unsafe\n" * (LOOP // 20), "a line that is not of the form"),
    ("shieldstral", "yes " * (LOOP // 4), "not one word, yes or no"),
    ("guardreasoner", "<result>Request: harmful" * (LOOP // 24), "no answer"),
    ("released_answer", "<answer>" * (LOOP // 8), "the first answer is not yes or no"),
]

# A thought is set aside, whatever words are in it; what follows is read as if it stood alone.
VERDICTS = {
    "answer": ("Answer: unsafe", "Answer: safe"),
    "sentence": ("A knife. The image is unsafe.", "A dog. The image is safe."),
    "word": ("unsafe", "safe"),
    "think_answer": ("<answer>no</answer>", "<answer>yes</answer>"),
    "json_rating": ('{"rating": "Unsafe"}', '{"rating": "Safe"}'),
    "llavaguard": ('{"rating": "Unsafe"}', '{"rating": "Safe"}'),
    "llama_guard": ("unsafe\nS1", "safe"),
    "policyshift": ("true | 06 | a knife", "false"),
    "singguard": ("unsafe\n<answer>R1. Rule 1</answer>", "safe\n<answer>Safe</answer>"),
    "nemotron": ("User Safety: unsafe", "User Safety: safe"),
    "shieldstral": ("yes", "no"),
    "guardreasoner": ("<result>Request: harmful</result>", "<result>Request: unharmful</result>"),
}
THOUGHTS = [
    (parser, reply, expected)
    for parser, (unsafe, safe) in VERDICTS.items()
    for reply, expected in (
        (f"<think>Is it {safe}?\nNo.</think>\n\n{unsafe}", UNSAFE),
        (f"<THINK>{unsafe} {unsafe}</THINK>{safe}", SAFE),
        (f"\n<think></think>\n<think>{unsafe}</think> {safe}", SAFE),
        (f"Is it {unsafe}? No.\n</think>\n{safe}", SAFE),  # the template opened it
    )
]
NO_VERDICTS = [
    (parser, reply)
    for parser, (unsafe, safe) in VERDICTS.items()
    for reply in (
        f"<think>{safe}",
        f"<think>Hm.</think><think>{safe}",
        f"<think><think>{safe}</think>",
        f"<think>{safe}</think>",
        "<think>Hm.</think>",
    )
    # The authors read the only thought that is not closed.
    if not (parser in ("think_answer", "guardreasoner") and reply in (f"<think>{safe}",))
]


@pytest.mark.parametrize("parser, reply, expected", THOUGHTS)
def test_a_closed_thought_is_set_aside(parser, reply, expected):
    assert parse(reply, parser).verdict == expected


@pytest.mark.parametrize("parser, reply", NO_VERDICTS)
def test_a_thought_is_no_verdict(parser, reply):
    assert parse(reply, parser).verdict == UNPARSEABLE


@pytest.mark.parametrize("form", FORMS)
def test_replies_are_read_as_the_table_has_them(form):
    for row in FORMS[form]:
        for parser in set(row) & set(PARSERS):
            parsed = parse(row["reply"], parser)
            assert (parsed.reason or parsed.verdict) == row[parser], (parser, row)
            assert (parsed.reason is None) == (parsed.verdict in (SAFE, UNSAFE))


@pytest.mark.parametrize("form", FORMS)
def test_no_reply_is_read_as_the_opposite_of_what_it_says(form):
    for row in FORMS[form]:
        assert row["says"] in (SAFE, UNSAFE, "neither"), row
        for parser in set(row) & {name for name in PARSERS if not name.startswith(LENIENT)}:
            # Its own form alone says what it means by a word such as yes.
            read = parse(row["reply"], parser).verdict
            assert row["says"] == "neither" or read in (row["says"], UNPARSEABLE), row


def test_the_table_has_every_shape_of_each_form_and_every_parser():
    own = [name for name in PARSERS if not name.startswith(LENIENT)]
    assert sorted(FORMS) == sorted(own)
    for form, rows in FORMS.items():
        assert {row["shape"] for row in rows} >= SHAPES, form
        assert {SAFE, UNSAFE} <= {row[form] for row in rows if row["shape"] == "good"}, form
        assert len({row["reply"] for row in rows}) == len(rows) >= 20, form
        assert all({"shape", "says", "reply", form} <= set(row) for row in rows), form
    keys = {key for row in ROWS for key in row} - {"shape", "says", "reply"}
    assert keys == set(PARSERS)


@pytest.mark.parametrize("parser, reply, expected", LOOPS)
def test_a_loop_is_read_or_has_a_reason(parser, reply, expected):
    parsed = parse(reply, parser)
    assert (parsed.reason or parsed.verdict) == expected


@pytest.mark.parametrize(
    "parser, reply, rationale",
    [
        ("answer", "A knife, prohibited.\nAnswer: unsafe", "A knife, prohibited."),
        ("answer", "A knife.\n**Final Answer: unsafe**", "A knife."),
        ("answer", "<think>A knife.</think>\n<answer>unsafe</answer>", "A knife."),
        ("answer", "unsafe", None),
        ("answer", "Answer: unsafe", None),
        ("sentence", "A knife, prohibited.\n\n**The image is unsafe.**", "A knife, prohibited."),
        ("sentence", "The image is unsafe.", None),
        ("think_answer", "<think> A gun. </think><answer>no</answer>", "A gun."),
        ("think_answer", "<think>1 < 2</think><answer>no</answer>", "1 < 2"),
        ("think_answer", "<think>not closed <answer>no</answer>", None),
        ("think_answer", "<think></think><answer>no</answer>", None),
        ("json_rating", json.dumps(GUARD), "A knife; nothing safe."),
        ("json_rating", '{"rating": "Safe", "rationale": "two\nlines"}', "two\nlines"),
        ("json_rating", '{"rating": "Safe", "rationale": "cu', None),
        ("json_rating", '{"rating": "Safe", "rationale": 3}', None),
        ("llama_guard", "unsafe\nS1,S9", "S1, S9"),
        ("llama_guard", "<think>A knife.</think>unsafe\nS1", "S1"),
        ("word", "<think>A knife.</think>\n<think>Long.</think>unsafe", "A knife.\nLong."),
        ("json_rating", '<think>A knife.</think>{"rating": "Unsafe"}', "A knife."),
        ("answer", "<think>A knife.</think>It cuts. Answer: unsafe", "It cuts."),
        ("policyshift", "true | 06 | a face | a name", "06: a face: a name"),
        ("policyshift", "false", None),
        ("singguard", "unsafe\n<answer>R1. Rule 1</answer>", "R1. Rule 1"),
        ("singguard", "unsafe\nA knife.\n<answer>R1. Rule 1</answer>", "A knife."),
        ("singguard", "safe\n<answer>Safe</answer>", None),
        ("nemotron", "User Safety: unsafe\nSafety Categories: Violence", "Violence"),
        ("guardreasoner", "<think>A knife.</think><result>Request: harmful</result>", "A knife."),
        ("guardreasoner", "<think>A knife.\n<result>Request: harmful</result>", "A knife."),
    ],
)
def test_rationale(parser, reply, rationale):
    assert parse(reply, parser).rationale == rationale


def test_default_parser_is_this_kits_form():
    assert parse("A dog. Answer: safe") == Parsed(SAFE, "A dog.", None)


def test_unknown_parser_names_the_known_ones():
    with pytest.raises(InputError, match="'anser' is unknown.*answer, sentence, word"):
        parse("safe", "anser")


SEEDS = [
    *("answer ", "final ", "final answer ", "answer: ", "*_ ", "<answer>", "</answer>", "<think>"),
    *(". ", ".*", "The image is ", "<result>", "Request: ", "User Safety: ", "true | ", "<", '"'),
    *("'.", "{", '{"rating": '),
    *('"rating": "', "[", "unsafe\n", "S1 ", "\n", " "),
]


@pytest.mark.parametrize("parser", PARSERS)
def test_a_loop_of_anything_costs_linear_time(parser):
    frames = ("%s", "unsafe%s", "Answer: unsafe%sx", '{"rating": "%s', "<think>%s<answer>yes",
              "unsafe\n%s")  # fmt: skip
    for seed, frame in itertools.product(SEEDS, frames):
        loop, took = seed * (LOOP // 2 // len(seed)), []
        while len(took) < 3 and min(took, default=1.0) >= 0.15:  # a busy machine can disturb one
            start = time.process_time()
            parse(frame % loop, parser)
            took.append(time.process_time() - start)
        assert min(took) < 0.15, (seed, frame, took, "milliseconds when linear, seconds when not")
