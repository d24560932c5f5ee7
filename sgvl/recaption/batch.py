"""Captioning many pictures: resumed, counted, and priced before the first call."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgvl.common.errors import InputError
from sgvl.judges.ask import REPLY, Request, ask_missing, every_request_fails
from sgvl.judges.records import Records
from sgvl.models.reply import Reply
from sgvl.recaption.base import FAILED, STATUSES, Captioner, Item, read

if TYPE_CHECKING:
    import pandas as pd

LETTERS = 4  # a token, as a rule of thumb for English
GROWTH = 1.25  # of a caption that gets its details back (ours: an edit keeps its draft)


def caption_all(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    progress: Callable[[int, int], object] | None = None,
    dry_run: bool = False,
) -> list[dict]:
    """Caption every item, asking only for what ``path`` does not hold yet.

    Parameters
    ----------
    path : JSONL file in which replies are stored as they come, found again by the picture's pixels,
        the caption to be changed and the captioner's identity (model, prompt, settings)
    progress : called with how many are settled, and of how many
    dry_run : ask nothing

    Returns
    -------
    list of dict
        One per item, in order: id, status, text, reason, reply (see ``read``). What failed (a
        time-out, an HTTP error after its retries) is not stored, so the next run asks again.

    Raises
    ------
    InputError
        If the server is down or refuses the key, and if 20 requests in a row fail, or all there
        are; finished replies are on disk by then.
    """
    with Records(path, captioner.identity(), REPLY) as records:
        requests = [_request(captioner, item) for item in items]
        errors = {}
        if not dry_run:
            errors = ask_missing(captioner.name, records, requests, captioner.results, progress)
        rows = [_row(request, records, errors) for request in requests]
    if errors and all(row["status"] == FAILED for row in rows):
        raise InputError(every_request_fails(captioner.name, rows[-1]["reason"], path))
    return rows


def estimate(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    price_in: float = 0.0,
    price_out: float = 0.0,
    caption_tokens: int = 200,
) -> dict:
    """Estimate what ``caption_all`` would still ask for and what that would cost; ask nothing.

    Parameters
    ----------
    price_in, price_out : per million tokens of requests and of replies
    caption_tokens : length of a caption that is not written yet

    Returns
    -------
    dict
        captioner, prompt, calls, stored, prompt_tokens, completion_tokens, cost, and cost_at_most,
        for replies that all end at their limit. Tokens are estimated at four letters each.
    """
    with Records(path, captioner.identity(), REPLY) as records:
        requests = {r.key: r.content for r in (_request(captioner, item) for item in items)}
        missing = [item for key, item in requests.items() if records.get(*key) is None]
    texts = [(item, text) for item in missing if (text := captioner.request(item))]
    before = after = 0
    for item, text in texts:
        first = captioner.prompt == "caption"
        known = _tokens(item.caption) if item.caption else caption_tokens
        before += _tokens(text) + captioner.image_tokens
        before += 0 if first or item.caption else caption_tokens
        after += min(captioner.max_tokens, known if first else math.ceil(GROWTH * known))
    cost = (before * price_in + after * price_out) / 1e6
    longest = captioner.max_tokens * len(texts)
    return {
        "captioner": captioner.name,
        "prompt": captioner.prompt,
        "calls": len(texts),
        "stored": len(items) - len(missing),
        "prompt_tokens": before,
        "completion_tokens": after,
        "cost": round(cost, 2),
        "cost_at_most": round((before * price_in + longest * price_out) / 1e6, 2),
    }


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """Count the rows of each status; every status is listed."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES}


def left_out(answers: Sequence[tuple[Captioner, Sequence[dict]]]) -> "pd.DataFrame":
    """List the items without a sound caption: id, status, reason, reply, prompt."""
    import pandas as pd

    tables = [
        pd.DataFrame(rows, columns=["id", "status", "reason", "reply"]).assign(prompt=c.prompt)
        for c, rows in answers
    ]
    return pd.concat(tables).query("status != 'ok'")


def _tokens(text: str) -> int:
    return math.ceil(len(text) / LETTERS)


def _request(captioner: Captioner, item: Item) -> Request:
    """Identify a request by the picture and by what else the captioner reads of the item."""
    read_too = [item.caption, list(item.tags) if captioner.reads_tags else []]
    digest = hashlib.sha256(json.dumps(read_too).encode()).hexdigest()
    return Request(item.id, captioner.prompt, item.digest, digest, item)


def _row(request: Request, records: Records, errors: dict) -> dict:
    if stored := records.get(*request.key):
        reply = Reply(stored["reply"], stored["finish"])
    else:
        reply = Reply("", error=errors.get(request.key, "not asked"))
    return {"id": request.id} | read(reply)._asdict() | {"reply": reply.text}
