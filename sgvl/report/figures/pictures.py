"""Draw pictures with text beside them, laid out in inches from the top left corner."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrow, FancyBboxPatch, Rectangle
from PIL.Image import Image

from sgvl.report.figures.charts import PAGE
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

MARGIN = 0.05
LINE = 0.13  # inches from one line of small text to the next
LETTER = 7 / 72 * 0.602  # inches of one letter of 7-point DejaVu Sans Mono
# Blue and vermilion of the style's palette, darkened until white letters on them are easy to read.
COLOURS = {SAFE: "#00649E", UNSAFE: "#B34A00", UNPARSEABLE: "#595959"}
NO_RULE = {
    SAFE: "no rule of this policy forbids it",
    UNSAFE: "no rule was quoted",
    UNPARSEABLE: "the answer could not be read",
}


def show_pairs(pairs: list[dict], columns: int = 2) -> plt.Figure:
    """Draw Figure 2: matched pairs, with the edited box outlined in both pictures.

    Parameters
    ----------
    pairs : each ``{"unsafe": PIL image, "safe": PIL image, "box": (left, top, right, bottom) in
        pixels, "title": str}``. A published pair has no box. Nothing is blurred here: real pictures
        must already be.
    columns : pairs in a row
    """
    side = (PAGE + 0.3) / (2 * columns) - 0.2  # of a picture; 0.1 within a pair, 0.3 between pairs
    ax = _canvas()
    y = 0.0
    for first in range(0, len(pairs), columns):
        row = pairs[first : first + columns]
        titles = [_wrap(pair["title"], int(31 * side)) for pair in row]
        y += max(map(_tall, titles)) + 0.05
        for k, (pair, title) in enumerate(zip(row, titles, strict=True)):
            x = k * 2 * (side + 0.2)
            _write(ax, x, y - 0.05 - _tall(title) / 2, title, weight="bold")
            _member(ax, pair, UNSAFE, "unsafe original", x, y, side)
            _member(ax, pair, SAFE, "edited counterpart", x + side + 0.1, y, side)
        y += max(_inches(pair["unsafe"], side)[1] for pair in row) + 0.4
    _set_height(ax, y - 0.2)
    return ax.figure


def show_gallery(pictures: list[dict], columns: int = 6) -> plt.Figure:
    """Draw small pictures in rows of ``columns``, each ``{"image": PIL image, "title": str}``.

    Nothing is blurred here: real pictures must already be.
    """
    side = (PAGE + 0.15) / columns - 0.15
    ax = _canvas()
    y = 0.0
    for first in range(0, len(pictures), columns):
        row = pictures[first : first + columns]
        titles = [textwrap.fill(picture["title"], int(15 * side)) for picture in row]
        y += max(map(_tall, titles)) + 0.05
        for k, (picture, title) in enumerate(zip(row, titles, strict=True)):
            _write(ax, k * (side + 0.15), y - 0.05 - _tall(title) / 2, title)
            _picture(ax, picture["image"], k * (side + 0.15), y, side)
        y += max(_inches(picture["image"], side)[1] for picture in row) + 0.15
    _set_height(ax, y)
    return ax.figure


def show_verdicts(examples: list[dict]) -> plt.Figure:
    """Draw Figure 5: pictures under several policies, with the verdict and the rule of each.

    Parameters
    ----------
    examples : each ``{"image": PIL image, "title": str, "verdicts": [{"policy": str, "label":
        "safe", "unsafe" or "unparseable", "rule": the rule that fired, or ""}]}``. Nothing is
        blurred here: real pictures must already be.

    Policy text is untrusted: it is drawn as it is, never parsed as mathematics.
    """
    side, width = 1.7, 54  # inches of a picture; letters in a line of a rule
    ax = _canvas()
    y = 0.0
    for example in examples:
        y, bottom = _titled(ax, example, y, side)
        for verdict in example["verdicts"]:
            label, rule = verdict["label"], _wrap(f"“{verdict['rule'].strip()}”", width)
            height = _tall(rule) + 0.16
            middle = y + height / 2
            _line(ax, side + 0.2, y)
            _write(ax, side + 0.25, middle, _wrap(verdict["policy"], 14))
            _badge(ax, side + 1.1, middle, label)
            if verdict["rule"]:
                _write(ax, side + 2.15, middle, rule)
            else:
                _write(ax, side + 2.15, middle, NO_RULE[label], color="#595959")
            y += height
        _line(ax, side + 0.2, y)
        y = max(y, bottom) + 0.3
    _set_height(ax, y - 0.3)
    return ax.figure


def show_recaptions(examples: list[dict]) -> plt.Figure:
    """Draw Figure 3: pictures with caption and recaption; added words are bold and vermilion.

    Parameters
    ----------
    examples : each ``{"image": PIL image, "before": str, "after": [(word, change), ...]}``, where
        change is "kept", "removed" or "added"
    """
    side, width = 1.2, 78  # inches of a picture; letters in a line of a caption
    ax = _canvas()
    y = 0.0
    for example in examples:
        _picture(ax, example["image"], 0, y, side)
        at = y + 0.15
        before = [(word, "kept") for word in example["before"].split()]
        for title, words in (("base model", before), ("recaptioned", example["after"])):
            _write(ax, side + 0.2, at, title, color="#595959")
            at = _words(ax, side + 0.2, at + 0.16, words, width) + 0.12
        y = max(at, y + _inches(example["image"], side)[1]) + 0.15
    _set_height(ax, y - 0.15)
    return ax.figure


def show_replies(examples: list[dict]) -> plt.Figure:
    """Draw Figure 7: pictures under several policies, with the whole reply of each judge.

    Parameters
    ----------
    examples : each ``{"image": PIL image, "title": str, "replies": [{"policy": str, "judge": str,
        "verdict": str, "label": str, "reply": str}]}``. The label is drawn where the verdict
        differs from it.
    """
    side, width = 1.5, 48  # inches of a picture; letters in a line of a reply
    ax = _canvas()
    y = 0.0
    for example in examples:
        y, bottom = _titled(ax, example, y, side)
        for reply in example["replies"]:
            text = _wrap(reply["reply"], width)
            height = max(_tall(text), 3 * LINE) + 0.12
            _line(ax, side + 0.2, y)
            _write(ax, side + 0.25, y + 0.06 + LINE / 2, _wrap(reply["judge"], 20), weight="bold")
            about = [f"under {reply['policy']}"]
            about += [f"it is {reply['label']}"] * (reply["verdict"] != reply["label"])
            for k, line in enumerate(about):
                _write(ax, side + 0.25, y + 0.06 + (k + 1.5) * LINE, line)
            _badge(ax, side + 1.45, y + height / 2, reply["verdict"])
            _write(ax, side + 2.45, y + height / 2, text)
            y += height
        _line(ax, side + 0.2, y)
        y = max(y, bottom) + 0.3
    _set_height(ax, y - 0.3)
    return ax.figure


def pipeline(stages: list[dict]) -> plt.Figure:
    """Draw Figure 1: the stages of the method from left to right.

    Parameters
    ----------
    stages : each ``{"title": str, "text": str}`` and, for a picture on top, ``"image"``
    """
    gap = 0.22
    width = (PAGE - gap * (len(stages) - 1)) / len(stages)
    texts = [_wrap(stage["text"], int(width / 0.062)) for stage in stages]
    titles = [_wrap(stage["title"], int(width / 0.068)) for stage in stages]
    head = max(map(_tall, titles)) + 0.1
    top = max((width - 0.1 for stage in stages if "image" in stage), default=0)
    height = head + top + max(map(_tall, texts)) + 0.25
    ax = _canvas()
    for k, stage in enumerate(stages):
        x = k * (width + gap)
        frame = Rectangle((x, 0), width, height, fc="#f4f7fa", ec="#00649E", lw=0.8, zorder=-1)
        ax.add_patch(frame)
        _write(ax, x + 0.06, 0.06 + _tall(titles[k]) / 2, titles[k], weight="bold")
        if "image" in stage:
            _picture(ax, stage["image"], x + 0.05, head, width - 0.1)
        below = head + (top + 0.1 if "image" in stage else 0.05)
        _write(ax, x + 0.06, below + _tall(texts[k]) / 2, texts[k])
        if k:
            arrow = FancyArrow(x - gap + 0.03, height / 2, gap - 0.06, 0, width=0.02,
                               head_width=0.09, head_length=0.08, length_includes_head=True,
                               color="#595959")  # fmt: skip
            ax.add_patch(arrow)
    _set_height(ax, height)
    return ax.figure


def _words(ax, x, y, words, width):
    """Write (word, change) pairs in a fixed-width font, added words marked; return the last y."""
    column = 0
    for word, change in words:
        if change == "removed":
            continue
        if column + len(word) > width:
            column, y = 0, y + LINE
        mark = {} if change == "kept" else {"color": COLOURS[UNSAFE], "weight": "bold"}
        ax.text(
            x + column * LETTER, y, word, fontsize=7, family="DejaVu Sans Mono", parse_math=False,
            **mark,
        )  # fmt: skip
        column += len(word) + 1
    return y + LINE / 2


def _canvas():
    """Return the axes of a blank closed figure, in inches from the top left corner."""
    fig = plt.figure()
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    plt.close(fig)
    return ax


def _set_height(ax, height):
    """Set the height of the figure, last: it depends on what was drawn."""
    ax.figure.set_size_inches(PAGE + 2 * MARGIN, height + 2 * MARGIN)
    ax.set(xlim=(-MARGIN, PAGE + MARGIN), ylim=(height + MARGIN, -MARGIN), aspect="auto")


def _inches(image: Image, side):
    """Return width and height of a picture whose longer edge is ``side``."""
    return [side * pixels / max(image.size) for pixels in image.size]


def _picture(ax, image: Image, left, top, side):
    width, height = _inches(image, side)
    ax.imshow(np.asarray(image.convert("RGB")), extent=(left, left + width, top + height, top))
    ax.add_patch(Rectangle((left, top), width, height, fill=False, ec="#999999", lw=0.5))


def _titled(ax, example, y, side):
    """Draw title and picture of an example; return the top and the bottom of the picture."""
    title = _wrap(example["title"], 100)
    _write(ax, 0, y + _tall(title) / 2, title, weight="bold")
    y += _tall(title) + 0.08
    _picture(ax, example["image"], 0, y, side)
    return y, y + _inches(example["image"], side)[1]


def _member(ax, pair, label, text, left, top, side):
    """Draw one picture of a pair, its edited box, and a text below."""
    image = pair[label]
    _picture(ax, image, left, top, side)
    x1, y1, x2, y2 = (edge * side / max(image.size) for edge in pair.get("box", (0, 0, 0, 0)))
    marks = (("white", 3), (COLOURS[label], 1.5)) if "box" in pair else ()
    for colour, width in marks:  # white: visible on any picture
        box = Rectangle((left + x1, top + y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width)
        ax.add_patch(box)
    _write(ax, left, top + _inches(image, side)[1] + 0.12, text, color=COLOURS[label])


def _wrap(text, width):
    return textwrap.fill(" ".join(text.split()), width)


def _tall(text):
    return LINE * (text.count("\n") + 1)


def _write(ax, x, y, text, **style):
    """Write small text from x on, centred on y; a "$" in it stays a dollar."""
    ax.text(x, y, text, va="center", fontsize=7, linespacing=1.25, parse_math=False, **style)


def _line(ax, x, y):
    ax.plot([x, PAGE], [y, y], color="#cccccc", lw=0.6)


def _badge(ax, x, y, label):
    box = FancyBboxPatch((x, y - 0.07), 0.86, 0.14, "round,pad=0.02", fc=COLOURS[label], ec="none")
    ax.add_patch(box)
    style = {"ha": "center", "va": "center_baseline", "color": "white", "weight": "bold"}
    ax.text(x + 0.43, y, label.upper(), fontsize=6.5, **style)
