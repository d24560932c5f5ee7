"""Sentences, tables and pictures that a widget is made of, each as HTML and as text.

Both forms are made from the same parts, so they hold the same information. A table is a data frame;
a cell is text, a verdict (drawn as a badge), a ``Picture`` or a ``Bar``.
"""

import base64
import html
import io
import re
from functools import cache
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw

from sgvl.common.paths import PACKAGE
from sgvl.report.tables import markdown
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE


class Picture(NamedTuple):
    """A picture, ``side`` pixels wide, with the description that stands for it in text."""

    src: str  # a data URI
    description: str
    side: int

    def __str__(self):
        return self.description

    def _repr_html_(self):
        alt = html.escape(self.description)
        return f'<img src="{self.src}" alt="{alt}" title="{alt}" width="{self.side}">'


class Bar(NamedTuple):
    """A percentage drawn as a bar, with its interval if there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self):
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return "n/a" if pd.isna(self.value) else f"{self.value:.1f}{interval}"

    def _repr_html_(self):
        value = 0 if pd.isna(self.value) else self.value
        line = ""
        if self.low is not None and not pd.isna(self.low):
            line = f'<line x1="{self.low:.1f}" x2="{self.high:.1f}" y1="5" y2="5"/>'
        bar = f'<rect width="{value:.1f}" height="10"/>{line}'
        box = 'viewBox="0 0 100 10" preserveAspectRatio="none"'
        return f'<svg {box} aria-hidden="true">{bar}</svg> {self}'


class Table(NamedTuple):
    """A data frame, with the column named ``chosen`` marked in both forms."""

    frame: pd.DataFrame
    chosen: str = ""


class View(NamedTuple):
    """One state of a widget as HTML and as text, with the same information."""

    html: str
    text: str

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        # Notebooks align cells to the right, and drop a style sheet that they do not trust.
        body = re.sub("<t[dh]", r'\g<0> style="text-align: left"', self.html)
        return f'<style>{style()}</style><div class="sgvl">{body}</div>'


def compose(*parts: str | Picture | Table) -> View:
    """Join parts into one view, each below the one before; pictures in sequence share a row.

    >>> compose("Under L3 it is unsafe.").text
    'Under L3 it is unsafe.'
    """
    return View("\n".join(map(_html, parts)), "\n\n".join(map(_text, parts)))


def folded(summary: str, *parts: str | Picture | Table, help: bool = False) -> View:
    """Join parts into a view that shows ``summary`` alone until the reader opens it.

    The exported page hides it with the answers and the teacher's notes, unless it is ``help``.

    >>> folded("Answer", "42.")
    Answer
    <BLANKLINE>
    42.
    """
    inside = compose(*parts)
    kind = ' class="help"' if help else ""
    details = f"<details{kind}><summary>{html.escape(summary)}</summary>{inside.html}</details>"
    return View(details, f"{summary}\n\n{inside.text}")


@cache
def style() -> str:
    """Return the style sheet of all views, for a ``<style>`` element."""
    return (PACKAGE / "widgets" / "style.css").read_text(encoding="utf-8")


def picture(image: Image.Image, description: str, side: int, box: tuple | None = None) -> Picture:
    """Encode a PIL image as a ``Picture``.

    Parameters
    ----------
    image : in RGB, of any size
    description : the text that stands for it
    side : width on the screen in pixels
    box : left, top, right, bottom in pixels of ``image``; outlined in black and white, which is
        visible on any picture
    """
    image = image.copy()
    for colour, width in (("white", 5), ("black", 2)) if box else ():
        ImageDraw.Draw(image).rectangle(box, outline=colour, width=width)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    encoded = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{encoded}", description, side)


def chart(figure, description: str, side: int) -> Picture:
    """Encode a matplotlib figure as a ``Picture``, ``side`` pixels wide."""
    file = io.BytesIO()
    figure.savefig(file, dpi=200)
    return picture(Image.open(file).convert("RGB"), description, side)


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
    text = html.escape(f"{round(value, 2) + 0.0:.2f}" if isinstance(value, float) else str(value))
    return f'<b class="{text}">{text}</b>' if text in (SAFE, UNSAFE, UNPARSEABLE) else text
