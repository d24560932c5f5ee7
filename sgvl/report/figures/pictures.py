"""Draw pictures with text beside them, laid out in inches from the top left corner."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrow, FancyBboxPatch, Rectangle
from PIL.Image import Image

from sgvl.report.figures.charts import PAGE, described
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

MARGIN = 0.05
LINE = 0.13  # inches from one line of small text to the next
LETTER = 7 / 72 * 0.602  # inches of one letter of 7-point DejaVu Sans Mono
# Blue and vermilion of the style's palette, darkened until white letters on them are easy to read.
COLOURS = {SAFE: "#00649E", UNSAFE: "#B34A00", UNPARSEABLE: "#595959"}
COLOURS |= {"right": COLOURS[SAFE], "wrong": COLOURS[UNSAFE]}  # answers to questions
NO_RULE = {
    SAFE: "no rule of this policy forbids it",
    UNSAFE: "no rule was quoted",
    UNPARSEABLE: "the answer could not be read",
}


def show_pairs(pairs: list[dict], columns: int = 2) -> plt.Figure:
    """Draw Figure 2: matched pairs, with the edited box outlined in both pictures.

    Parameters
    ----------
    pairs : dictionaries
        "unsafe" and "safe" are PIL images, "box" is (left, top, right, bottom) in pixels, "title" a
        text. A published pair has no box. Nothing is blurred here: real pictures must already be.
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
    titles = "; ".join(pair["title"] for pair in pairs)
    return described(ax.figure, f"Unsafe originals beside their edited counterparts: {titles}.")


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
    titles = "; ".join(picture["title"] for picture in pictures)
    return described(ax.figure, f"Small pictures: {titles}.")


