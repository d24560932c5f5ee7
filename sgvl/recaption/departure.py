"""How far a recaption departs from the caption that it was made from."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from sgvl.recaption.base import OK, Item

if TYPE_CHECKING:
    import pandas as pd

VAGUE = ("object", "objects")  # words that stand in for what was suppressed
ARTICLES = ("a", "an", "the")  # they go with their noun: "an object" becomes "a knife"


class Departure(NamedTuple):
    """What a recaption changed. Punctuation and capitals do not count."""

    edits: int  # word edit distance: words added, dropped or replaced
    kept: float  # share of the neutral words that are still there; nan where there are none
    added: int  # mentions of harmful terms that were not there before


def departure(
    before: str, after: str, terms: Iterable[str], vague: Sequence[str] = VAGUE
) -> Departure:
    """Measure a recaption against its caption.

    ``terms`` are the harmful ones, of one word or several: in the small world the names of harmful
    concepts, on real text a list. Neutral words are all others but articles and ``vague`` words.

    >>> departure("I see an object at the beach.", "I see a knife at the beach.", ["knife"])
    Departure(edits=2, kept=1.0, added=1)
    """
    old, new = words(before), words(after)
    phrases = {tuple(words(term)) for term in terms} - {()}
    harmful = {word for phrase in phrases for word in phrase}
    neutral = Counter(w for w in old if w not in harmful and w not in (*ARTICLES, *vague))
    kept = (neutral & Counter(new)).total()
    share = kept / neutral.total() if neutral else float("nan")
    added = sum(max(0, _mentions(p, new) - _mentions(p, old)) for p in phrases)
    return Departure(word_edits(old, new), share, added)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; hyphens and apostrophes stay inside a word."""
    return re.findall(r"\w+(?:[-'’]\w+)*", text.lower())


def word_edits(before: Sequence[str], after: Sequence[str]) -> int:
    """Levenshtein distance between two lists of words; a replacement counts one.

    >>> word_edits("a dog and a cat".split(), "a cat".split())
    3
    """
    row = list(range(len(after) + 1))
    for i, old in enumerate(before, start=1):
        diagonal, row[0] = row[0], i
        for j, new in enumerate(after, start=1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (old != new))
            diagonal, row[j] = row[j], best
    return row[-1]


def changes(before: str, after: str) -> list[tuple[str, str]]:
    """The words of both, as written and in reading order, each "kept", "removed" or "added".

    >>> changes("I see an object.", "I see a knife.")[2:]
    [('an', 'removed'), ('object.', 'removed'), ('a', 'added'), ('knife.', 'added')]
    """
    old, new = before.split(), after.split()
    found = []
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found += [(word, "kept") for word in old[i:j]]
        else:
            found += [(word, "removed") for word in old[i:j]]
            found += [(word, "added") for word in new[k:m]]
    return found


def measure(
    items: Sequence[Item], rows: Sequence[dict], terms: Iterable[str], vague: Sequence[str] = VAGUE
) -> "pd.DataFrame":
    """``departure`` of each sound recaption in ``rows``, which answer ``items`` in order: columns
    id, edits, kept (a share), added, words (of the recaption)."""
    import pandas as pd

    terms = list(terms)
    measured = [
        (item.id, *departure(item.caption, row["text"], terms, vague), len(words(row["text"])))
        for item, row in zip(items, rows, strict=True)
        if row["status"] == OK
    ]
    return pd.DataFrame(measured, columns=["id", *Departure._fields, "words"])


def measure_all(
    items: Sequence[Item], recaptions: Iterable[tuple], terms: Iterable[str]
) -> "pd.DataFrame":
    """Measure the recaptions of several captioners: ``measure`` with a column prompt.

    ``recaptions`` pairs a captioner with its rows, which answer ``items`` in order.
    """
    import pandas as pd

    terms = list(terms)
    tables = {captioner.prompt: measure(items, rows, terms) for captioner, rows in recaptions}
    return pd.concat(tables, names=["prompt"]).reset_index("prompt")


def _mentions(phrase: tuple[str, ...], text: Sequence[str]) -> int:
    n = len(phrase)
    return sum(tuple(text[i : i + n]) == phrase for i in range(len(text) - n + 1))
