"""Multiple choice of published benchmarks: prompts, and the option that a reply chose.

Published numbers depend on the convention, so there are two. ``vlmevalkit`` is VLMEvalKit with
exact matching, which the paper probably used; it scores an unparseable reply as wrong.
``lmms_eval`` is lmms-eval, which draws a random option for an unparseable reply to MMMU. Here no
option is drawn: such a reply is unparseable under either convention, and its share is reported.

    options = {"A": "a cat", "B": "a dog"}
    extract_choice("The answer is (B).", options, "vlmevalkit")  # "B"
    extract_choice("I cannot tell.", options, "vlmevalkit")  # None
"""

import ast
import re
from collections.abc import Callable, Mapping
from string import ascii_uppercase

from sgvl.common.errors import need_known
from sgvl.text import prompts

# VLMEvalKit turns an open question of MMMU into two options: the right answer, and this.
OTHER = "Other Answers"
LAST_WORDS = 4  # where VLMEvalKit looks for a letter on its own

_LETTER_SIGNS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_ANSWER_IS = re.compile(r"\banswer is:?\s*\(?([A-D])\b", re.IGNORECASE)
# lmms-eval's extractor of letters, in order of precedence.
_PATTERNS = [
    re.compile(r"\A\(?([A-Z])(?:[).:,]|\s|\Z)"),
    re.compile(r"(?:\A|\s)\(?([A-Z])[).]*\Z"),
    re.compile(r"\b(?:answer|option|choice)(?: is)?:?\s*\(?([A-Z])\b", re.IGNORECASE),
    re.compile(r"\(([A-Z])\)"),
    re.compile(r"\b([A-Z])\."),
]


def lettered(options) -> dict[str, str]:
    """Return the options by letter: A, B, C and so on."""
    return dict(zip(ascii_uppercase, options, strict=False))


def build_prompt(
    question: str, options: Mapping[str, str], answer: str, convention: str, set_name: str = ""
) -> str:
    """Return the prompt of a question; ``options`` is empty for an open one.

    ``set_name`` is mmmu, realworldqa, blink or mmt, or "" for another set.
    """
    _check(convention)
    options = options or _options_of_open(answer, convention, set_name)
    lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    form = prompts.GENERAL[convention] if options else prompts.OPEN
    return form.format(question=question, options=lines)


def extract_choice(
    reply: str, options: Mapping[str, str], convention: str, set_name: str = ""
) -> str | None:
    """Return the letter that a reply chose, or None; lmms-eval has rules by ``set_name``."""
    _check(convention)
    reply = reply.strip()
    if convention == "vlmevalkit":
        return _vlmevalkit(reply, options)
    return _LMMS_EVAL.get(set_name, _mmmu)(reply, options)


def is_correct(
    reply: str, options: Mapping[str, str], answer: str, convention: str, set_name: str = ""
) -> bool | None:
    """Check a reply against the answer (a letter, or words); None if it is unparseable."""
    if options:
        letter = extract_choice(reply, options, convention, set_name)
        return None if letter is None else letter == answer
    if options := _options_of_open(answer, convention, set_name):
        letter = extract_choice(reply, options, convention, set_name)
        return None if letter is None else letter == "A"
    reply = _plain(reply)
    answers = [_plain(one) for one in _answers(answer)]
    return any(_matches(reply, one, set_name) for one in answers) if reply else None


def _check(convention: str) -> None:
    need_known("unknown convention of multiple choice", convention, prompts.GENERAL)


def _options_of_open(answer: str, convention: str, set_name: str) -> dict[str, str]:
    """Return VLMEvalKit's two options for an open question of MMMU; none for any other."""
    has_options = convention == "vlmevalkit" and set_name == "mmmu"
    return {"A": answer, "B": OTHER} if has_options else {}


def _answers(answer: str) -> list[str]:
    """Return all right answers: MMMU publishes several as the text of a Python list."""
    try:
        several = ast.literal_eval(answer) if answer.startswith("[") else [answer]
    except (ValueError, SyntaxError):
        several = [answer]
    return [str(one) for one in several]


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _matches(reply: str, answer: str, set_name: str) -> bool:
    """Compare as lmms-eval does: MMMU's answer may be part of the reply, others must equal it."""
    if set_name != "mmmu":
        return reply == answer
    numbers = [float(n.replace(",", "")) for n in _NUMBER.findall(reply)]
    if _NUMBER.fullmatch(answer):
        return round(float(answer.replace(",", "")), 2) in [round(n, 2) for n in numbers]
    return answer in reply


def _vlmevalkit(reply: str, options: Mapping[str, str]) -> str | None:
    """Find one single letter in the last words, or "answer is X", or the text of one option."""
    words = reply.translate(_LETTER_SIGNS).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and letters[0] in words[-LAST_WORDS:]:
        return letters[0]
    if (match := _ANSWER_IS.search(reply)) and match[1].upper() in options:
        return match[1].upper()
    if len(reply) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text.lower() in reply.lower()]
    return named[0] if len(named) == 1 else None


def _mmmu(reply: str, options: Mapping[str, str]) -> str | None:
    """Find the last option in brackets, or alone, or before a full stop, or written in full."""
    padded = " " + reply.strip(",.!?;:'") + " "
    for form in ("({})", " {} ", "{}."):
        starts = {letter: padded.rfind(form.format(letter)) for letter in options}
        if letter := _last(starts):
            return letter
    if len(reply.split()) <= 5:
        return None
    return _last({letter: reply.lower().rfind(text.lower()) for letter, text in options.items()})


def _last(starts: Mapping[str, int]) -> str | None:
    """Return the letter with the greatest start; -1 means that it does not occur."""
    letter = max(starts, key=starts.get, default=None)
    return letter if letter and starts[letter] >= 0 else None


def _leading(reply: str, options: Mapping[str, str]) -> str | None:
    match = re.match(r"\(?([A-Z])\b", reply)
    return match[1] if match and match[1] in options else None


def _first_pattern(reply: str, options: Mapping[str, str]) -> str | None:
    for pattern in _PATTERNS:
        if (match := pattern.search(reply)) and match[1].upper() in options:
            return match[1].upper()
    return None


_LMMS_EVAL: dict[str, Callable] = {"blink": _leading, "realworldqa": _first_pattern}
