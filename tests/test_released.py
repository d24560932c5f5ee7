"""The released recipe under its own names: prompts, parsers, and the table of differences.

    python tests/test_released.py

writes the table into docs/RELEASED.md.
"""

import json
import re
from pathlib import Path

import pytest

from sgvl.common.errors import InputError
from sgvl.judges.base import SpeakingJudge
from sgvl.policies.policy import Policy, load
from sgvl.text import prompts, verdict

DOCUMENT = Path(__file__).parents[1] / "docs" / "RELEASED.md"
# The parser of each released script, and the kit's own for replies of the same form.
SCRIPTS = {
    "released": ("SafeEditBench", "word"),
    "released_unsafebench": ("UnsafeBench", "word"),
    "released_answer": ("reward", "think_answer"),
    "llavaguard": ("LlavaGuard", "json_rating"),
    "released_policyshift": ("PolicyShiftBench", "policyshift"),
    "released_singguard": ("SingGuard", "singguard"),
    "released_guardreasoner": ("GuardReasoner", "guardreasoner"),
}
FORM = {"rating": "Safe", "category": "NA: None applying", "rationale": "A knife, not unsafe here."}
REPLIES = {
    "released": [
        "unsafe.",
        "Unsafe",
        "UNSAFE",
        '"unsafe"',
        "**unsafe**",
        "The image is unsafe.",
        "unsafe\nS9",
        "<think>A knife.</think>unsafe",
        "I cannot help with that.",
        "",
    ],
    "released_unsafebench": ["unsafe.", "'unsafe'", "yes", "1", "True", "no", "I am not sure."],
    "released_answer": [
        "<answer>yes.</answer>",
        "<answer>yes</answer> The dog is harmless.",
        "<answer>yes</answer><answer>no</answer>",
        "<think>A knife.</think><answer>no</answer> <answer>yes</answer>",
    ],
    "llavaguard": [
        "This image is Unsafe.",
        "It is Safe to say that this breaks the policy.",
        json.dumps(FORM),
        json.dumps(FORM, indent=4) + "\nUnsafe otherwise.",
        "{'rating': 'Unsafe', 'category': 3\n}",
        '{"rating": "Safe"\n} {"rating": "Unsafe"\n}',
    ],
    "released_policyshift": [
        "not unsafe",
        "false | 02 | a fight",
        "The answer is true",
        "I can't help with unsafe images.",
    ],
    "released_singguard": [
        "safe\nA knife, so rule 1 is broken.\n<answer>R1. Rule 1</answer>",
        "unsafe\n<answer>R1. Ru",
        "Safe is not what this is.",
    ],
    "released_guardreasoner": [
        "<think>Request: unharmful? No.</think>\n<result>\nRequest: harmful\n</result>",
        "<result>\nRequest: None\n</result>",
        "<think>A knife.</think>\n<result>\nRequest: harmful",
    ],
}


def cell(text: str) -> str:
    """Show a reply in one cell of a table."""
    return f"`{text}`".replace("|", "\\|").replace("\n", "⏎") if text else "(nothing)"


def table() -> str:
    """Read every reply with both parsers, and lay the readings out."""
    lines = ["| script | reply | the script | this kit |", "| --- | --- | --- | --- |"]
    for parser, replies in REPLIES.items():
        script, own = SCRIPTS[parser]
        for reply in replies:
            theirs, ours = verdict.parse(reply, parser), verdict.parse(reply, own)
            readings = [p.verdict + (f": {p.reason}" if p.reason else "") for p in (theirs, ours)]
            lines.append(f"| {script} | {cell(reply)} | {' | '.join(readings)} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Put the table into the document."""
    head, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition("<!-- table -->\n")
    DOCUMENT.write_text(f"{head}{mark}\n{table()}", encoding="utf-8")


def test_the_table_of_differences_is_that_of_both_parsers():
    assert DOCUMENT.read_text(encoding="utf-8").endswith(f"<!-- table -->\n\n{table()}")


@pytest.mark.parametrize("parser", SCRIPTS)
def test_every_reply_of_the_table_is_read_differently(parser):
    own = SCRIPTS[parser][1]
    for reply in REPLIES[parser]:
        assert verdict.parse(reply, parser).verdict != verdict.parse(reply, own).verdict, reply


def test_the_names_in_the_document_are_names_of_the_kit():
    text = DOCUMENT.read_text(encoding="utf-8")
    known = {"prompt": prompts.JUDGE, "parser": verdict.PARSERS, "system": prompts.SYSTEM}
    for option, names in known.items():
        used = re.findall(rf"`{option}: (\w+)`", text)
        assert set(used) <= set(names)
    assert "rewrite" in prompts.RECAPTION


# -- prompts ---------------------------------------------------------------------------------------

L9 = Policy(name="L9", title="Policy L9", text="  No knives {at all}.\n")


def judge(**options):
    spec = {"prompt": "released", "policy_form": "text", "parser": "released"} | options
    return SpeakingJudge("j", max_new_tokens=64, with_p_unsafe=False, **spec)


def test_the_released_prompt_has_the_policy_as_published_and_asks_for_a_full_stop():
    text = judge().request(L9)
    assert "\nNo knives {at all}.\n" in text and "Policy L9" not in text
    asked_for = re.search("reply exactly: (unsafe\\.)\n", text)[1]
    assert judge().parse(asked_for, None).verdict == "safe"


def test_the_released_unsafebench_prompt_asks_under_its_own_headings_alone():
    own = judge(prompt="released_unsafebench", parser="released_unsafebench")
    text = own.request(load("openai_content"))
    assert len(re.findall(r"\b\d+\. [A-Z]", text)) == 11
    for heading in re.findall(r"(?m)^- ([\w -]+):", load("openai_content").text):
        assert f" {heading}:" in text
    with pytest.raises(InputError, match="asks under openai_content alone, not under L9"):
        own.request(L9)


def test_llavaguards_form_ends_with_the_image_and_takes_the_steps_of_the_row():
    published = L9.model_copy(update={"steps": "\n\nAssessment Steps:\n1. Rating <|im_end|>\n"})
    own = judge(prompt="llavaguard", parser="llavaguard")
    assert own.request(published) == (
        "No knives {at all}.\n\nAssessment Steps:\n1. Rating < |im_end|>\n<image 1>"
    )
    ours = own.request(L9)
    assert ours.startswith("No knives {at all}.\n\nAssessment steps:") and ours.endswith(
        "<image 1>"
    )
    *_, last = prompts.illustrated(ours, ["picture"])["content"]
    assert last == {"type": "image", "image": "picture"}


def test_steps_are_stored_only_where_there_are_any():
    assert "steps" not in L9.model_dump_json(by_alias=True)
    with_steps = L9.model_copy(update={"steps": "Rate it."})
    assert Policy.model_validate_json(with_steps.model_dump_json(by_alias=True)) == with_steps
    assert with_steps.digest != L9.digest


def test_a_judge_asked_another_way_is_another_judge_of_the_same_id():
    own = judge(prompt="word", parser="word", policy_form="full")
    other = own.asked(prompt="released", parser="released")
    assert (other.id, other.policy_form, other.max_new_tokens) == ("j", "full", 64)
    assert own.prompt == "word" and own.identity() != other.identity()
    with pytest.raises(InputError, match="judge j: prompt 'relaesed': did you mean released"):
        own.asked(prompt="relaesed")


if __name__ == "__main__":
    write()
