"""Step 2: the interface of an editor, and the one loop that asks, stores and resumes for all."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.common.files import sha256, write
from sgvl.common.paths import plain_name
from sgvl.data.images import ImageError, load_image
from sgvl.judges.ask import REPLY, Request, ask_missing, every_request_fails, missing
from sgvl.judges.records import Records
from sgvl.models.reply import REFUSED, Reply
from sgvl.recaption.base import FAILED, GARBAGE, OK, REFUSAL, Item, parse_caption

EDITED = "picture"  # how a stored reply ends that names the file of an edited picture
# What an editor yields: (index, the file of an edited picture or a Reply in words, error).
Edits = Iterator[list[tuple[int, bytes | Reply | None, str]]]


class Editor:
    """Base class. A subclass sets ``name`` and defines ``identity`` and ``results``.

    Items are pictures with an instruction as their ``caption``.
    """

    name: str
    knows: str = "the picture and the instruction"  # what it is given or knows, for the card

    def identity(self) -> dict:
        """Return everything that decides an edit, as plain JSON values (see ``Judge.identity``)."""
        raise NotImplementedError

    def tokens(self, item: Item) -> int:
        """Estimate the tokens of a request that is paid for; 0 for an editor that sends none."""
        return 0

    def results(self, items: Sequence[Item]) -> Edits:
        """Yield edited pictures as they come, as files; a refusal or other words as a Reply."""
        raise NotImplementedError


def edit_all(
    editor: Editor,
    items: Sequence[Item],
    folder: str | Path,
    progress: Callable[[int, int], object] | None = None,
) -> list[dict]:
    """Edit every item; request only what ``folder`` does not hold yet.

    An edit is found again by the picture's pixels, the instruction and the editor's identity. Its
    file is on the disk before ``edit.jsonl`` names it, so a killed run pays for no edit twice but
    those in flight.

    Returns
    -------
    list of dict
        One per item, in order: id, status ("ok", "refusal", "garbage", "failed"), file (of the
        edited picture, as the editor returned it) and reason. Failed requests are not stored.

    Raises
    ------
    InputError
        If the server is down or refuses the key, if 20 requests in a row or all of them fail, and
        for a stored picture that is no longer there.
    """
    folder = Path(folder)

    def results(items: Sequence[Item]) -> Iterator:
        for batch in editor.results(items):
            yield [(i, _stored(answer, folder), error) for i, answer, error in batch]

    with Records(folder / "edit.jsonl", editor.identity(), REPLY) as records:
        requests = list(map(_request, items))
        errors = ask_missing(f"editor {editor.name}", records, requests, results, progress)
        rows = [_row(r, records.get(*r.key), errors, folder) for r in requests]
    if errors and all(row["status"] == FAILED for row in rows):
        raise InputError(every_request_fails(editor.name, rows[-1]["reason"], records.path))
    return rows


def estimate(
    editor: Editor,
    items: Sequence[Item],
    folder: str | Path,
    price_in: float = 0.0,
    price_picture: float = 0.0,
) -> dict:
    """Estimate the requests that ``edit_all`` would still send, and their cost; send none.

    Parameters
    ----------
    price_in : for a million tokens of requests
    price_picture : for an edited picture

    Returns
    -------
    dict
        As ``recaption.estimate`` does; an edited picture has no tokens, but a price.
    """
    with Records(Path(folder) / "edit.jsonl", editor.identity(), REPLY) as records:
        wanted = [request.content for request in missing(records, map(_request, items))]
    tokens = sum(editor.tokens(item) for item in wanted)
    cost = round(tokens * price_in / 1e6 + price_picture * len(wanted), 2)
    return {
        "captioner": editor.name,
        "prompt": "edit",
        "calls": len(wanted),
        "stored": len(items) - len(wanted),
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "cost": cost,
        "cost_at_most": cost,
    }


def _request(item: Item) -> Request:
    digest = hashlib.sha256(item.caption.encode()).hexdigest()
    return Request(item.id, "edit", item.digest, digest, item)


def _stored(answer: bytes | Reply | None, folder: Path) -> Reply | None:
    """Write an edited picture, and return the reply that names it."""
    if not isinstance(answer, bytes):
        return answer
    name = hashlib.sha256(answer).hexdigest()
    (folder / "edits").mkdir(parents=True, exist_ok=True)
    write(folder / "edits" / name, answer)
    return Reply(name, EDITED)


def _row(request: Request, stored: dict | None, errors: dict, folder: Path) -> dict:
    row = {"id": request.id, "status": FAILED, "file": None, "reason": ""}
    if stored is None:
        return row | {"reason": errors.get(request.key, "not asked")}
    if stored["finish"] != EDITED:
        read = parse_caption(Reply(stored["reply"], stored["finish"]))
        refused = stored["finish"] == REFUSED or read.status == REFUSAL
        return row | {"status": REFUSAL if refused else GARBAGE, "reason": stored["reply"][:200]}
    name = stored["reply"]
    file = folder / "edits" / plain_name("edited picture", name)
    if not file.is_file() or sha256(file) != name:
        raise InputError(
            f"{file} is not the edited picture that edit.jsonl names; remove the line of "
            f"{request.id} there, and run again to ask for it anew"
        )
    try:
        load_image(file.read_bytes(), name=request.id)
    except ImageError as error:
        return row | {"status": GARBAGE, "reason": str(error)}
    return row | {"status": OK, "file": file}
