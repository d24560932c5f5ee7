"""Rows of drawn scenes: the picture, its tags, and how it was drawn."""

from io import BytesIO

from datasets import Dataset, Features, Image, List, Value

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


def row(scene: Scene, **fields) -> dict:
    """Make the row of a scene: picture, tags, smoothed boxes and how many of them are empty."""
    fills = [list(map(int, fill)) for fill in scene.fills]
    centres = [((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2) for t in scene.things]
    filled = [any(f[0] < x < f[2] and f[1] < y < f[3] for x, y in centres) for f in fills]
    drawn = {"image": encoded(render(scene)), "tags": list(scene.tags), "style": scene.style}
    return drawn | {"fills": fills, "empty": filled.count(False)} | fields


def encoded(image) -> dict:
    """Encode a picture as PNG, with light compression: three times as fast, a little larger."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}


def table(records: list[dict], **more) -> Dataset:
    """Make a data set of rows; ``more`` are the features of columns that only this set has."""
    return Dataset.from_list(records, features=features(**more))
