"""The words of a text, and whether it mentions a term."""

import re
from collections.abc import Iterable


def words(text: str) -> list[str]:
    """Split a text into lower-case words; hyphens and apostrophes stay inside a word."""
    return re.findall(r"\w+(?:[-'’]\w+)*", text.lower())


def mentions(text: str, terms: Iterable[str]) -> bool:
    """Check whether a text has any of ``terms``, of one word or several, as whole words.

    >>> mentions("Two rifles, and a Hate symbol.", ["rifle", "hate symbol"])
    True
    """
    text = f" {' '.join(words(text))} "
    return any(f" {' '.join(words(term))} " in text for term in terms)
