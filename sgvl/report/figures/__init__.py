"""Draw the paper's figures from scores, labels and pictures; nothing here computes a score.

Every drawing function returns a closed figure: as the last line of a cell it is shown once, and
none stays in memory. ``save`` writes it together with the numbers it shows.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from sgvl.common.files import replaced, write_csv
from sgvl.report.figures.charts import (
    adherence,
    by_seed,
    curve_labels,
    curves,
    precision_recall,
    score_heatmap,
    trade_off,
    unsafe_share,
)
from sgvl.report.figures.pictures import (
    pipeline,
    show_gallery,
    show_pairs,
    show_recaptions,
    show_replies,
    show_verdicts,
)
from sgvl.report.tables import output_paths, with_index_columns

STYLE = Path(__file__).with_name("sgvl.mplstyle")
DPI = 200


def use_style() -> None:
    """Use the kit's style for every figure drawn from here on."""
    plt.style.use(STYLE)


def save(fig: plt.Figure, name: str, frame: pd.DataFrame, folder: Path | str) -> list[Path]:
    """Write ``name`` as .pdf, .png and .csv (what is plotted) into ``folder``; return the paths.

    The same figure gives the same bytes: neither date nor program version is stored. The PNG holds
    the figure's description, which ``description`` reads. Raises
    ``InputError`` if ``name`` is no plain file name.
    """
    pdf, png, csv = paths = output_paths(folder, name, "pdf", "png", "csv")
    with replaced(pdf) as part:
        undated = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        fig.savefig(part, format="pdf", metadata=undated)
    with replaced(png) as part:
        described = {"Software": None, "Description": fig.get_label() or None}
        fig.savefig(part, format="png", dpi=DPI, metadata=described)
    write_csv(with_index_columns(frame), csv)
    plt.close(fig)
    return paths


def description(png: Path, otherwise: str) -> str:
    """Return the description in a PNG that ``save`` wrote, or ``otherwise`` if it has none."""
    with Image.open(png) as image:
        return image.info.get("Description", otherwise)
