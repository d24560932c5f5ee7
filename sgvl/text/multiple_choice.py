"""Multiple choice of published benchmarks: how it is asked, and what a reply chose.

Two conventions, since published numbers hang on them. ``vlmevalkit`` is VLMEvalKit with exact
matching, the likely one of the paper: an unreadable reply is wrong. ``lmms_eval`` is lmms-eval,
whose rule for MMMU draws an option by lot where nothing was found; here nothing is drawn, and such
a reply counts as unparseable under either convention, so that its share can be shown.

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

# VLMEvalKit shows an open question of MMMU as two options: the right answer, and this.
OTHER = "Other Answers"
LAST_WORDS = 4  # of a reply, where VLMEvalKit looks for a bare letter

_LETTER_SIGNS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_ANSWER_IS = re.compile(r"\banswer is:?\s*\(?([A-D])\b", re.IGNORECASE)
# lmms-eval's extractor of letters, most telling place first.
_PLACES = [
    re.compile(r"\A\(?([A-Z])(?:[).:,]|\s|\Z)"),
    re.compile(r"(?:\A|\s)\(?([A-Z])[).]*\Z"),
    re.compile(r"\b(?:answer|option|choice)(?: is)?:?\s*\(?([A-Z])\b", re.IGNORECASE),
    re.compile(r"\(([A-Z])\)"),
    re.compile(r"\b([A-Z])\."),
]


def lettered(options) -> dict[str, str]:
    """Options by their letters: A, B, C and so on."""
    return dict(zip(ascii_uppercase, options, strict=False))


def build_prompt(
    question: str, options: Mapping[str, str], answer: str, convention: str, set_name: str = ""
) -> str:
    """The text that is put before a model; ``options`` is empty for an open question."""
    _check(convention)
    shown = options or _of_open(answer, convention, set_name)
    listed = "\n".join(f"{letter}. {text}" for letter, text in shown.items())
    form = prompts.GENERAL[convention] if shown else prompts.OPEN
    return form.format(question=question, options=listed)


def extract_choice(
    reply: str, options: Mapping[str, str], convention: str, set_name: str = ""
) -> str | None:
    """The letter that a reply chose, or None. ``set_name``: lmms-eval has a rule for each set."""
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
    if shown := _of_open(answer, convention, set_name):
        letter = extract_choice(reply, shown, convention, set_name)
        return None if letter is None else letter == "A"
    given = _plain(reply)
    found = [_plain(one) for one in _answers(answer)]
    return any(_gives(given, one, set_name) for one in found) if given else None


def _check(convention: str) -> None:
    need_known("unknown convention of multiple choice", convention, prompts.GENERAL)


def _of_open(answer: str, convention: str, set_name: str) -> dict[str, str]:
    """VLMEvalKit's two options for an open question of MMMU; open ones of other sets stay open."""
    shown = convention == "vlmevalkit" and set_name == "mmmu"
    return {"A": answer, "B": OTHER} if shown else {}


def _answers(answer: str) -> list[str]:
    """MMMU publishes several right answers as the text of a Python list."""
    try:
        several = ast.literal_eval(answer) if answer.startswith("[") else [answer]
    except (ValueError, SyntaxError):
        several = [answer]
    return [str(one) for one in several]


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _gives(given: str, answer: str, set_name: str) -> bool:
    """lmms-eval looks for the words or the number within a reply to MMMU, else for nothing else."""
    if set_name != "mmmu":
        return given == answer
    numbers = [float(n.replace(",", "")) for n in _NUMBER.findall(given)]
    if _NUMBER.fullmatch(answer):
        return round(float(answer.replace(",", "")), 2) in [round(n, 2) for n in numbers]
    return answer in given


def _vlmevalkit(reply: str, options: Mapping[str, str]) -> str | None:
    """One bare letter among the last words; else "answer is X"; else the text of one option."""
    words = reply.translate(_LETTER_SIGNS).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and letters[0] in words[-LAST_WORDS:]:
        return letters[0]
    if (said := _ANSWER_IS.search(reply)) and said[1].upper() in options:
        return said[1].upper()
    if len(reply) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text.lower() in reply.lower()]
    return named[0] if len(named) == 1 else None


def _mmmu(reply: str, options: Mapping[str, str]) -> str | None:
    """The last option in brackets, else bare, else before a full stop, else named in full."""
    padded = " " + reply.strip(",.!?;:'") + " "
    for form in ("({})", " {} ", "{}."):
        places = {letter: padded.rfind(form.format(letter)) for letter in options}
        if found := {letter: place for letter, place in places.items() if place >= 0}:
            return max(found, key=found.get)
    if len(reply.split()) <= 5:
        return None
    places = {letter: reply.lower().rfind(text.lower()) for letter, text in options.items()}
    found = {letter: place for letter, place in places.items() if place >= 0}
    return max(found, key=found.get) if found else None


def _leading(reply: str, options: Mapping[str, str]) -> str | None:
    found = re.match(r"\(?([A-Z])\b", reply)
    return found[1] if found and found[1] in options else None


def _placed(reply: str, options: Mapping[str, str]) -> str | None:
    for place in _PLACES:
        if (found := place.search(reply)) and found[1].upper() in options:
            return found[1].upper()
    return None


_LMMS_EVAL: dict[str, Callable] = {"blink": _leading, "realworldqa": _placed}
