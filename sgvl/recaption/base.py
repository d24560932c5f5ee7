"""What every captioner is, what it is given, and how its reply is read."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sgvl.data.images import image_digest, load_image
from sgvl.judges.base import Results
from sgvl.models.reply import Reply

if TYPE_CHECKING:
    from PIL.Image import Image

OK, REFUSAL, GARBAGE, CUT, FAILED = STATUSES = ("ok", "refusal", "garbage", "cut", "failed")


class Item(NamedTuple):
    """One picture to caption. ``open`` decodes it, and is called only where it is looked at: a
    hundred thousand real pictures do not fit in memory, their digests do."""

    id: str
    digest: str  # of its pixels, as ``image_digest`` gives it
    open: "Callable[[], Image]"
    caption: str = ""  # of step 1; empty before it
    tags: tuple[str, ...] = ()  # what is in a drawn scene; real pictures have none


class Captioner:
    """Base class. A subclass sets ``name`` and ``prompt`` and defines ``identity`` and ``results``.

    ``prompt`` is a name that ``prompts.caption_prompt`` knows.
    """

    name: str
    prompt: str
    reads_tags: bool = False  # whether it is given the exact content of a drawn scene
    image_tokens: int = 0  # a picture's share of the request, for estimates
    max_tokens: int = 0  # length limit of a reply

    def identity(self) -> dict:
        """Return everything that decides a reply, as plain JSON values, as for judges."""
        raise NotImplementedError

    def request(self, item: Item) -> str:
        """Return the text that a model is sent about an item; "" where no model is asked."""
        return ""

    def results(self, items: Sequence[Item]) -> Results:
        """Yield the replies as they come, in any order: lists of (index, Reply, error)."""
        raise NotImplementedError


def items(dataset) -> list[Item]:
    """The pictures of a data set (columns id, image and, for drawn scenes, tags), undecoded.

    Each is decoded once for its digest. Raises ``ImageError``, naming it, for one that cannot be.
    """
    from sgvl.data import store

    tags = dataset["tags"] if "tags" in dataset.column_names else [()] * len(dataset)
    raw = store.without_decoding(dataset.select_columns(["id", "image"]))

    def picture(row: int) -> "Image":
        record = raw[row]
        return load_image(record["image"]["bytes"], name=record["id"])

    return [
        Item(id_, image_digest(picture(row)), partial(picture, row), tags=tuple(seen))
        for row, (id_, seen) in enumerate(zip(dataset["id"], tags, strict=True))
    ]


def with_captions(items: Iterable[Item], rows: Iterable[dict]) -> list[Item]:
    """The items with the captions that step 1 gave them; those without a sound one are left out."""
    return [
        item._replace(caption=row["text"])
        for item, row in zip(items, rows, strict=True)
        if row["status"] == OK
    ]


# -- reading a reply -------------------------------------------------------------------------------

# How replies open that decline instead of describing. Matched at the start only: in the middle of a
# caption the same words can be somebody's speech.
_REFUSAL = re.compile(
    r"(?:i am|i'm|we are|we're) (?:\w+ )?(?:sorry|unable|not able|afraid|not comfortable)\b"
    r"|(?:\w+, )?(?:sorry|i apologi[sz]e|my apologies)\b"
    r"|(?:\w+, )?(?:but )?i (?:cannot|can't|can not|won't|will not|must decline|must refuse)\b"
    r"|as an ai\b|this (?:image|picture|request|content) (?:violates|goes against)\b",
    re.IGNORECASE,
)
# Talk about the task. Cutting it off would be a guess at where the caption begins.
_PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|okay|ok|absolutely)[,!.:]"
    r"|here(?:'s| is| are) [^\n:]{0,80}:"
    r"|\W*(?:the )?(?:edited|revised|rewritten|updated|new) caption\b",
    re.IGNORECASE,
)
# Control tokens of common chat templates, whole or in part: in a training caption they would end a
# turn or ask for a picture. Then characters that no caption holds, among them halves of others.
_CONTROL = re.compile(
    r"<[|｜][^<>\n]{1,40}[|｜]>|</?(?:start|end)_of_(?:turn|image)>|<image_soft_token>"
    r"|</?(?:s|bos|eos|pad|unk|image|think)>|\[/?INST\]"
)
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_LOOP = re.compile(r"(\S.{0,59}?)\1{9,}", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")


class Reading(NamedTuple):
    """What a reply holds: its status, its caption if that is "ok", and else the reason."""

    status: str
    text: str = ""
    reason: str = ""


def read(reply: Reply) -> Reading:
    """Read the caption out of a reply, or say why there is none to be kept.

    >>> read(Reply("Caption: I see a knife at the beach."))
    Reading(status='ok', text='I see a knife at the beach.', reason='')
    >>> read(Reply("I'm sorry, but I can't describe this.")).status
    'refusal'

    Status "ok", "refusal" (declined or empty), "garbage" (control tokens, loops, talk about the
    task, no words), "cut" (at the length limit) or "failed" (no reply). Stored answers are read
    anew each time, so a better reading needs no call.
    """
    if reply.error:
        return Reading(FAILED, reason=reply.error)
    text = reply.text.strip().removeprefix("Caption:").strip()  # our own label, echoed
    if len(text) > 1 and text[0] + text[-1] in ('""', "“”", "''"):
        text = text[1:-1].strip()
    opening = text[:200].replace("’", "'").lstrip("*_\"'“ ")
    if reply.finish in ("refusal", "content_filter") or _REFUSAL.match(opening):
        return Reading(REFUSAL, reason="declined")
    if reply.finish == "length":
        return Reading(CUT, reason="longer than the limit")
    if not text:
        return Reading(REFUSAL, reason="empty")
    for found, reason in (
        (_CONTROL.search(text), "control tokens"),
        (_BROKEN.search(text), "broken characters"),
        (_LOOP.search(text), "goes in circles"),
        (_PREAMBLE.match(opening), "talks about the task"),
        (not _WORD.search(text), "no words"),
    ):
        if found:
            return Reading(GARBAGE, reason=reason)
    return Reading(OK, text)
