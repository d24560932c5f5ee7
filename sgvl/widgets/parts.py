"""What a widget shows, as plain parts: sentences, tables and pictures, in HTML and in words.

Both forms are made from the same parts, so the words cannot say less than the picture. A table is a
data frame; a cell is text, a verdict (drawn as a badge), or one of the two drawn cells below.
"""

import base64
import html
import io
from functools import cache
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw

from sgvl.common.paths import PACKAGE
from sgvl.report.tables import markdown
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE


class Picture(NamedTuple):
    """A picture to show, ``side`` pixels wide, and what a listener is told instead of it."""

    src: str  # a data URI
    words: str
    side: int

    def __str__(self):
        return self.words

    def _repr_html_(self):
        words = html.escape(self.words)
        return f'<img src="{self.src}" alt="{words}" title="{words}" width="{self.side}">'


class Bar(NamedTuple):
    """A percentage as a bar, with the interval around it where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self):
        between = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return "n/a" if pd.isna(self.value) else f"{self.value:.1f}{between}"

    def _repr_html_(self):
        value = 0 if pd.isna(self.value) else self.value
        line = ""
        if self.low is not None and not pd.isna(self.low):
            line = f'<line x1="{self.low:.1f}" x2="{self.high:.1f}" y1="5" y2="5"/>'
        drawn = f'<rect width="{value:.1f}" height="10"/>{line}'
        box = 'viewBox="0 0 100 10" preserveAspectRatio="none"'
        return f'<svg {box} aria-hidden="true">{drawn}</svg> {self}'


class Table(NamedTuple):
    """A data frame, with the column that was ``chosen`` marked in both forms."""

    frame: pd.DataFrame
    chosen: str = ""


class Shown(NamedTuple):
    """One state of a widget, in two forms that say the same."""

    html: str
    text: str

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return f'<style>{style()}</style><div class="sgvl">{self.html}</div>'


def show(*parts: str | Picture | Table) -> Shown:
    """Parts below each other; pictures that follow one another stand in a row.

    >>> show("Under L3 it is unsafe.").text
    'Under L3 it is unsafe.'
    """
    drawn = "\n".join(map(_html, parts))
    return Shown(drawn, "\n\n".join(map(_text, parts)))


def folded(summary: str, *parts: str | Picture | Table) -> Shown:
    """Parts that open when they are asked for.

    >>> folded("Answer", "42.")
    Answer
    <BLANKLINE>
    42.
    """
    inside = show(*parts)
    drawn = f"<details><summary>{html.escape(summary)}</summary>{inside.html}</details>"
    return Shown(drawn, f"{summary}\n\n{inside.text}")


@cache
def style() -> str:
    """The look of everything here, for a ``<style>``."""
    return (PACKAGE / "widgets" / "style.css").read_text(encoding="utf-8")


def picture(image: Image.Image, words: str, side: int, box: tuple | None = None) -> Picture:
    """A PIL picture made small enough to travel, with ``box`` (left, top, right, bottom, in its own
    pixels) outlined in black on white, which is seen on any picture."""
    image = image.copy()
    for colour, width in (("white", 5), ("black", 2)) if box else ():
        ImageDraw.Draw(image).rectangle(box, outline=colour, width=width)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return Picture(
        f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", words, side
    )


def chart(figure, words: str, side: int) -> Picture:
    """A matplotlib figure as a picture."""
    file = io.BytesIO()
    figure.savefig(file, dpi=200)
    return picture(Image.open(file).convert("RGB"), words, side)


def _text(part):
    if not isinstance(part, Table):
        return str(part)
    heads = {part.chosen: f"{part.chosen} (chosen)"}
    return markdown(part.frame.rename(columns=heads)).strip()


def _html(part):
    if isinstance(part, str):
        return "".join(f"<p>{html.escape(line)}</p>" for line in part.splitlines())
    if isinstance(part, Picture):
        return part._repr_html_()
    columns, current = part.frame.columns, ' aria-current="true"'
    marks = [' class="chosen"' * (column == part.chosen) for column in columns]
    heads = [
        f'<th scope="col"{m}{m and current}>{html.escape(column)}</th>'
        for column, m in zip(columns, marks, strict=True)
    ]
    rows = [
        "".join(f"<td{m}>{_cell(value)}</td>" for value, m in zip(row, marks, strict=True))
        for row in part.frame.itertuples(index=False, name=None)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in ["".join(heads), *rows])
    return f"<table>{body}</table>"


def _cell(value):
    if isinstance(value, Picture | Bar):
        return value._repr_html_()
    text = html.escape(f"{value:.2f}" if isinstance(value, float) else str(value))
    return f'<b class="{text}">{text}</b>' if text in (SAFE, UNSAFE, UNPARSEABLE) else text
