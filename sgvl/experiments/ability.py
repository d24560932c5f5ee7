"""What a model can do beside judging: say what a picture shows, and answer plain questions.

Both are measured before and after training, with the same pictures and the same words.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from sgvl.data import Sample
from sgvl.data.images import image_digest, load_image
from sgvl.judges.records import Records
from sgvl.policies.concepts import PLACES, group
from sgvl.text import multiple_choice
from sgvl.text.prompts import CAPTION
from sgvl.world.questions import answer_in

COLUMNS = ["judge", "id", "task", "category", "given", "right", "unparseable"]
BATCH = 32  # published questions that are in memory at a time, and lost with a run that is killed


def naming(judge, samples: Sequence[Sample], prompt: str = CAPTION[0]) -> pd.DataFrame:
    """One row a drawn thing: id, thing, group, caption, and whether the caption names it."""
    captions = judge.ask([s.image for s in samples], [prompt] * len(samples))
    rows = []
    for sample, caption in zip(samples, captions, strict=True):
        words = f" {caption.replace(',', ' ').replace('.', ' ')} "
        for thing in sorted(set(sample.tags) - set(PLACES)):
            rows.append((sample.id, thing, group(thing), caption, f" {thing} " in words))
    return pd.DataFrame(rows, columns=["id", "thing", "group", "caption", "right"])


def of_judges(
    judges: Iterable, sets: Sequence[Dataset], convention: str, folder: Path
) -> pd.DataFrame:
    """What ``answering`` returns for every judge that speaks and every set, with a column judge."""
    frames = []
    for judge in (judge for judge in judges if hasattr(judge, "ask")):
        records = folder / f"{judge.name.replace('/', '_')}.general.jsonl"
        found = [answering(judge, rows, convention, records) for rows in sets]
        frames += [answers.assign(judge=judge.name)[COLUMNS] for answers in found]
    return pd.concat(frames) if frames else pd.DataFrame(columns=COLUMNS)


def answering(
    judge, rows: Dataset, convention: str = "vlmevalkit", records: Path | None = None
) -> pd.DataFrame:
    """Ask questions: one row each with id, task, category, given, right and unparseable.

    Questions about drawn scenes have four tasks. Those of ``sgvl.data.sources.general`` are one
    task, put and read under a convention of ``sgvl.text.multiple_choice``; replies are kept in the
    file ``records``, and what it holds is not asked again.
    """
    if "options" in rows.column_names:
        return _published(judge, rows, convention, records)
    replies = judge.ask(list(rows["image"]), list(rows["question"]))
    given = [answer_in(reply) for reply in replies]
    right = [g == a for g, a in zip(given, rows["answer"], strict=True)]
    told = {"id": rows["id"], "task": rows["category"], "category": "", "given": given}
    return pd.DataFrame(told | {"right": right, "unparseable": [not g for g in given]})


def _published(judge, rows: Dataset, convention: str, path: Path) -> pd.DataFrame:
    replies: list[str] = []
    with Records(path, judge.identity(), fields=["reply"]) as records:
        for start in range(0, len(rows), BATCH):
            part = rows.select(range(start, min(start + BATCH, len(rows))))
            replies += _replies(judge, list(part), convention, records)
    found = []
    for row, reply in zip(rows.remove_columns("images"), replies, strict=True):
        options, name = multiple_choice.lettered(row["options"]), row["set"]
        right = multiple_choice.is_correct(reply, options, row["answer"], convention, name)
        told = {"id": row["id"], "task": name, "category": row["category"], "given": reply}
        found.append(told | {"right": right is True, "unparseable": right is None})
    return pd.DataFrame(found)


def _replies(judge, rows: Sequence[dict], convention: str, records: Records) -> list[str]:
    """The reply to each question: from the records, or asked for now and kept there."""
    abouts, new = [], {}
    for row in rows:
        options = multiple_choice.lettered(row["options"])
        text = multiple_choice.build_prompt(
            row["question"], options, row["answer"], convention, row["set"]
        )
        images = [load_image(file["bytes"], name=row["id"]) for file in row["images"]]
        shown = " ".join(map(image_digest, images))
        abouts.append((shown, hashlib.sha256(text.encode()).hexdigest()))
        if records.get(*abouts[-1]) is None:
            new[abouts[-1]] = row["id"], images, text
    _, images, texts = zip(*new.values(), strict=True) if new else ([], [], [])
    records.append(
        {"key": records.key(*about), "id": new[about][0], "prompt": convention, "reply": reply}
        for about, reply in zip(new, judge.ask(images, texts), strict=True)
    )
    return [records.get(*about)["reply"] for about in abouts]
