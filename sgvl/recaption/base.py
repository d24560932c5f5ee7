"""The interface of a captioner, the items that it captions, and the parser of its replies."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from PIL.Image import Image

from sgvl.data.images import image_digest, load_image
from sgvl.judges.base import Results
from sgvl.models.reply import Reply

OK, REFUSAL, GARBAGE, CUT, FAILED = STATUSES = ("ok", "refusal", "garbage", "cut", "failed")


class Item(NamedTuple):
    """One picture to caption.

    Parameters
    ----------
    id : names the picture in tables and messages
    digest : of its pixels, as ``image_digest`` returns it
    open : decodes the picture when it is sent: a hundred thousand pictures do not fit in memory
    caption : from step 1; "" before
    tags : what is in a drawn scene; empty for real pictures
    """

    id: str
    digest: str
    open: Callable[[], Image]
    caption: str = ""
    tags: tuple[str, ...] = ()


class Captioner:
    """Base class. A subclass sets ``name`` and ``prompt`` and defines ``identity`` and ``results``.

    ``prompt`` is a name that ``prompts.caption_prompt`` knows.
    """

    name: str
    prompt: str
    reads_tags: bool = False  # whether it is given the exact content of a drawn scene
    image_tokens: int = 0  # tokens of a picture in a request, for estimates
    max_tokens: int = 0  # length limit of a reply

    def identity(self) -> dict:
        """Return everything that decides a reply, as plain JSON values (see ``Judge.identity``)."""
        raise NotImplementedError

    def request(self, item: Item) -> str:
        """Return the text sent to a model with an item's picture; "" if there is no model."""
        return ""

    def results(self, items: Sequence[Item]) -> Results:
        """Yield replies as they come, in any order: lists of (index, Reply, error or "")."""
        raise NotImplementedError


def items(dataset) -> list[Item]:
    """List the pictures of a data set as items, without keeping them in memory.

    Each picture is decoded once, for its digest.

    Parameters
    ----------
    dataset : with the columns id, image and, for drawn scenes, tags

    Raises
    ------
    ImageError
        For a picture that cannot be decoded; the message names it.
    """
    from sgvl.data import store

    tags = dataset["tags"] if store.has_tags(dataset) else [()] * len(dataset)
    raw = store.without_decoding(dataset.select_columns(["id", "image"]))

    def picture(row: int) -> Image:
        record = raw[row]
        return load_image(record["image"]["bytes"], name=record["id"])

    return [
        Item(id_, image_digest(picture(row)), partial(picture, row), tags=tuple(own))
        for row, (id_, own) in enumerate(zip(dataset["id"], tags, strict=True))
    ]


def with_captions(items: Iterable[Item], rows: Iterable[dict]) -> list[Item]:
    """Return the items with their captions of step 1, without the items whose caption is unusable.

    ``rows`` are what ``caption_all`` returned for ``items``.
    """
    return [
        item._replace(caption=row["text"])
        for item, row in zip(items, rows, strict=True)
        if row["status"] == OK
    ]


# -- parsing a reply -------------------------------------------------------------------------------

# Openings of replies that decline to describe. Matched at the start only: later, the same words may
# be speech that the caption quotes.
_REFUSAL = re.compile(
    r"(?:i am|i'm|we are|we're) (?:\w+ )?(?:sorry|unable|not able|afraid|not comfortable)\b"
    r"|(?:\w+, )?(?:sorry|i apologi[sz]e|my apologies)\b"
    r"|(?:\w+, )?(?:but )?i (?:cannot|can't|can not|won't|will not|must decline|must refuse)\b"
    r"|as an ai\b|this (?:image|picture|request|content) (?:violates|goes against)\b",
    re.IGNORECASE,
)
# Openings about the task ("Sure, here is the caption:"). They are not cut off: where the caption
# begins would be a guess.
_PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|okay|ok|absolutely)[,!.:]"
    r"|here(?:'s| is| are) [^\n:]{0,80}:"
    r"|\W*(?:the )?(?:edited|revised|rewritten|updated|new) caption\b",
    re.IGNORECASE,
)
# Control tokens of common chat templates, whole or in part: in a training caption they would end a
# turn or ask for a picture.
_CONTROL = re.compile(
    r"<[|｜][^<>\n]{1,40}[|｜]>|</?(?:start|end)_of_(?:turn|image)>|<image_soft_token>"
    r"|</?(?:s|bos|eos|pad|unk|image|think)>|\[/?INST\]"
)
# Control characters, unpaired surrogates and the replacement character.
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_LOOP = re.compile(r"(\S.{0,59}?)\1{9,}", re.DOTALL)  # up to 60 characters, ten times in a row
_WORD = re.compile(r"[^\W\d_]{2,}")


class ParsedCaption(NamedTuple):
    """A caption parsed from a reply.

    Parameters
    ----------
    status : "ok", "refusal" (declined or empty), "garbage" (control tokens, loops, talk about the
        task, no words), "cut" (at the length limit) or "failed" (no reply)
    text : the caption; "" unless the status is "ok"
    reason : why there is no caption; "" if the status is "ok"
    """

    status: str
    text: str = ""
    reason: str = ""


def parse_caption(reply: Reply) -> ParsedCaption:
    """Extract the caption from a reply, or return the reason why it holds none.

    Stored replies are parsed again on every run, so a better parser needs no new request.

    >>> parse_caption(Reply("Caption: I see a knife at the beach."))
    ParsedCaption(status='ok', text='I see a knife at the beach.', reason='')
    >>> parse_caption(Reply("I'm sorry, but I can't describe this.")).status
    'refusal'
    """
    if reply.error:
        return ParsedCaption(FAILED, reason=reply.error)
    text = reply.text.strip().removeprefix("Caption:").strip()  # the label in our prompt, repeated
    if len(text) > 1 and text[0] + text[-1] in ('""', "“”", "''"):
        text = text[1:-1].strip()
    opening = text[:200].replace("’", "'").lstrip("*_\"'“ ")
    if reply.finish in ("refusal", "content_filter") or _REFUSAL.match(opening):
        return ParsedCaption(REFUSAL, reason="declined")
    if reply.finish == "length":
        return ParsedCaption(CUT, reason="longer than the limit")
    if not text:
        return ParsedCaption(REFUSAL, reason="empty")
    for fault, reason in (
        (_CONTROL.search(text), "control tokens"),
        (_BROKEN.search(text), "broken characters"),
        (_LOOP.search(text), "goes in circles"),
        (_PREAMBLE.match(opening), "talks about the task"),
        (not _WORD.search(text), "no words"),
    ):
        if fault:
            return ParsedCaption(GARBAGE, reason=reason)
    return ParsedCaption(OK, text)
