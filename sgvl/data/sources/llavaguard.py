"""LlavaGuard's data (AIML-TUDA/LlavaGuard, gated): ratings under policies, and URLs of pictures.

The repository holds no pictures. Some are files of another gated one (AIML-TUDA/smid), the others
are on the web, where links die: no copy is complete, so every score belongs to a coverage. The same
picture is in several rows. An id that ends in ``_v2`` has a policy that exempts the picture's own
category, so that it turns safe; ``_v3`` has one that exempts other categories.
"""

from collections.abc import Iterable

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, need_known, raise_any
from sgvl.common.paths import DOWNLOADS
from sgvl.common.progress import printer
from sgvl.data import arrow, real_rows
from sgvl.data.sources import hub
from sgvl.data.sources.fetch import Fetched, fetch_all
from sgvl.policies.policy import Policy

REPO = "AIML-TUDA/LlavaGuard"
COLUMNS = ("id", "url", "category", "rating", "policy")
WHY = "rationale"  # a column that a later version may have
ROWS = {"train": 4571, "test": 824}  # the LlavaGuard paper's appendix on data
# A published policy is the whole prompt; the policy ends where the authors' own steps begin.
STEPS = "Assessment Steps:"


def load(
    split: str = "test", revision: str = "main", pause: float = 0.5, private: bool = False
) -> Dataset:
    """Load a split in the record shape; ``pair`` is the URL, so one for each picture.

    Pictures are kept in ``paths.DOWNLOADS``; a later call downloads only those that failed. Warns
    of a split that does not have its published size.

    Parameters
    ----------
    split : test or train
    revision : branch, tag or commit of the table
    pause : seconds between two requests to one host
    private : as in ``fetch_all``

    Raises
    ------
    InputError
        As ``hub.download`` does, for either repository, and for columns or ratings that are not as
        published, row by row.
    """
    need_known("llavaguard: split", split, ROWS)
    source, files = hub.download(REPO, revision, f"*{split}*.csv")
    table = pd.concat([_read(file, source) for file in files.values()])
    rationales = table[WHY].fillna("").tolist() if WHY in table else None
    rows = Dataset.from_pandas(table, preserve_index=False)
    where = f"{source}, {split}"
    real_rows.warn_of_counts(source, {split: len(rows)}, {split: ROWS[split]})
    labels = real_rows.translate(rows, "rating", real_rows.RATINGS, where)
    policies = [_policy(text) for text in rows["policy"]]
    empty = [row for row, policy in enumerate(policies) if not policy.text]
    raise_any(f"{where}, row {row}: an empty policy" for row in empty)
    urls = list(rows["url"])
    fetched = _pictures(urls, pause, private)
    results = [fetched[url] for url in urls]
    places = {path: k for k, path in enumerate(dict.fromkeys(r.path for r in results))}
    return real_rows.make_rows(
        arrow.write_files(places),
        where,
        ids=list(rows["id"]),
        source=source,
        split=split,
        policies=policies,
        labels=labels,
        rationales=rationales,
        categories=list(rows["category"]),
        pairs=urls,
        status=[result.status for result in results],
        places=[places[result.path] for result in results],
    )


def _policy(published: str) -> Policy:
    """Split a published prompt into the policy and the authors' steps; the picture comes last."""
    text, mark, steps = published.replace("<image>", "").lstrip().partition(STEPS)
    steps = text[len(text.rstrip()) :] + mark + steps if mark else ""
    return Policy(name="llavaguard", title="Policy", text=text.rstrip(), steps=steps)


def _read(file, source: str) -> pd.DataFrame:
    try:
        # keep_default_na: "NA: None applying" is a category, not a missing value.
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{source}: {file.name} is no table: {error}") from None
    real_rows.need_columns(list(rows), COLUMNS, f"{source}, {file.name}")
    return rows


def _pictures(urls: Iterable[str], pause: float, private: bool) -> dict[str, Fetched]:
    """Download pictures on the hub through its client, which has the token; others from the web."""
    urls = list(dict.fromkeys(urls))
    files = {url: file for url in urls if (file := hub.parse_url(url))}
    results, say = {}, printer(every=60)
    for url, file in files.items():
        results[url] = _from_hub(*file)
        say(len(results), len(files))
    elsewhere = [url for url in urls if url not in results]
    return results | fetch_all(elsewhere, DOWNLOADS / "llavaguard", pause=pause, private=private)


def _from_hub(repo: str, revision: str, name: str) -> Fetched:
    path = hub.file(repo, revision, name)
    if path is None:
        return Fetched("http_404")
    status = real_rows.picture_status({"bytes": path.read_bytes()})
    return Fetched(status, path if status == real_rows.OK else None)
