"""The recaptioner of the small world: it is told what is in a scene, so it is never wrong."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from sgvl.common.errors import InputError, need_known
from sgvl.judges.base import Results
from sgvl.models.reply import Reply
from sgvl.policies.concepts import group
from sgvl.recaption.base import Captioner, Item
from sgvl.world.scenes import describe, in_words

VAGUE = re.compile(r"\b(an? )?object\b", re.IGNORECASE)  # how captions pass over a thing
LIST = re.compile(r"(I see )((?:an? \w+(?:, | and )?)+)( at the \w+\.)")


def harmful_in(tags: Sequence[str]) -> list[str]:
    """The harmful things of a scene, in its order; ``tags`` end with the place."""
    return [tag for tag in tags[:-1] if group(tag) == "harmful"]


def minimal_edit(caption: str, tags: Sequence[str]) -> str:
    """Name the harmful things that a caption calls "an object", and keep every other word.

    >>> minimal_edit("I see a dog and an object at the beach.", ("dog", "knife", "beach"))
    'I see a dog and a knife at the beach.'

    What the caption names already is left alone. If it has as many "objects" as there are things
    that it does not name, they are matched in the order of the scene, and a harmless one stays an
    object. Otherwise each harmful thing is named between its neighbours in the scene, in place of
    an "object" there or beside it:

    >>> minimal_edit("I see a dog and a rose at the beach.", ("dog", "knife", "rose", "beach"))
    'I see a dog, a knife and a rose at the beach.'

    In captions of another form the harmful things take the first "objects", and the rest is added
    before the place. Nothing is ever taken out.
    """
    said = set(re.findall(r"\w+", caption.lower()))
    unnamed = [tag for tag in tags[:-1] if tag not in said]
    harmful = [tag for tag in unnamed if group(tag) == "harmful"]
    matched = len(VAGUE.findall(caption)) == len(unnamed)
    if harmful and not matched and (form := LIST.fullmatch(caption)):
        return f"{form[1]}{in_words(_in_place(_things(form[2]), tags[:-1], harmful))}{form[3]}"
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
        edited = f"{before} and {in_words(missing)}{place}"
    return edited


def _things(listed: str) -> list[str]:
    """``"a dog, a rose and an object"`` -> ``["dog", "rose", "object"]``."""
    return re.findall(r"\ban? (\w+)", listed)


def _in_place(said: list[str], scene: Sequence[str], harmful: Sequence[str]) -> list[str]:
    """The things of a caption with the harmful ones of the scene where they stand in it."""
    named = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, said, scene, False).get_opcodes():
        new = [thing for thing in scene[j:j_end] if thing in harmful]
        for thing in said[i:i_end]:
            named.append(new.pop(0) if thing == "object" and new else thing)
        named += new
    return named


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
        need_known("captioner exact: unknown prompt", prompt, EDITS)
        self.name, self.prompt = name, prompt

    def identity(self) -> dict:
        return {"kind": "exact", "prompt": self.prompt, "version": 3}

    def results(self, items: Sequence[Item]) -> Results:
        if without := [item.id for item in items if not item.tags]:
            raise InputError(
                f"{without[0]} has no tags, and the exact captioner sees nothing else; "
                "for real pictures choose kind served or chat"
            )
        edit = EDITS[self.prompt]
        replies = (Reply(edit(item.caption, item.tags)) for item in items)
        yield [(i, reply, "") for i, reply in enumerate(replies)]
