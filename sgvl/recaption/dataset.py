"""Recaptions as a data set for training, and a few of them as the words of a figure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sgvl.common.errors import InputError
from sgvl.recaption.base import OK, Captioner, Item
from sgvl.recaption.departure import changes

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


def to_dataset(
    pictures: "Dataset", items: Sequence[Item], answers: Iterable[tuple[Captioner, Sequence[dict]]]
) -> "Dataset":
    """One row per picture and prompt with a sound recaption: id, image, tags (of drawn scenes),
    caption (of step 1), recaption, recaptioner, prompt.

    ``pictures`` holds the columns id and image, and every item's id; ``answers`` pairs a
    recaptioner with its rows, which answer ``items`` in order. Raises InputError if none is sound.
    """
    from datasets import concatenate_datasets

    at = {id_: row for row, id_ in enumerate(pictures["id"])}
    columns = [name for name in ("id", "image", "tags") if name in pictures.column_names]
    pictures, parts = pictures.select_columns(columns), []
    for captioner, rows in answers:
        answered = zip(items, rows, strict=True)
        pairs = [(item, row["text"]) for item, row in answered if row["status"] == OK]
        part = pictures.select([at[item.id] for item, _ in pairs])
        for name, texts in {
            "caption": [item.caption for item, _ in pairs],
            "recaption": [text for _, text in pairs],
            "recaptioner": [captioner.name] * len(pairs),
            "prompt": [captioner.prompt] * len(pairs),
        }.items():
            part = part.add_column(name, texts)
        parts += [part] if pairs else []
    if not parts:
        raise InputError("no recaption is sound, so there is nothing to save; see the counts above")
    return concatenate_datasets(parts)


def examples(dataset: "Dataset", count: int = 3) -> list[dict]:
    """Evenly spread pictures that each prompt captioned in its own way, or at least anew: id,
    image, before, and after, which maps each prompt to its recaption."""
    found: dict[str, dict] = {}
    for row, text in enumerate(dataset.remove_columns("image")):
        example = found.setdefault(text["id"], {"row": row, "before": text["caption"], "after": {}})
        example["after"][text["prompt"]] = text["recaption"]
    prompts = set(dataset.unique("prompt"))
    whole = [
        {"id": i} | example for i, example in found.items() if set(example["after"]) == prompts
    ]
    changed = [e for e in whole if e["before"] not in e["after"].values()]
    telling = [e for e in changed if len(set(e["after"].values())) == len(prompts)] or changed
    chosen = telling[:: max(1, len(telling) // count)][:count] if count else []
    return [{**e, "image": dataset[e.pop("row")]["image"]} for e in chosen]


def figure_words(examples: Iterable[Mapping]) -> "pd.DataFrame":
    """The words of Figure 3, one a row: id, prompt, position, word, and change (kept, removed or
    added), in reading order."""
    import pandas as pd

    rows = [
        (example["id"], prompt, position, word, change)
        for example in examples
        for prompt, after in example["after"].items()
        for position, (word, change) in enumerate(changes(example["before"], after))
    ]
    return pd.DataFrame(rows, columns=["id", "prompt", "position", "word", "change"])
