"""The recaptioner of the drawn world: it reads the tags of a scene, so it is never wrong."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from sgvl.common.errors import InputError, need_known
from sgvl.judges.base import Results
from sgvl.models.reply import Reply
from sgvl.policies.concepts import group
from sgvl.recaption.base import Captioner, Item
from sgvl.world.scenes import describe, in_words

VAGUE = re.compile(r"\b(an? )?object\b", re.IGNORECASE)  # stands for a suppressed thing
LIST = re.compile(r"(I see )((?:an? \w+(?:, | and )?)+)( at the \w+\.)")


def harmful_in(tags: Sequence[str]) -> list[str]:
    """List the harmful things of a scene in its order; ``tags`` end with the place."""
    return [tag for tag in tags[:-1] if group(tag) == "harmful"]


def minimal_edit(caption: str, tags: Sequence[str]) -> str:
    """Name the harmful things that a caption calls "an object", and keep every other word.

    >>> minimal_edit("I see a dog and an object at the beach.", ("dog", "knife", "beach"))
    'I see a dog and a knife at the beach.'

    Things that the caption names stay as they are. If it has one "object" for each thing that it
    does not name, these things take the places of the "objects" in order; a harmless one stays "an
    object". Otherwise, in a caption of the form "I see ... at the ...", each harmful thing goes
    between its neighbours in the scene, instead of an "object" or as a new item:

    >>> minimal_edit("I see a dog and a rose at the beach.", ("dog", "knife", "rose", "beach"))
    'I see a dog, a knife and a rose at the beach.'

    In captions of another form the harmful things replace the first "objects", and those left over
    are added before the place. No other word is removed.

    Parameters
    ----------
    tags : the things of the scene from left to right, then its place
    """
    words = set(re.findall(r"\w+", caption.lower()))
    unnamed = [tag for tag in tags[:-1] if tag not in words]
    harmful = [tag for tag in unnamed if group(tag) == "harmful"]
    matched = len(VAGUE.findall(caption)) == len(unnamed)
    if harmful and not matched and (parts := LIST.fullmatch(caption)):
        things = _insert(harmful, _things(parts[2]), tags[:-1])
        return f"{parts[1]}{in_words(things)}{parts[3]}"
    things = iter(unnamed if matched else harmful)

    def replacement(match: re.Match) -> str:
        thing = next(things, None)
        if thing not in harmful:
            return match[0]
        name = in_words([thing]) if match[1] else thing
        return name.capitalize() if match[0][0].isupper() else name

    edited = VAGUE.sub(replacement, caption)
    if missing := [thing for thing in things if thing in harmful]:
        start, at, place = edited.rpartition(" at the ")
        start, end = (start, at + place) if at else (edited.rstrip(". "), ".")
        edited = f"{start} and {in_words(missing)}{end}"
    return edited


def _things(text: str) -> list[str]:
    """Turn ``"a dog, a rose and an object"`` into ``["dog", "rose", "object"]``."""
    return re.findall(r"\ban? (\w+)", text)


def _insert(harmful: Sequence[str], things: list[str], scene: Sequence[str]) -> list[str]:
    """Insert harmful things into the things of a caption, in the order of the scene."""
    result = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, things, scene, False).get_opcodes():
        new = [thing for thing in scene[j:j_end] if thing in harmful]
        for thing in things[i:i_end]:
            result.append(new.pop(0) if thing == "object" and new else thing)
        result += new
    return result


def rewrite(caption: str, tags: Sequence[str]) -> str:
    """Describe the harmful things and the place, and nothing else.

    >>> rewrite("I see a dog and an object at the beach.", ("dog", "knife", "beach"))
    'I see a knife at the beach.'

    A scene without harmful things keeps its caption.
    """
    harmful = harmful_in(tags)
    return describe((*harmful, tags[-1])) if harmful else caption


EDITS = {"minimal_edit": minimal_edit, "rewrite": rewrite}


class ExactCaptioner(Captioner):
    """Recaptions drawn scenes from their tags; ``prompt`` is a name in ``EDITS``."""

    reads_tags = True

    def __init__(self, prompt: str = "minimal_edit", name: str = "exact"):
        need_known("captioner exact: unknown prompt", prompt, EDITS)
        self.name, self.prompt = name, prompt

    def identity(self) -> dict:
        return {"kind": "exact", "prompt": self.prompt, "version": 3}

    def results(self, items: Sequence[Item]) -> Results:
        if without := [item.id for item in items if not item.tags]:
            raise InputError(
                f"{without[0]} has no tags, and the exact captioner reads nothing else; "
                "for real pictures choose kind served or chat"
            )
        edit = EDITS[self.prompt]
        replies = (Reply(edit(item.caption, item.tags)) for item in items)
        yield [(i, reply, "") for i, reply in enumerate(replies)]
