"""Parsers of rationales: what a reply says of each thing, and what follows from it.

Models that this kit trains reason in one form, an *item* for each thing that they see:

    knife: weapons prohibited except news, at the news permitted. spoon: tools, all else permitted.

``items`` reads it. Of a rationale in free words only two things can be read without a model:
``quotations``, and ``conclusion``, by the words that it uses.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sgvl.text import prompts
from sgvl.text.verdict import SAFE, UNSAFE

PROHIBITED, PERMITTED = "prohibited", "permitted"
QUOTED_WORDS = 3  # a shorter passage in quotation marks may be a word set apart

_ENDS = re.compile(r'[.\n"]')  # of an item; in a reply of JSON, the quotation mark
_STATUS = f"({PROHIBITED}|{PERMITTED})"
_STATUSES = re.compile(f" (?:{PROHIBITED}|{PERMITTED})")
# An optional category, the clause, and what holds at this place where the clause has exceptions.
_RULING = re.compile(
    rf"(?:([^, ]+), )?((all else|[^, ]+) {_STATUS}(?: except .+?)?)(?:, at the ([^, ]+) {_STATUS})?"
)
_QUOTED = re.compile(r'"([^"\n]+)"|“([^“”\n]+)”|‘([^‘’\n]+)’')
_SAYS = re.compile(
    r"\b(?:(?P<breach>prohibit|forbid|violat|break|disallow|ban(?:s|ned)?\b)|permit|allow|compl[iy])",
    re.IGNORECASE,
)
_NOT = re.compile(r"(?:\b(?:not|no|nor|never|neither|nothing|without|cannot)|n['’]t)\b", re.I)
_NO = re.compile(r"\w*\s+(?:no|none|nothing)\b", re.IGNORECASE)  # "violates no rule"
_NEAR = 40  # characters before a word, in its sentence, in which a negation turns it round


class Item(NamedTuple):
    """What a reply says of one thing; "" for a part that cannot be read."""

    thing: str
    category: str
    clause: str  # the rule that it quotes, without ", at the news permitted"
    status: str  # of the thing here: prohibited or permitted
    place: str = ""  # where that status holds; named where the clause has exceptions

    @property
    def tag(self) -> str:
        """What its clause is about: a category, a thing, or all else."""
        return tag_of(self.clause)


def items(reply: str) -> list[Item]:
    """Return the items of a reply, in order; of one that is not in the form, thing and text.

    >>> items("A knife. knife: weapons prohibited except news, at the news permitted.")[0].clause
    'weapons prohibited except news'
    """
    found = []
    for sentence in _ENDS.split(reply):
        thing, colon, ruling = (part.strip() for part in sentence.partition(": "))
        if thing and colon and thing.lower() + ":" != prompts.SLOT.lower():
            found.append(_item(thing, ruling))
    return found


def tag_of(clause: str) -> str:
    """Return what a clause is about: a category, a thing, or all else.

    >>> tag_of("weapons prohibited except news")
    'weapons'
    """
    return _STATUSES.split(clause)[0]


def _item(thing: str, ruling: str) -> Item:
    match = _RULING.fullmatch(ruling)
    if not match:
        return Item(thing, "", ruling, "")
    category, clause, tag, says, place, here = match.groups(default="")
    about_category = "" if tag == "all else" else tag
    return Item(thing, category or about_category, clause, here or says, place)


def entailed(items: Sequence[Item]) -> str | None:
    """Return the verdict that follows from items; None if one cannot be read, or there are none.

    A thing that is prohibited is enough for unsafe.
    """
    statuses = {item.status for item in items}
    if PROHIBITED in statuses:
        return UNSAFE
    return SAFE if statuses == {PERMITTED} else None


def quotations(text: str) -> list[str]:
    """Return the passages of a rationale in quotation marks, of at least ``QUOTED_WORDS`` words."""
    passages = (next(filter(None, match.groups())) for match in _QUOTED.finditer(text))
    return [passage for passage in passages if len(passage.split()) >= QUOTED_WORDS]


def conclusion(text: str) -> str | None:
    """Return the verdict that a rationale in free words ends on, by its last word about a rule.

    That is a word such as "prohibited", "violates" or "allowed", turned round by a negation beside
    it. None if there is no such word.

    >>> conclusion("Weapons are prohibited, but a spoon does not break any rule.")
    'safe'
    """
    *_, last = [None, *_SAYS.finditer(text)]
    if last is None:
        return None
    before = re.split(r"[.;\n]", text[max(0, last.start() - _NEAR) : last.start()])[-1]
    turned = _NOT.search(before) or _NO.match(text, last.end())
    return UNSAFE if bool(last["breach"]) != bool(turned) else SAFE
