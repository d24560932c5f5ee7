"""Asking a captioner: only for what is missing, with everything kept, and a price named before."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.judges.records import Records
from sgvl.models.reply import Reply
from sgvl.recaption.base import FAILED, STATUSES, Captioner, Item, read

# The answer as it came; its status is read from it anew each time.
FIELDS = ("reply", "finish")
PATIENCE = 20  # failures in a row that end a run
LETTERS = 4  # a token, as a rule of thumb for English
GROWTH = 1.25  # of a caption that gets its details back (ours: an edit keeps its draft)


def caption_all(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    progress: Callable[[int, int], object] | None = None,
    dry_run: bool = False,
) -> list[dict]:
    """A caption for every item, asking only for what ``path`` does not hold yet.

    ``path`` is a JSONL file in which answers are kept as they come, found again by the picture's
    pixels, the caption that is to be changed and the captioner's identity (model, prompt,
    settings). ``progress`` is called with how many are settled, and of how many. With ``dry_run``
    nothing is asked.

    Returns one dict per item, in order: id, status, text, reason, reply; ``read`` says what they
    are. What failed (a time-out, an HTTP error after its retries) is not kept, so the next run asks
    again. Raises InputError if the endpoint is down or refuses the key, and if ``PATIENCE``
    requests in a row fail, or all there are; finished answers are on disk by then.
    """
    with Records(path, captioner.identity(), FIELDS) as records:
        pending = _pending(captioner, items, records)
        failed = {}
        if pending and not dry_run:
            failed = _ask(captioner, pending, records, progress or (lambda done, total: None))
        rows = [_row(item, about, records, failed) for item, about in _abouts(captioner, items)]
    if failed and all(row["status"] == FAILED for row in rows):
        raise InputError(_trouble(captioner, path, rows[-1]["reason"]))
    return rows


def estimate(
    captioner: Captioner,
    items: Sequence[Item],
    path: str | Path,
    price_in: float = 0.0,
    price_out: float = 0.0,
    caption_tokens: int = 200,
) -> dict:
    """What ``caption_all`` would still ask for, and what that would cost; nothing is asked.

    ``price_in`` and ``price_out`` are per million tokens of prompts and of replies.
    ``caption_tokens`` is the length of a caption that is not written yet. Returns captioner,
    prompt, calls, stored, prompt_tokens, completion_tokens, cost, and cost_at_most, for replies
    that all end at their limit. Tokens are estimated at four letters each.
    """
    with Records(path, captioner.identity(), FIELDS) as records:
        pending = list(_pending(captioner, items, records).values())
    asked = [(item, text) for item in pending if (text := captioner.question(item))]
    before = after = 0
    for item, text in asked:
        first = captioner.prompt == "caption"
        known = _tokens(item.caption) if item.caption else caption_tokens
        before += _tokens(text) + captioner.image_tokens
        before += 0 if first or item.caption else caption_tokens
        after += min(captioner.max_tokens, known if first else math.ceil(GROWTH * known))
    cost = (before * price_in + after * price_out) / 1e6
    longest = captioner.max_tokens * len(asked)
    return {
        "captioner": captioner.name,
        "prompt": captioner.prompt,
        "calls": len(asked),
        "stored": len(items) - len(pending),
        "prompt_tokens": before,
        "completion_tokens": after,
        "cost": round(cost, 2),
        "cost_at_most": round((before * price_in + longest * price_out) / 1e6, 2),
    }


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """How many rows have each status, all statuses named."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES}


def _tokens(text: str) -> int:
    return math.ceil(len(text) / LETTERS)


def _abouts(captioner: Captioner, items: Sequence[Item]):
    return ((item, _about(captioner, item)) for item in items)


def _about(captioner: Captioner, item: Item) -> tuple[str, str]:
    """What a question is about: the picture, and what else is read of an item, as digests."""
    told = [item.caption, list(item.tags) if captioner.reads_tags else []]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return item.digest, digest


def _pending(captioner: Captioner, items: Sequence[Item], records: Records) -> dict:
    """What is to be asked, once each: {what it is about: item}."""
    lacking = {}
    for item, about in _abouts(captioner, items):
        if records.get(*about) is None:
            lacking.setdefault(about, item)
    return lacking


def _ask(captioner: Captioner, pending: dict, records: Records, progress: Callable) -> dict:
    """Ask for what is pending, store each answer as it comes, return the errors of the rest."""
    failed, in_a_row, done = {}, 0, 0
    with closing(captioner.answers(list(pending.values()))) as answers:
        for batch in answers:
            abouts = [_about(captioner, item) for item, _ in batch]
            records.append(
                {"key": records.key(*about), "id": item.id, "prompt": captioner.prompt}
                | {"reply": reply.text, "finish": reply.finish}
                for about, (item, reply) in zip(abouts, batch, strict=True)
                if not reply.error
            )
            for about, (_, reply) in zip(abouts, batch, strict=True):
                in_a_row = in_a_row + 1 if reply.error else 0
                if reply.error:
                    failed[about] = reply.error
            done += len(batch)
            if in_a_row >= PATIENCE:
                raise InputError(_trouble(captioner, records.path, reply.error))
            progress(done, len(pending))
    return failed


def _trouble(captioner: Captioner, path: str | Path, reason: str) -> str:
    return (
        f"{captioner.name}: every request fails now, the last with: {reason}. Look at the server, "
        f"then run again; finished answers are in {path} and are not asked for again"
    )


def _row(item: Item, about: tuple[str, str], records: Records, failed: dict) -> dict:
    answer = records.get(*about)
    if answer:
        reply = Reply(answer["reply"], answer["finish"])
    else:
        reply = Reply("", error=failed.get(about, "not asked"))
    return {"id": item.id} | read(reply)._asdict() | {"reply": reply.text}
