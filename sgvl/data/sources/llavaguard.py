"""LlavaGuard's data (AIML-TUDA/LlavaGuard, gated): ratings under policies, and URLs for pictures.

The pictures are not in the repository. Some are files of another gated one (AIML-TUDA/smid), the
rest lie about the web, where links die: nobody has all of them, so every score belongs to a
coverage. The same picture stands in several rows. In an id, the ending ``_v2`` marks a policy that
exempts the picture's own category, so that it turns safe; ``_v3`` one that exempts others.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from datasets import Dataset, Features, Image

from sgvl.common.errors import InputError, need_known
from sgvl.common.paths import DOWNLOADS
from sgvl.data.real_rows import (
    OK,
    RATINGS,
    complain,
    labelled,
    need_columns,
    picture_status,
    translated,
    warn_of_counts,
)
from sgvl.data.sources import hub
from sgvl.data.sources.fetch import Fetched, fetch_all
from sgvl.policies.policy import Policy

REPO = "AIML-TUDA/LlavaGuard"
COLUMNS = ("id", "url", "category", "rating", "policy")
ROWS = {"train": 4571, "test": 824}  # the LlavaGuard paper's appendix on data
# A published policy is the whole prompt; the policy ends where the authors' own questions begin.
QUESTIONS = "Assessment Steps:"
ON_THE_HUB = re.compile(r"https?://[^/]+/datasets/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")


def load(split: str = "test", revision: str = "main", pause: float = 0.5) -> Dataset:
    """A split (test or train) in the record shape; ``pair`` is the URL, one for each picture.

    Pictures are kept in ``paths.DOWNLOADS``, and a later call asks only for what failed; ``pause``
    lies between two requests to one host, in seconds. Warns where the split is not of its published
    size. Raises InputError as ``hub.download`` does, for either repository, and for columns or
    ratings that are not as published, naming each row.
    """
    need_known("llavaguard: split", split, ROWS)
    source, files = hub.download(REPO, revision, f"*{split}*.csv")
    rows = pd.concat([_read(file, source) for file in files], ignore_index=True)
    where = f"{source}, {split}"
    warn_of_counts(source, {split: len(rows)}, {split: ROWS[split]})
    labels = translated(list(rows["rating"]), RATINGS, "rating", where)
    texts = [text.replace("<image>", "").partition(QUESTIONS)[0].strip() for text in rows["policy"]]
    complain(f"{where}, row {row}: an empty policy" for row, text in enumerate(texts) if not text)
    fetched = _pictures(rows["url"], pause)
    found = [fetched[url] for url in rows["url"]]
    files = [{"image": {"bytes": f.path.read_bytes()} if f.path else None} for f in found]
    return labelled(
        Dataset.from_list(files, features=Features({"image": Image(decode=False)})),
        where,
        ids=list(rows["id"]),
        source=source,
        split=split,
        policies=[Policy(name="llavaguard", title="Policy", text=text) for text in texts],
        labels=labels,
        categories=list(rows["category"]),
        pairs=list(rows["url"]),
        status=[f.status for f in found],
    )


def _read(file: Path, source: str) -> pd.DataFrame:
    try:
        # Nothing is a missing value: a category is called "NA: None applying".
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{source}: {file.name} is no table: {error}") from None
    need_columns(list(rows), COLUMNS, f"{source}, {file.name}")
    return rows


def _pictures(urls: Iterable[str], pause: float) -> dict[str, Fetched]:
    """Pictures on the hub through its client, which has the token; all others from the web."""
    urls = list(dict.fromkeys(urls))
    on_the_hub = {url: match for url in urls if (match := ON_THE_HUB.fullmatch(url))}
    found = {url: _from_hub(*match.groups()) for url, match in on_the_hub.items()}
    elsewhere = [url for url in urls if url not in found]
    return found | fetch_all(elsewhere, DOWNLOADS / "llavaguard", pause=pause)


def _from_hub(repo: str, revision: str, name: str) -> Fetched:
    path = hub.file(repo, revision, name)
    if path is None:
        return Fetched("http_404")
    status = picture_status({"bytes": path.read_bytes()})
    return Fetched(status, path if status == OK else None)
