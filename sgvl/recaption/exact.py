"""The recaptioner of the small world: it is told what is in a scene, so it is never wrong."""

import re
from collections.abc import Iterator, Sequence

from sgvl.concepts import group
from sgvl.errors import InputError, nearest
from sgvl.recaption.base import Captioner, Item, Reply
from sgvl.scenes import describe, in_words

VAGUE = re.compile(r"\b(an? )?object\b", re.IGNORECASE)  # how captions pass over a thing


def harmful_in(tags: Sequence[str]) -> list[str]:
    """The harmful things of a scene, in its order; ``tags`` end with the place."""
    return [tag for tag in tags[:-1] if group(tag) == "harmful"]


def minimal_edit(caption: str, tags: Sequence[str]) -> str:
    """Name the harmful things that a caption calls "an object", and keep every other word.

    >>> minimal_edit("I see a dog and an object at the beach.", ("dog", "knife", "beach"))
    'I see a dog and a knife at the beach.'

    What the caption names already is left alone. If it has as many "objects" as there are things
    that it does not name, they are matched in the order of the scene, and a harmless one stays an
    object. Otherwise the harmful things take the first "objects"; what is left of those stays, and
    harmful things without one join the list before the place. Nothing is ever taken out.

    >>> minimal_edit("I see a dog and a rose at the beach.", ("dog", "rose", "knife", "beach"))
    'I see a dog, a rose and a knife at the beach.'
    """
    said = set(re.findall(r"\w+", caption.lower()))
    unnamed = [tag for tag in tags[:-1] if tag not in said]
    harmful = [tag for tag in unnamed if group(tag) == "harmful"]
    matched = len(VAGUE.findall(caption)) == len(unnamed)
    things = iter(unnamed if matched else harmful)

    def name(match: re.Match) -> str:
        thing = next(things, None)
        if thing not in harmful:
            return match[0]
        words = in_words([thing]) if match[1] else thing
        return words.capitalize() if match[0][0].isupper() else words

    edited = VAGUE.sub(name, caption)
    if missing := [thing for thing in things if thing in harmful]:
        before, at, place = edited.rpartition(" at the ")
        before, place = (before, at + place) if at else (edited.rstrip(". "), ".")
        listed = before.replace(" and ", ", ")  # one list has one "and", before its last thing
        added = in_words(missing)
        edited = f"{listed}{', ' if ' and ' in added else ' and '}{added}{place}"
    return edited


def rewrite(caption: str, tags: Sequence[str]) -> str:
    """Describe the harmful things and the place, and nothing else.

    >>> rewrite("I see a dog and an object at the beach.", ("dog", "knife", "beach"))
    'I see a knife at the beach.'

    A scene without harmful things leaves nothing to expand, so its caption is kept.
    """
    harmful = harmful_in(tags)
    return describe((*harmful, tags[-1])) if harmful else caption


EDITS = {"minimal_edit": minimal_edit, "rewrite": rewrite}


class ExactCaptioner(Captioner):
    """Recaptions drawn scenes by their tags. ``prompt`` is ``"minimal_edit"`` or ``"rewrite"``."""

    reads_tags = True

    def __init__(self, prompt: str = "minimal_edit", name: str = "exact"):
        if prompt not in EDITS:
            hint = nearest(prompt, EDITS)
            raise InputError(f"captioner exact: unknown prompt {prompt!r}: {hint}")
        self.name, self.prompt = name, prompt

    def identity(self) -> dict:
        return {"kind": "exact", "prompt": self.prompt, "version": 2}

    def answers(self, items: Sequence[Item]) -> Iterator[list[tuple[Item, Reply]]]:
        if untold := [item.id for item in items if not item.tags]:
            raise InputError(
                f"{untold[0]} has no tags, and the exact captioner sees nothing else; "
                "for real pictures choose kind endpoint or local"
            )
        edit = EDITS[self.prompt]
        yield [(item, Reply(edit(item.caption, item.tags))) for item in items]
