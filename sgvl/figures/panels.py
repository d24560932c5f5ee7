"""Figures of the paper, drawn from scores, labels and pictures; nothing here computes a score.

Every drawing function returns a figure that is already closed: as the last line of a cell it shows
once, and none piles up in memory. ``save`` writes it beside the numbers it shows.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL.Image import Image

from sgvl.tables import places, plain
from sgvl.verdict import SAFE, UNPARSEABLE, UNSAFE

STYLE = Path(__file__).with_name("sgvl.mplstyle")
DPI = 200
PAGE = 6.8  # inches of content in a figure as wide as both columns of a paper
MARGIN = 0.05
LINE = 0.13  # inches from one line of small text to the next
# Blue and vermilion of the style's palette, darkened until white letters on them are easy to read.
COLOURS = {SAFE: "#00649E", UNSAFE: "#B34A00", UNPARSEABLE: "#595959"}
NO_RULE = {
    SAFE: "no rule of this policy forbids it",
    UNSAFE: "no rule was quoted",
    UNPARSEABLE: "the answer could not be read",
}


def use_style() -> None:
    """Draw everything from here on in the kit's style."""
    plt.style.use(STYLE)


def save(fig: plt.Figure, name: str, frame: pd.DataFrame, folder: Path | str) -> list[Path]:
    """Write ``name`` as .pdf, .png and .csv (what is plotted) into ``folder``; return the paths.

    The same figure gives the same bytes: neither date nor program version is stored. Raises
    ``InputError`` if ``name`` is no plain file name.
    """
    pdf, png, csv = paths = places(folder, name, "pdf", "png", "csv")
    fig.savefig(pdf, metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    fig.savefig(png, dpi=DPI, metadata={"Software": None})
    plain(frame).to_csv(csv, index=False, lineterminator="\n")
    plt.close(fig)
    return paths


def unsafe_share(shares: pd.DataFrame, paper: dict[str, float] | None = None) -> plt.Figure:
    """Figure 4: the share of unsafe images under each policy, with its 95 % interval.

    ``shares`` is what ``metrics.unsafe_shares`` returned: policy, n, value, low, high (percent).
    ``paper`` holds the paper's stated shares by policy (percent), drawn as open markers.
    """
    fig, ax = plt.subplots(layout="constrained")
    at = np.arange(len(shares))
    spread = [shares["value"] - shares["low"], shares["high"] - shares["value"]]
    ax.bar(at, shares["value"], width=0.62, color="#9ecae1", label="this data, 95 % interval")
    ax.errorbar(at, shares["value"], spread, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    for place, row in zip(at, shares.itertuples(), strict=True):
        ax.text(place, row.high + 1.5, f"{row.value:.0f} %", ha="center")
    if paper:
        stated = shares["policy"].map(paper)
        marker = {"ls": "none", "marker": "D", "mfc": "white", "mec": "black"}
        ax.plot(
            at + 0.2,
            stated,
            clip_on=False,
            zorder=3,
            label="paper, stated or solved from its scores",
            **marker,
        )
    ax.set_xticks(at, [f"{row.policy}\nn = {row.n}" for row in shares.itertuples()])
    ax.set(ylabel="unsafe images (%)", ylim=(0, 100))
    ax.legend(loc="upper left")
    plt.close(fig)
    return fig


def score_heatmap(scores: pd.DataFrame) -> plt.Figure:
    """Judges down, policies and both averages across, the headline value (percent) in each cell.

    ``scores`` is what ``metrics.score_table`` returned. Darker is better; where there is no value
    the cell is white and reads "n/a".
    """
    import seaborn

    policies, judges = scores["policy"].unique(), scores["judge"].unique()
    values = scores.pivot(index="judge", columns="policy", values="value").loc[judges, policies]
    metric = scores.groupby("policy")["metric"].first().replace("f1", "F1")
    metric["macro"] = "mean"
    width, height = 1.4 + 0.62 * len(policies), 0.7 + 0.26 * len(judges)
    fig, ax = plt.subplots(figsize=(width, height), layout="constrained")
    blues = seaborn.light_palette("#56B4E9", as_cmap=True)  # black stays readable on all of it
    look = {"vmin": 0, "vmax": 100, "cmap": blues, "cbar": False, "linewidths": 1}
    seaborn.heatmap(values, ax=ax, annot=True, fmt=".1f", annot_kws={"color": "black"}, **look)
    for row, column in np.argwhere(values.isna().to_numpy()):
        ax.text(column + 0.5, row + 0.5, "n/a", ha="center", va="center", color="#595959")
    ax.set_xticklabels([f"{policy}\n{metric[policy]}" for policy in policies], rotation=0)
    ax.set_yticklabels(judges, rotation=0)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.axvline(sum(policies != "macro") - 1, color="white", linewidth=4)  # averages stand apart
    ax.set(xlabel="", ylabel="")
    plt.close(fig)
    return fig


def show_pairs(pairs: list[dict], columns: int = 2) -> plt.Figure:
    """Figure 2: matched pairs, each member with the edit box outlined.

    A pair is ``{"unsafe": PIL image, "safe": PIL image, "box": (left, top, right, bottom) in
    pixels, "title": str}``; ``columns`` pairs stand in a row. Pictures are drawn as they come:
    real ones must already be blurred.
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


def show_verdicts(examples: list[dict]) -> plt.Figure:
    """Figure 5: one picture under several policies, verdict and rule beside it; one row an example.

    An example is ``{"image": PIL image, "title": str, "verdicts": [{"policy": str, "label": "safe",
    "unsafe" or "unparseable", "rule": the rule that fired, or "" if none did}]}``. Policy text is
    untrusted: it is wrapped and drawn letter by letter, never read as mathematics. Pictures are
    drawn as they come: real ones must already be blurred.
    """
    side, width = 1.7, 54  # inches of a picture; letters in a line of a rule
    ax = _canvas()
    y = 0.0
    for example in examples:
        title = _wrap(example["title"], 100)
        _write(ax, 0, y + _tall(title) / 2, title, weight="bold")
        y += _tall(title) + 0.08
        bottom = y + _inches(example["image"], side)[1]
        _picture(ax, example["image"], 0, y, side)
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


def _canvas():
    """Axes of a blank closed figure that count inches from the top left corner."""
    fig = plt.figure()
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    plt.close(fig)
    return ax


def _set_height(ax, height):
    """Last step: what was drawn decides how tall the figure is."""
    ax.figure.set_size_inches(PAGE + 2 * MARGIN, height + 2 * MARGIN)
    ax.set(xlim=(-MARGIN, PAGE + MARGIN), ylim=(height + MARGIN, -MARGIN), aspect="auto")


def _inches(image: Image, side):
    """Width and height of a picture whose longer edge is ``side``."""
    return [side * pixels / max(image.size) for pixels in image.size]


def _picture(ax, image: Image, left, top, side):
    width, height = _inches(image, side)
    ax.imshow(np.asarray(image.convert("RGB")), extent=(left, left + width, top + height, top))
    ax.add_patch(Rectangle((left, top), width, height, fill=False, ec="#999999", lw=0.5))


def _member(ax, pair, label, words, left, top, side):
    """One member of a pair: the picture, its edit box, and words below."""
    image = pair[label]
    _picture(ax, image, left, top, side)
    x1, y1, x2, y2 = (edge * side / max(image.size) for edge in pair["box"])
    for colour, width in (("white", 3), (COLOURS[label], 1.5)):  # white: seen on any picture
        box = Rectangle((left + x1, top + y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width)
        ax.add_patch(box)
    _write(ax, left, top + _inches(image, side)[1] + 0.12, words, color=COLOURS[label])


def _wrap(text, width):
    return textwrap.fill(" ".join(text.split()), width)


def _tall(text):
    return LINE * (text.count("\n") + 1)


def _write(ax, x, y, text, **style):
    """Small text from x on, centred on y; a "$" in it stays a dollar."""
    ax.text(x, y, text, va="center", fontsize=7, linespacing=1.25, parse_math=False, **style)


def _line(ax, x, y):
    ax.plot([x, PAGE], [y, y], color="#cccccc", lw=0.6)


def _badge(ax, x, y, label):
    box = FancyBboxPatch((x, y - 0.07), 0.86, 0.14, "round,pad=0.02", fc=COLOURS[label], ec="none")
    ax.add_patch(box)
    style = {"ha": "center", "va": "center_baseline", "color": "white", "weight": "bold"}
    ax.text(x + 0.43, y, label.upper(), fontsize=6.5, **style)
