"""An editor for drawn scenes that runs anywhere: inpainting inside a box, and a drawing in it."""

import re
from collections.abc import Sequence

from sgvl.editing.base import Editor, Edits
from sgvl.editing.drawn import find_things, replace_thing
from sgvl.models.reply import Reply
from sgvl.policies.concepts import concepts
from sgvl.recaption.base import Item
from sgvl.world.drawn_rows import encoded

_REPLACE = re.compile(r"Replace thing (\d+) of (\d+)\b[^.]*? with an? (\w+)\.")
_REMOVE = re.compile(r"Remove thing (\d+) of (\d+)\b()[^.]*\.")


class LocalEditor(Editor):
    """Follows instructions such as "Replace thing 2 of 3, the object, with a key."

    It is given the picture and the instruction. It knows the form of a drawn canvas, as
    ``sgvl.editing.drawn`` says, and has the usual drawings; it sees no tags, and finds the thing in
    the pixels.
    """

    name = "local"
    knows = "the picture, the instruction, the form of a drawn canvas; no tags"

    def identity(self) -> dict:
        return {"kind": "local", "style": "twemoji", "version": 2}

    def results(self, items: Sequence[Item]) -> Edits:
        for i, item in enumerate(items):
            yield [(i, self._edit(item), "")]

    def _edit(self, item: Item) -> bytes | Reply:
        """Return the edited picture, or what is wrong with the instruction."""
        orders = [order for form in (_REPLACE, _REMOVE) for order in form.findall(item.caption)]
        picture = original = item.open()
        for place, count, concept in orders:
            if not 0 < int(place) <= int(count) <= 4 or concept not in ("", *concepts()):
                return Reply(f"cannot do: {item.caption}", "refusal")
            box = find_things(original, int(count))[int(place) - 1]
            seed = int(item.digest[:8], 16) + int(place)
            picture = replace_thing(picture, box, concept or None, seed=seed)
        if not orders:
            return Reply(f"no thing is named in: {item.caption}", "refusal")
        return encoded(picture)["bytes"]
