"""Rows of drawn scenes: the picture, its tags, and how it was drawn."""

import os
from functools import lru_cache
from io import BytesIO

from datasets import Dataset, Features, Image, List, Value

from sgvl.common.errors import InputError
from sgvl.world.scenes import Scene, render


def features(**more) -> Features:
    """Return the features of drawn rows, with those of the columns that only this set has."""
    text = Value("string")
    return Features(
        {"id": text, "image": Image(), "source": text, "split": text, "category": text}
        | {"tags": List(text), "style": text}
        | {"fills": List(List(Value("int32"))), "empty": Value("int32")}
        | more
    )


def check_drawing() -> None:
    """Raise InputError in a run of published data alone, where SGVL_DRAWN is 0."""
    if os.environ.get("SGVL_DRAWN") == "0":
        raise InputError(
            "SGVL_DRAWN=0: this run is of published data alone, so no drawn row may be in it; "
            "name a published set for this role, or say `drawn: true` in 01_data"
        )


def row(scene: Scene, **fields) -> dict:
    """Make the row of a scene: picture, tags, smoothed boxes and how many of them are empty.

    Raises InputError as ``check_drawing`` does.
    """
    check_drawing()
    fills = [list(map(int, fill)) for fill in scene.fills]
    centres = [((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2) for t in scene.things]
    filled = [any(f[0] < x < f[2] and f[1] < y < f[3] for x, y in centres) for f in fills]
    drawn = {"image": dict(_picture(scene)), "tags": list(scene.tags), "style": scene.style}
    return drawn | {"fills": fills, "empty": filled.count(False)} | fields


@lru_cache(maxsize=1)  # the next row often has the same picture, under another policy
def _picture(scene: Scene) -> dict:
    return encoded(render(scene))


def encoded(image) -> dict:
    """Encode a picture as PNG, with light compression: three times as fast, a little larger."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}


def table(records: list[dict], **more) -> Dataset:
    """Make a data set of rows; ``more`` are the features of columns that only this set has."""
    return Dataset.from_list(records, features=features(**more))
