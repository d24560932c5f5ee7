"""The vocabulary of the drawn world: concepts, their categories, and places.

A concept is one drawing with one name; policies name concepts or their categories. Harmful
categories follow the nine of LlavaGuard and the nine that UnsafeBench's Table 2 reports. Each
harmful concept has a harmless look-alike, its counterpart (a knife becomes a spoon). The concepts
are listed in ``concepts.csv``.
"""

import csv
from functools import cache
from typing import NamedTuple

from sgvl.common.paths import PACKAGE


class Concept(NamedTuple):
    """One drawing: its name, its category, its code point in each art style, its counterpart.

    ``openmoji`` is empty where that style draws another thing at the same code point (its water
    pistol is a revolver), because a label belongs to a drawing, not to a code point.
    """

    name: str
    category: str
    twemoji: str
    openmoji: str
    counterpart: str


class Category(NamedTuple):
    """A category and its name in the two published taxonomies ("" = none)."""

    name: str
    group: str  # neutral: harmless to all; sensitive: harmless to most; harmful
    llavaguard: str = ""
    unsafebench: str = ""


# Spellings of the published categories: LlavaGuard's taxonomy and UnsafeBench's data card.
_O = {
    "O1": "O1: Hate, Humiliation, Harassment",
    "O2": "O2: Violence, Harm, or Cruelty",
    "O3": "O3: Sexual Content",
    "O4": "O4: Nudity Content",
    "O5": "O5: Criminal Planning",
    "O6": "O6: Weapons or Substance Abuse",
    "O7": "O7: Self-Harm",
    "O8": "O8: Animal Cruelty",
    "O9": "O9: Disasters or Emergencies",
}

CATEGORIES = {
    c.name: c
    for c in [
        Category("animals", "neutral"),
        Category("food", "neutral"),
        Category("fruit", "neutral"),
        Category("plants", "neutral"),
        Category("vehicles", "neutral"),
        Category("sports", "neutral"),
        Category("tools", "neutral"),
        Category("clothes", "neutral"),
        Category("electronics", "neutral"),
        Category("household", "neutral"),
        Category("toys", "neutral"),
        Category("music", "sensitive"),
        Category("affection", "sensitive"),
        Category("alcohol", "sensitive"),
        Category("gambling", "sensitive"),
        Category("hate", "harmful", _O["O1"], "Hate"),
        Category("violence", "harmful", _O["O2"], "Violence"),
        Category("gore", "harmful", _O["O2"], "Shocking"),
        Category("sexual", "harmful", _O["O3"], "Sexual"),
        Category("nudity", "harmful", _O["O4"], "Sexual"),
        Category("crime", "harmful", _O["O5"], "Illegal activity"),
        Category("weapons", "harmful", _O["O6"], "Violence"),
        Category("drugs", "harmful", _O["O6"], "Illegal activity"),
        Category("selfharm", "harmful", _O["O7"], "Self-harm"),
        Category("cruelty", "harmful", _O["O8"], "Shocking"),
        Category("disaster", "harmful", _O["O9"], "Shocking"),
        Category("deception", "harmful", "", "Deception"),
        Category("politics", "harmful", "", "Political"),
        Category("spam", "harmful", "", "Spam"),
    ]
}

HARMFUL = [name for name, category in CATEGORIES.items() if category.group == "harmful"]
PLACES = ("museum", "school", "clinic", "news", "street", "beach", "park", "home")
STYLES = ("twemoji", "openmoji")


@cache
def concepts() -> dict[str, Concept]:
    """Return all concepts by name, in the order of ``concepts.csv``."""
    with open(PACKAGE / "policies" / "concepts.csv", newline="", encoding="utf-8") as file:
        rows = [Concept(*row.values()) for row in csv.DictReader(file)]
    return {row.name: row for row in rows}


def category_of(tag: str) -> str:
    """Return the category of a concept; "" for any other tag."""
    return concepts()[tag].category if tag in concepts() else ""


def group(concept: str) -> str:
    """Return "neutral", "sensitive" or "harmful" for a concept."""
    return CATEGORIES[concepts()[concept].category].group


def named(*groups: str, style: str = "twemoji") -> list[str]:
    """Return the names of the concepts of these groups that ``style`` can draw."""
    return [c.name for c in concepts().values() if group(c.name) in groups and getattr(c, style)]


def in_category(category: str) -> list[str]:
    """Return the names of the concepts of one category."""
    return [c.name for c in concepts().values() if c.category == category]
