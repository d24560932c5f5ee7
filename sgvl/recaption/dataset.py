"""Recaptions as a data set for training, and a few of them as the words of Figure 3."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sgvl.common.errors import InputError
from sgvl.recaption.base import OK, Captioner, Item, items
from sgvl.recaption.departure import changes

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


def distinct(sets: Mapping[str, "Dataset"]) -> tuple["Dataset", list[Item], "pd.DataFrame"]:
    """Join the pictures of several sets that can be read, each once by its pixels.

    Parameters
    ----------
    sets : by name; their rows have id, image and, for drawn scenes, tags

    Returns
    -------
    tuple
        The pictures: id (after the name of its set, if there are several), image and, if all are
        drawn, tags. Their items, in the same order. And counts by set: rows, those whose picture
        cannot be read, those that repeat an earlier picture, and pictures.

    Raises
    ------
    InputError
        If no picture can be read.
    """
    import pandas as pd
    from datasets import concatenate_datasets

    from sgvl.data import arrow, store

    drawn = all(map(store.has_tags, sets.values()))
    columns, parts, counts = ["image", *["tags"] * drawn], [], {}
    for name, dataset in sets.items():
        usable = store.usable(dataset)
        ids = [id_ if len(sets) == 1 else f"{name}/{id_}" for id_ in usable["id"]]
        parts.append(arrow.join(usable.select_columns(columns), {"id": ids}))
        counts[name] = {"rows": len(dataset), "unreadable": len(dataset) - len(usable)}
    joined = concatenate_datasets(parts)
    first: dict[str, tuple[int, Item]] = {}
    for place, item in enumerate(items(joined)):
        first.setdefault(item.digest, (place, item))
    if not first:
        raise InputError(f"{', '.join(sets)}: no picture can be read; see their status in 01_data")
    places, kept = map(list, zip(*first.values(), strict=True))
    starts = 0
    for part, count in zip(parts, counts.values(), strict=True):
        own = sum(starts <= place < starts + len(part) for place in places)
        count |= {"repeated": len(part) - own, "pictures": own}
        starts += len(part)
    return joined.select(places), kept, pd.DataFrame(counts).T


def to_dataset(
    pictures: "Dataset", items: Sequence[Item], answers: Iterable[tuple[Captioner, Sequence[dict]]]
) -> "Dataset":
    """Build the training set of stage 1: one row per picture and prompt with a usable recaption.

    Parameters
    ----------
    pictures : with the columns id, image and, for drawn scenes, tags
    items : pictures among these with their captions of step 1
    answers : each recaptioner with the rows that ``caption_all`` returned for ``items``

    Returns
    -------
    Dataset
        Columns id, image, tags (of drawn scenes), caption (of step 1), recaption, recaptioner,
        prompt.

    Raises
    ------
    InputError
        If no recaption is usable.
    """
    from datasets import concatenate_datasets

    from sgvl.data import arrow

    position = {id_: row for row, id_ in enumerate(pictures["id"])}
    columns = [name for name in ("id", "image", "tags") if name in pictures.column_names]
    pictures, parts = pictures.select_columns(columns), []
    for captioner, rows in answers:
        pairs = [
            (item, row["text"])
            for item, row in zip(items, rows, strict=True)
            if row["status"] == OK
        ]
        columns = {
            "caption": [item.caption for item, _ in pairs],
            "recaption": [text for _, text in pairs],
            "recaptioner": [captioner.name] * len(pairs),
            "prompt": [captioner.prompt] * len(pairs),
        }
        places = [position[item.id] for item, _ in pairs]
        parts += [arrow.join(pictures, columns, places)] if pairs else []
    if not parts:
        raise InputError("no recaption is usable: there is nothing to save; see the counts above")
    return concatenate_datasets(parts)


def examples(dataset: "Dataset", count: int = 3) -> list[dict]:
    """Choose evenly spread pictures whose caption every prompt changed, if possible differently.

    Parameters
    ----------
    dataset : as ``to_dataset`` returns it

    Returns
    -------
    list of dict
        At most ``count``, each with id, image, before (the caption), and after ({prompt:
        recaption}).
    """
    by_id: dict[str, dict] = {}
    for row, texts in enumerate(dataset.remove_columns("image")):
        new = {"id": texts["id"], "row": row, "before": texts["caption"], "after": {}}
        example = by_id.setdefault(texts["id"], new)
        example["after"][texts["prompt"]] = texts["recaption"]
    prompts = set(dataset.unique("prompt"))
    changed = [
        example
        for example in by_id.values()
        if set(example["after"]) == prompts and example["before"] not in example["after"].values()
    ]
    differing = [e for e in changed if len(set(e["after"].values())) == len(prompts)]
    candidates = differing or changed
    chosen = candidates[:: max(1, len(candidates) // count)][:count] if count else []
    for example in chosen:
        example["image"] = dataset[example.pop("row")]["image"]
    return chosen


def figure_words(examples: Iterable[Mapping]) -> "pd.DataFrame":
    """Split examples into the words of Figure 3, in reading order.

    Returns
    -------
    pandas.DataFrame
        One row per word: id, prompt, position, word, change ("kept", "removed" or "added").
    """
    import pandas as pd

    rows = [
        (example["id"], prompt, position, word, change)
        for example in examples
        for prompt, after in example["after"].items()
        for position, (word, change) in enumerate(changes(example["before"], after))
    ]
    return pd.DataFrame(rows, columns=["id", "prompt", "position", "word", "change"])
