"""Measures of how far a recaption departs from its caption."""

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sgvl.recaption.base import OK, Item
from sgvl.text.words import words

if TYPE_CHECKING:
    import pandas as pd

# Words that are not neutral: they stand for what was suppressed, or go with it ("an object" becomes
# "a knife").
VAGUE = ("object", "objects")
ARTICLES = ("a", "an", "the")


class Departure(NamedTuple):
    """The changes of one recaption. Punctuation and capitals do not count."""

    edits: int  # word edit distance: words added, removed or replaced
    kept: float  # share of the caption's neutral words that remain; nan if it has none
    added: int  # mentions of harmful terms that the caption does not have


def departure(before: str, after: str, terms: Iterable[str]) -> Departure:
    """Compare a recaption with its caption.

    Neutral words are all but those of harmful terms, ``ARTICLES`` and ``VAGUE``.

    Parameters
    ----------
    before, after : the caption and the recaption
    terms : harmful terms, of one word or several: in the drawn world the names of harmful concepts,
        for real text a list

    >>> departure("I see an object at the beach.", "I see a knife at the beach.", ["knife"])
    Departure(edits=2, kept=1.0, added=1)
    """
    old, new = words(before), words(after)
    phrases = {tuple(words(term)) for term in terms} - {()}
    harmful = {word for phrase in phrases for word in phrase}
    neutral = Counter(w for w in old if w not in harmful and w not in (*ARTICLES, *VAGUE))
    remaining = (neutral & Counter(new)).total()
    kept = remaining / neutral.total() if neutral else float("nan")
    added = sum(max(0, _mentions(p, new) - _mentions(p, old)) for p in phrases)
    return Departure(word_edits(old, new), kept, added)


def read_terms(folder: Path) -> list[str]:
    """Return the harmful terms whose mentions 02_recaption counted in a run; none before it ran."""
    import pandas as pd

    file = folder / "recaption" / "terms.csv"
    if not file.is_file():
        return []
    return pd.read_csv(file, dtype=str, keep_default_na=False)["term"].tolist()


def word_edits(before: Sequence[str], after: Sequence[str]) -> int:
    """Count the words to add, remove or replace between two lists of words (Levenshtein distance).

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
    """List the words of both texts in reading order, each with "kept", "removed" or "added".

    >>> changes("I see an object.", "I see a knife.")[2:]
    [('an', 'removed'), ('object.', 'removed'), ('a', 'added'), ('knife.', 'added')]
    """
    old, new = before.split(), after.split()
    result = []
    for operation, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            result += [(word, "kept") for word in old[i:j]]
        else:
            result += [(word, "removed") for word in old[i:j]]
            result += [(word, "added") for word in new[k:m]]
    return result


def measure(items: Sequence[Item], rows: Sequence[dict], terms: Iterable[str]) -> "pd.DataFrame":
    """Measure the departure of every usable recaption of one captioner.

    Parameters
    ----------
    items : with their captions of step 1
    rows : what ``caption_all`` returned for ``items``
    terms : the harmful terms, as in ``departure``

    Returns
    -------
    pandas.DataFrame
        id, the fields of ``Departure``, and words (length of the recaption).
    """
    import pandas as pd

    terms = list(terms)
    measured = [
        (item.id, *departure(item.caption, row["text"], terms), len(words(row["text"])))
        for item, row in zip(items, rows, strict=True)
        if row["status"] == OK
    ]
    return pd.DataFrame(measured, columns=["id", *Departure._fields, "words"])


def measure_all(
    items: Sequence[Item], answers: Iterable[tuple], terms: Iterable[str]
) -> "pd.DataFrame":
    """Measure the recaptions of several captioners: ``measure`` with a column prompt.

    ``answers`` pairs each captioner with the rows that ``caption_all`` returned for ``items``.
    """
    import pandas as pd

    terms = list(terms)
    tables = {captioner.prompt: measure(items, rows, terms) for captioner, rows in answers}
    return pd.concat(tables, names=["prompt"]).reset_index("prompt")


def _mentions(phrase: tuple[str, ...], text: Sequence[str]) -> int:
    """Count how often a phrase occurs in a list of words."""
    n = len(phrase)
    return sum(tuple(text[i : i + n]) == phrase for i in range(len(text) - n + 1))
