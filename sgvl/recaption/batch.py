"""Captioning many pictures: an estimate before the first request, resuming, counts by status."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgvl.common.errors import InputError
from sgvl.common.spool import Spool
from sgvl.judges.ask import REPLY, Request, ask_missing, every_request_fails, missing
from sgvl.judges.records import Records
from sgvl.models.reply import Reply
from sgvl.recaption.base import FAILED, OK, STATUSES, Captioner, Item, parse_caption
from sgvl.text.prompts import LETTERS_PER_TOKEN, RECAPTION

if TYPE_CHECKING:
    import pandas as pd

TOGETHER = 4_096  # items whose requests are in memory at a time
# For estimates; our assumptions.
CAPTION_TOKENS = 200  # of a caption that is not written yet
GROWTH = 1.25  # length of a recaption over that of its caption


def caption_all(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    progress: Callable[[int, int], object] | None = None,
    dry_run: bool = False,
    worker: tuple[int, int] = (0, 1),
) -> Spool:
    """Caption every item; request only what ``path`` does not hold yet.

    Parameters
    ----------
    path : JSONL file in which every reply is stored as it comes. A reply is found again by the
        picture's pixels, the caption of step 1 and the captioner's identity (model, prompt,
        settings).
    progress : called with the number of finished requests, and of all
    dry_run : send no request
    worker : (k, n): number k, from 0, of n workers that share the pictures, each with a file of its
        own beside ``path``; what falls to others is "not asked", unless it is stored

    Returns
    -------
    Spool
        A sequence of dicts, whose text stays on the disk: one per item, in order, with id, the
        fields of ``ParsedCaption``, and reply (the raw text).
        Failed requests (a time-out, an HTTP error after its retries) are not stored, so the next
        run sends them again.

    Raises
    ------
    InputError
        If the server is down or refuses the key, if 20 requests in a row fail, or if all of them
        do. Finished replies are on disk by then.
    """
    rows, done, works, error = Spool(), 0, False, ""
    with Records(path, captioner.identity(), REPLY, worker) as records:

        def lacks(item: Item) -> bool:
            own = records.takes(item.digest) and not dry_run
            return own and not records.holds(*_request(captioner, item).key)

        def settled(number: int, _: int) -> None:
            progress(done + number, total)

        total = sum(map(lacks, items)) if progress else 0
        for start in range(0, len(items), TOGETHER):
            part = items[start : start + TOGETHER]
            own = [_request(captioner, item) for item in part if lacks(item)]
            say = settled if progress else None
            errors = ask_missing(captioner.name, records, own, captioner.results, say)
            new = [_row(_request(captioner, item), records, errors) for item in part]
            rows.extend(new)
            done += len(own)
            works |= any(row["status"] != FAILED for row in new)
            error = next(reversed(errors.values()), error)
    if error and not works:
        raise InputError(every_request_fails(captioner.name, error, path))
    return rows


def estimate(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    price_in: float = 0.0,
    price_out: float = 0.0,
    worker: tuple[int, int] = (0, 1),
) -> dict:
    """Estimate the requests that ``caption_all`` would still send, and their cost; send none.

    Parameters
    ----------
    price_in, price_out : for a million tokens of requests, and of replies
    worker : as for ``caption_all``

    Returns
    -------
    dict
        captioner, prompt, calls (requests to send), stored (items whose reply is stored),
        prompt_tokens, completion_tokens, cost, and cost_at_most (every reply ends at its limit).
        Tokens are estimated from the number of letters.
    """
    with Records(path, captioner.identity(), REPLY, worker) as records:
        requests = [_request(captioner, item) for item in items if records.takes(item.digest)]
        wanted = [request.content for request in missing(records, requests)]
    texts = [(item, text) for item in wanted if (text := captioner.request(item))]
    first = captioner.prompt not in RECAPTION  # no caption is in the request
    prompt_tokens = completion_tokens = 0
    for item, text in texts:
        length = _tokens(item.caption) if item.caption else CAPTION_TOKENS
        prompt_tokens += _tokens(text) + captioner.image_tokens
        prompt_tokens += 0 if first or item.caption else CAPTION_TOKENS
        length = length if first else math.ceil(GROWTH * length)
        completion_tokens += min(captioner.max_tokens, length)
    cost = (prompt_tokens * price_in + completion_tokens * price_out) / 1e6
    at_most = (prompt_tokens * price_in + captioner.max_tokens * len(texts) * price_out) / 1e6
    return {
        "captioner": captioner.name,
        "prompt": captioner.prompt,
        "calls": len(texts),
        "stored": len(requests) - len(wanted),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": round(cost, 2),
        "cost_at_most": round(at_most, 2),
    }


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """Count the rows of each status; a status without rows counts 0."""
    number = Counter(row["status"] for row in rows)
    return {status: number[status] for status in STATUSES}


def left_out(answers: Sequence[tuple[Captioner, Sequence[dict]]]) -> "pd.DataFrame":
    """List the items without a usable caption: id, status, reason, reply, prompt.

    ``answers`` pairs each captioner with the rows that ``caption_all`` returned for it.
    """
    import pandas as pd

    tables = [
        pd.DataFrame(rows, columns=["id", "status", "reason", "reply"]).assign(prompt=c.prompt)
        for c, rows in answers
    ]
    table = pd.concat(tables)
    return table[table["status"] != OK]


def _tokens(text: str) -> int:
    return math.ceil(len(text) / LETTERS_PER_TOKEN)


def _request(captioner: Captioner, item: Item) -> Request:
    """Build the request for an item: identified by its picture, its caption and, if read, tags."""
    words = [item.caption, list(item.tags) if captioner.reads_tags else []]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    return Request(item.id, captioner.prompt, item.digest, digest, item)


def _row(request: Request, records: Records, errors: dict) -> dict:
    if stored := records.get(*request.key):
        reply = Reply(stored["reply"], stored["finish"])
    else:
        reply = Reply("", error=errors.get(request.key, "not asked"))
    return {"id": request.id} | parse_caption(reply)._asdict() | {"reply": reply.text}