def show_verdicts(examples: list[dict]) -> plt.Figure:
    """Draw Figure 5: pictures under several policies, with the verdict and the rule of each.

    Parameters
    ----------
    examples : dictionaries
        "image" is a PIL image, "title" a text, "verdicts" a list of dictionaries: "policy", "label"
        (safe, unsafe or unparseable) and "rule", the one that fired or "", with a "note" in place
        of our words where there is no rule. Nothing is blurred here: real pictures must already be.

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
                note = verdict.get("note", NO_RULE[label])
                _write(ax, side + 2.15, middle, note, color="#595959")
            y += height
        _line(ax, side + 0.2, y)
        y = max(y, bottom) + 0.3
    _set_height(ax, y - 0.3)
    return described(ax.figure, _spoken(examples, "verdicts", "policy", "label"))


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
    captions = "; ".join(example["before"] for example in examples)
    text = f"Pictures, their captions by the base model ({captions}), and the recaptions"
    return described(ax.figure, f"{text}, in which added words are marked.")


def show_replies(examples: list[dict]) -> plt.Figure:
    """Draw Figure 7: pictures with the whole reply of each judge, under policies or to a question.

    Parameters
    ----------
    examples : dictionaries
        "image" is a PIL image, "title" a text, "replies" a list of dictionaries of texts: "policy",
        "judge", "verdict", "label" and "reply". The label is drawn where the verdict differs from
        it. An answer to a question has no policy, and the verdict "right", "wrong" or
        "unparseable".
    """
    side, width = 1.5, 48  # inches of a picture; letters in a line of a reply
    ax = _canvas()
    y = 0.0
    for example in examples:
        y, bottom = _titled(ax, example, y, side)
        for reply in example["replies"]:
            name, text = _wrap(reply["judge"], 17), _wrap(reply["reply"], width)
            about = [f"under {reply['policy']}"] if "policy" in reply else []
            about += [f"it is {reply['label']}"] * (
                reply["verdict"] not in (reply["label"], "right")
            )
            below = "\n".join(about)
            height = max(_tall(text), _tall(name) + len(about) * LINE, 3 * LINE) + 0.12
            _line(ax, side + 0.2, y)
            _write(ax, side + 0.25, y + 0.06 + _tall(name) / 2, name, weight="bold")
            _write(ax, side + 0.25, y + 0.06 + _tall(name) + _tall(below) / 2, below)
            _badge(ax, side + 1.45, y + height / 2, reply["verdict"])
            _write(ax, side + 2.45, y + height / 2, text)
            y += height
        _line(ax, side + 0.2, y)
        y = max(y, bottom) + 0.3
    _set_height(ax, y - 0.3)
    return described(ax.figure, _spoken(examples, "replies", "judge", "verdict"))


def pipeline(facts: dict) -> plt.Figure:
    """Draw Figure 1: the two stages of the method, with what they were given and how they went.

    Parameters
    ----------
    facts : what ``examples.method`` returned. "example" is a picture with "before" and "after", as
        ``show_recaptions`` takes it; "case" a picture with "verdicts", as ``show_verdicts`` does;
        "sft" and "grpo" are texts about the stages; "continues" says whether stage 2 begins with
        the weights of stage 1. Nothing is blurred here.
    """
    gap, top, side = 0.24, 0.25, 1.15  # inches between boxes, above them, and of a picture
    widths = (side, 1.4, 1.75, PAGE - side - 3.15 - 3 * gap)
    lefts = [sum(widths[:k]) + k * gap for k in range(4)]
    example, case = facts["example"], facts["case"]
    before = [(word, "kept") for word in example["before"].split()]
    texts = [_shortened(words) for words in (before, example["after"])]
    long = max(sum(len(word) + 1 for word, change in text if change != "removed") for text in texts)
    first = max(side, 0.6 + LINE * (long // 15))  # the heights of the two rows
    second = max(side, 0.4 + 0.22 * len(case["verdicts"]))
    below = top + first + 0.55
    ax = _canvas()
    for y, height, title, image in (
        (top, first, "Stage 1: see what is there", example["image"]),
        (below, second, "Stage 2: apply a policy", case["image"]),
    ):
        _write(ax, 0, y - 0.12, title, weight="bold")
        _picture(ax, image, 0, y, side)
        for k in range(1, 4):
            _frame(ax, lefts[k], y, widths[k], height)
            _arrow(ax, (lefts[k] - gap, y + side / 2), (lefts[k], y + side / 2))
    for k, title in enumerate(("Caption", "Recaption"), start=1):
        at = _boxed(ax, lefts[k], top, widths[k], title, "")
        _words(ax, lefts[k] + 0.07, at + 0.06, texts[k - 1], int((widths[k] - 0.1) / LETTER))
    _boxed(ax, lefts[3], top, widths[3], "Training", facts["sft"])
    _boxed(ax, lefts[2], below, widths[2], "Reinforcement", facts["grpo"])
    for k, title in ((1, "Policies"), (3, "Right labels")):
        at = _boxed(ax, lefts[k], below, widths[k], title, "")
        for place, verdict in enumerate(case["verdicts"]):
            y = at + 0.08 + 0.22 * place
            _write(ax, lefts[k] + 0.07, y, verdict["policy"])
            if k == 3:
                _badge(ax, lefts[k] + 0.55, y, verdict["label"])
    right, middle, turn = lefts[3] + widths[3] / 2, lefts[2] + widths[2] / 2, top + first + 0.14
    if facts["continues"]:
        ax.plot([right, right, middle], [top + first, turn, turn], color="#595959", lw=1.2)
        _arrow(ax, (middle, turn), (middle, below))
        _write(ax, middle + 0.1, turn + 0.15, "the trained weights", color="#595959")
    _set_height(ax, below + second)
    begins = "the weights of stage 1" if facts["continues"] else "the base model"
    text = f"""The two stages, each from left to right. Stage 1: a picture, its caption, the
        recaption, training. Stage 2: a picture, policies, reinforcement, right labels. Stage 2
        begins with {begins}."""
    return described(ax.figure, text)


def _spoken(examples, lines, who, what):
    """Say who called each picture what, as "An embrace: L1 safe, L5 unsafe."."""
    return " ".join(
        f"{example['title']}: {', '.join(f'{line[who]} {line[what]}' for line in example[lines])}."
        for example in examples
    )


def _shortened(words, most=40):
    """Return (word, change) pairs of at most ``most`` words."""
    return [*words[:most], ("…", "kept")] if len(words) > most else words


def _frame(ax, left, top, width, height):
    look = {"fc": "#f4f7fa", "ec": "#00649E", "lw": 0.8, "zorder": -1}
    ax.add_patch(Rectangle((left, top), width, height, **look))


def _boxed(ax, left, top, width, title, text):
    """Write a title and a text into a box; return the y below the title."""
    _write(ax, left + 0.07, top + 0.12, title, weight="bold")
    text = _wrap(text, int(width / 0.064))
    _write(ax, left + 0.07, top + 0.3 + _tall(text) / 2, text)
    return top + 0.3


def _arrow(ax, start, end):
    (x, y), (to_x, to_y) = start, end
    arrow = FancyArrow(x, y, to_x - x, to_y - y, width=0.02, head_width=0.09, head_length=0.08,
                       length_includes_head=True, color="#595959")  # fmt: skip
    ax.add_patch(arrow)


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
