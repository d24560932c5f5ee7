"""Figures: files exist, come out byte for byte the same, and show what they were given."""

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.report import figures
from sgvl.scores import metrics
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

matplotlib.use("Agg")

SHARES = pd.DataFrame({
    "policy": ["L1", "L2", "L4"],
    "n": [118, 118, 119],
    "value": [0.0, 8.0, 50.0],
    "low": [0.0, 4.0, 40.0],
    "high": [6.0, 15.0, 60.0],
})  # fmt: skip
LONG = "Any depiction of closeness, be it holding hands or an embrace, costs $5 to $10. " * 3


@pytest.fixture(autouse=True)
def style():
    with plt.style.context("default"):
        figures.use_style()
        yield


def scores():
    rows = [
        (judge, policy, str(k), k // 2, UNSAFE if k % 2 and policy == "L4" else SAFE, UNSAFE)
        for judge in ("nano", "always unsafe") for policy in ("L1", "L4") for k in range(20)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["judge", "policy", "id", "pair", "label", "verdict"])
    missing = (frame["judge"] == "nano") & (frame["policy"] == "L4")
    return metrics.score_table(frame[~missing], resamples=20)


def pairs():
    scene, edited = Image.new("RGB", (64, 48), "tan"), Image.new("RGB", (64, 48), "teal")
    one = {"unsafe": scene, "safe": edited, "box": (8, 8, 40, 24), "title": "knife to camera"}
    return [one, one | {"title": "a longer title, " * 4}, one]


def examples():
    verdicts = [
        {"policy": "L1", "label": SAFE, "rule": ""},
        {"policy": "L5", "label": UNSAFE, "rule": LONG},
        {"policy": "openai_content", "label": UNPARSEABLE, "rule": ""},
    ]
    picture = Image.new("L", (48, 64), 128)
    return [{"image": picture, "title": "An embrace", "verdicts": verdicts}] * 2


def pictures():
    sizes = [(64, 48), (32, 64)] * 4
    return [
        {"image": Image.new("RGB", size, "tan"), "title": f"mine: a/long/path/to/picture_{k}.jpeg"}
        for k, size in enumerate(sizes)
    ]


def adherence():
    panels = {
        "flips and stays": {"flips": None, "stays": None},
        "squares, xor": {"squares right": 0, "verdicts right": 50},
    }
    rows = [
        (judge, panel, measure, 20, value, value - 5, value + 5, blind)
        for judge, value in {"base": 20.0, "the rule <b> of $5": 90.0}.items()
        for panel, measures in panels.items()
        for measure, blind in measures.items()
    ]
    columns = ["judge", "panel", "measure", "n", "value", "low", "high", "blind"]
    return pd.DataFrame(rows, columns=columns).astype({"blind": float})


def points():
    """Two judges close together and one far off."""
    points = pd.DataFrame({"judge": ["base", "full", "taxonomy"], "safety": [74.0, 93.0, 27.0]})
    points["general"] = [96.0, 97.0, 0.0]
    for side in ("safety", "general"):
        points[f"{side}_low"], points[f"{side}_high"] = points[side] - 2, points[side] + 2
    return points


DRAWN = {
    "adherence": lambda: figures.adherence(adherence()),
    "show_gallery": lambda: figures.show_gallery(pictures()),
    "unsafe_share": lambda: figures.unsafe_share(SHARES, {"L1": 0, "L4": 51}),
    "score_heatmap": lambda: figures.score_heatmap(scores()),
    "precision_recall": lambda: figures.precision_recall([True, False], [0.9, 0.2], 1.0, 0.5),
    "show_pairs": lambda: figures.show_pairs(pairs()),
    "show_verdicts": lambda: figures.show_verdicts(examples()),
    "trade_off": lambda: figures.trade_off(points()),
}


def words(fig):
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_three_files_same_bytes_twice(name, tmp_path):
    first = figures.save(DRAWN[name](), name, SHARES, tmp_path / "a")
    second = figures.save(DRAWN[name](), name, SHARES, tmp_path / "b")
    assert [path.name for path in first] == [f"{name}.pdf", f"{name}.png", f"{name}.csv"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert (
        first[0].read_bytes().startswith(b"%PDF") and b"CreationDate" not in first[0].read_bytes()
    )
    assert b"/FontFile2" in first[0].read_bytes()  # TrueType outlines travel with the file
    with Image.open(first[1]) as picture:
        assert picture.width > 600 and "Software" not in picture.info
    pd.testing.assert_frame_equal(pd.read_csv(first[2]), SHARES)


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_stays_open(name):
    plt.close("all")
    assert DRAWN[name]().get_label(), "a description"
    assert not plt.get_fignums()


def test_share_shows_the_values_and_the_papers_markers():
    ax = DRAWN["unsafe_share"]().axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0, 8, 50]
    assert set(words(ax.figure)) >= {
        "0 %",
        "8 %",
        "50 %",
        "L1\nn = 118",
        "paper, stated or solved from its scores",
    }
    marks = next(
        line for line in ax.lines if line.get_label() == "paper, stated or solved from its scores"
    )
    assert list(marks.get_ydata())[::2] == [0, 51]  # and nothing at L2, which was not stated
    assert "paper, stated or solved from its scores" not in words(figures.unsafe_share(SHARES))


def test_ceilings_of_blind_judges_are_drawn_where_they_are_proven():
    left, right = DRAWN["adherence"]().axes
    found = [text.get_text() for text in right.get_legend().get_texts()]
    assert found == ["squares right", "blind: at most 0 %", "verdicts right", "blind: at most 50 %"]
    lines = [line for line in right.lines if "blind" in str(line.get_label())]
    assert [list(line.get_xdata()) for line in lines] == [[0, 0], [50, 50]]
    assert not any("blind" in str(line.get_label()) for line in left.lines)
    shapes = [c.lines[0].get_marker() for c in right.containers]
    assert len(set(shapes)) == 2, "told apart without colour"


def test_judges_close_together_are_enlarged_where_one_lies_far_off():
    everyone, enlarged = DRAWN["trade_off"]().axes
    assert everyone.get_xlim()[0] < 0 and enlarged.get_xlim()[0] > 90
    assert len(figures.trade_off(points()[:2]).axes) == 1


def test_heatmap_numbers_are_the_scores():
    found = words(DRAWN["score_heatmap"]())
    assert set(found) >= {"L1\naccuracy", "L4\nF1", "macro\nmean", "pooled\nF1"}
    assert found.count("n/a") == 3 and found.count("0.0") == 2  # nano lacks L4, so both averages
    assert "66.7" in found and "33.3" in found  # always unsafe: L4, and the macro with L1


def test_pairs_are_outlined_and_named():
    fig = DRAWN["show_pairs"]()
    assert words(fig).count("unsafe original") == words(fig).count("edited counterpart") == 3
    inch = fig.axes[0].images[0].get_extent()[1] / 64  # inches a pixel of the first picture
    frames = [patch.get_bbox().bounds for patch in fig.axes[0].patches]
    first = next(x for x in frames if x[2] == pytest.approx(32 * inch))
    assert first[0] == pytest.approx(8 * inch) and first[3] == pytest.approx(16 * inch)


def test_a_gallery_shows_every_picture_under_its_whole_name():
    fig = DRAWN["show_gallery"]()
    assert len(fig.axes[0].images) == 8
    named = {"".join(text.split()) for text in words(fig)}
    assert named == {"".join(picture["title"].split()) for picture in pictures()}


def test_verdicts_are_worded_and_rules_quoted_in_full():
    fig = DRAWN["show_verdicts"]()
    found = words(fig)
    assert found.count("SAFE") == found.count("UNSAFE") == found.count("UNPARSEABLE") == 2
    quoted = next(text for text in found if text.startswith("“"))
    assert quoted.replace("\n", " ") == f"“{LONG.strip()}”"  # the dollars stayed dollars
    assert max(map(len, quoted.splitlines())) <= 54
    assert "no rule of this policy forbids it" in found and "the answer could not be read" in found


def test_everything_drawn_stays_on_the_page():
    for name in ("show_gallery", "show_pairs", "show_verdicts"):
        fig = DRAWN[name]()
        fig.canvas.draw()
        page = fig.bbox
        for text in fig.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
                assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()


def test_a_name_is_a_file_name(tmp_path):
    with pytest.raises(InputError, match="is no file name"):
        figures.save(DRAWN["show_pairs"](), "../figure", SHARES, tmp_path)


def test_curves_are_drawn_of_what_a_log_has():
    """A training with few steps logs no loss, one without ``beta`` no divergence."""
    log = pd.DataFrame({"step": [1, 2], "reward": [0.1, 0.2], "right": [0.0, 0.5]})
    labels = figures.curve_labels(log)
    assert list(labels) == ["reward", "right"]
    panels = figures.curves(log, labels | {"kl": "KL"}).axes
    titles = [ax.get_title("left") for ax in panels if ax.get_visible()]
    assert titles == ["reward", "share right"]
    assert not any(ax.get_visible() for ax in figures.curves(log[["step"]], {"loss": "loss"}).axes)


def test_a_running_mean_is_never_of_one_row_and_a_dashed_line_is_described():
    log = pd.DataFrame({"step": range(6), "says_safe": [0.0, 1, 0, 1, 0, 1]})
    figure = figures.curves(log, {"says_safe": "says safe"}, {"says_safe": 0.5, "kl": 1.0})
    values, mean, dashed = figure.axes[0].lines
    assert mean.get_ydata()[2:] == pytest.approx([1 / 3, 2 / 3, 1 / 3, 2 / 3])
    assert set(dashed.get_ydata()) == {0.5} and figure.get_label().endswith("50% in says safe.")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_log_of_few_rows_is_drawn_too(rows):
    """A training shorter than its ``logging_steps`` logs nothing: the columns hold objects."""
    log = pd.DataFrame({"step": [5], "loss": [2.5]}, dtype=object).iloc[:rows]
    (ax,) = figures.curves(log, {"loss": "loss"}).axes
    assert [len(line.get_xdata()) for line in ax.lines] == [rows, rows]
    assert (ax.lines[1].get_marker() == ".") == (rows == 1)


def test_a_figure_is_described_in_its_png_and_in_a_notebook(tmp_path):
    figure = figures.show_verdicts(examples())
    words = "An embrace: L1 safe, L5 unsafe, openai_content unparseable."
    assert figure.get_label() == f"{words} {words}"
    png = figures.save(figure, "figure5", SHARES, tmp_path)[1]
    assert figures.description(png, "") == figure.get_label()
    shell = InteractiveShell()
    select_figure_formats(shell, {"png"})
    data, metadata = shell.display_formatter.format(figure)
    assert data["image/png"] and metadata == {"image/png": {"alt": figure.get_label()}}
