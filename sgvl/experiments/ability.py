"""Abilities beside judging: naming what a picture shows, and answering plain questions.

Both are measured before and after training, with the same pictures and the same requests.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd
from datasets import Dataset

from sgvl.data import Sample, store
from sgvl.data.images import load_image
from sgvl.policies.concepts import PLACES, group
from sgvl.text import multiple_choice
from sgvl.text.prompts import CAPTION
from sgvl.text.words import mentions
from sgvl.world.questions import answer_in

QUESTIONS = ["id", "task", "category", "given", "right", "unparseable"]
THINGS = ["id", "thing", "group", "caption", "right"]
ANY_TERM, MENTIONS = "any harmful term", "mentions a harmful term"  # thing and group of a picture

# Sends (sample, text) requests to one judge and returns its replies, as ``judges.ask_all`` does.
Ask = Callable[[Iterable], list[dict]]


def naming(ask: Ask, samples: Iterable[Sample], terms: Sequence[str] = ()) -> pd.DataFrame:
    """Ask for captions and check which things they name.

    A picture that is not drawn has no list of its things. It is one row, about whether its caption
    mentions any of ``terms``; without terms it has none.

    Returns
    -------
    DataFrame
        One row a thing: id, thing, group, caption, and whether the caption names it (right).
    """
    tags, rows = {}, []

    def requests() -> Iterator[tuple[Sample, str]]:
        for sample in samples:
            tags[sample.id] = sample.tags
            yield sample, CAPTION[0]

    captions = {row["id"]: row["reply"] for row in ask(requests())}
    for id_, caption in captions.items():  # without those of other workers
        if terms and not tags[id_]:
            rows.append((id_, ANY_TERM, MENTIONS, caption, mentions(caption, terms)))
        for thing in sorted(set(tags[id_]) - set(PLACES)):
            rows.append((id_, thing, group(thing), caption, mentions(caption, [thing])))
    return pd.DataFrame(rows, columns=THINGS)


def answering(ask: Ask, rows: Dataset, convention: str = "vlmevalkit") -> pd.DataFrame:
    """Ask the questions of a set and check the replies.

    Questions about drawn scenes have four tasks. Those of ``sgvl.data.sources.general`` are one
    task, put and read under a convention of ``sgvl.text.multiple_choice``.

    Returns
    -------
    DataFrame
        One row a question: id, task, category, given, right, and unparseable (no answer was found
        in the reply).
    """
    check, requests = (
        (_check_published, _published_requests)
        if "options" in rows.column_names
        else (_check_drawn, _drawn_requests)
    )
    replies = {row["id"]: row["reply"] for row in ask(requests(rows, convention))}
    columns = [name for name in rows.column_names if name not in ("image", "images")]
    answers = [
        check(row, replies[row["id"]], convention)
        for row in rows.select_columns(columns)
        if row["id"] in replies
    ]
    return pd.DataFrame(answers, columns=QUESTIONS)


def _drawn_requests(rows: Dataset, convention: str) -> Iterator[tuple[Sample, str]]:
    questions = dict(zip(rows["id"], rows["question"], strict=True))
    return ((sample, questions[sample.id]) for sample in store.samples(rows))


def _check_drawn(row: dict, reply: str, convention: str) -> tuple:
    given = answer_in(reply)
    return row["id"], row["category"], "", given, given == row["answer"], not given


def _published_requests(rows: Dataset, convention: str):
    """Yield one request a question; its pictures are decoded when it is reached."""
    for row in rows:
        options = multiple_choice.lettered(row["options"])
        text = multiple_choice.build_prompt(
            row["question"], options, row["answer"], convention, row["set"]
        )
        images = [load_image(file["bytes"], name=row["id"]) for file in row["images"]]
        yield Sample(row["id"], images), text


def _check_published(row: dict, reply: str, convention: str) -> tuple:
    options = multiple_choice.lettered(row["options"])
    right = multiple_choice.is_correct(reply, options, row["answer"], convention, row["set"])
    return row["id"], row["set"], row["category"], reply, right is True, right is None
