"""The published numbers: one CSV per table, cell by cell as printed.

The first line of each CSV names its source. A cell is the text of the print, so "27.50" and "24"
keep their digits; an empty cell is one that the paper left out.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sgvl.common.errors import InputError, nearest
from sgvl.common.paths import PACKAGE

HERE = PACKAGE / "report" / "reference"
METRICS = ("accuracy", "f1", "other")
# Our judges by id, and their rows in the paper's tables: every row of Tables 2 to 6 has one. The
# paper's base has two names there.
ROWS = {
    "base": ("Qwen2.5-VL-7B", "Qwen2.5-7B"),
    "no_recap": ("w/o Recap (SFT)",),
    "sft": ("Ours (SFT)",),
    "rl": ("Ours (RL)",),
    "rl_safeedit": ("Ours (RL+SafeEditTrain)",),
    "full": ("Ours (Full)",),
    **{f"sft_L{k}": (f"SFT on L{k}",) for k in range(1, 6)},
    **{f"rl_L{k}": (f"RL on L{k}",) for k in range(1, 6)},
    "qwenguard_3b": ("QwenGuard-3B",),
    "qwenguard_7b": ("QwenGuard-7B",),
    "llavaguard_05b": ("LlavaGuard-0.5B",),
    "llavaguard_7b": ("LlavaGuard-7B",),
    "shieldgemma2": ("ShieldGemma2",),
    "llama_guard": ("Llama Guard",),
    "qwen2vl_7b": ("Qwen2-VL-7B",),
    "llava16_7b": ("LLaVA-V1.6-7B",),
    "instructblip": ("InstructBLIP",),
    "glm_4v_9b": ("GLM-4V-9B",),
    "nudenet": ("NudeNet",),
    "nsfw_detector": ("NSFW_Detector",),
    "multiheaded": ("MultiHeaded",),
    "sd_filter": ("SD_Filter",),
}
HEADS = {
    "columns": ["table", "column", "set", "metric", "overall"],
    "text": ["claim", "kind", "about", "value", "where", "quote"],
    "figure4": ["policy", "unsafe_percent"],
    "hub": ["kind", "name", "hub"],
}


class Paper(NamedTuple):
    """The numbers that a paper printed, in long form."""

    cells: pd.DataFrame  # a row per number: row, the head of columns.csv, printed, value, decimals
    text: pd.DataFrame  # a row per claim, with the head of text.csv; all as text
    shares: pd.DataFrame  # unsafe images by set, with the head of figure4.csv; all as text


def table(name: str, folder: Path | str = HERE) -> pd.DataFrame:
    """Read one CSV of the folder, all cells as text, "" where nothing is printed.

    Raises ``InputError`` if there is no such file, or if it names no source, neither on its first
    line ("# source: ...") nor in a column of that name.
    """
    path = Path(folder, f"{name}.csv")
    if not path.is_file():
        known = sorted(other.stem for other in Path(folder).glob("*.csv"))
        raise InputError(f"{path}: no such file; {nearest(name, known)}")
    with path.open(encoding="utf-8") as lines:
        noted = lines.readline().startswith("# source: ")
        lines.seek(0)
        try:
            frame = pd.read_csv(lines, dtype=str, keep_default_na=False, skiprows=int(noted))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from error
    if not noted and "source" not in frame:
        raise InputError(f"{path}: the first line is not '# source: ...'")
    if lacking := [column for column in HEADS.get(name, []) if column not in frame]:
        raise InputError(f"{path}: no column {', '.join(lacking)}")
    return frame[HEADS.get(name, frame.columns)]


def paper(folder: Path | str = HERE) -> Paper:
    """Read the columns that ``columns.csv`` names, the claims of ``text.csv`` and ``figure4.csv``.

    ``value`` is in the unit of the print (percent); ``decimals`` are those of the longest cell of
    the table, since papers often drop trailing zeros. Raises ``InputError`` with all problems.
    """
    columns, problems, parts = table("columns", folder), [], []
    for row in columns[~columns["metric"].isin(METRICS)].itertuples():
        problems.append(
            f"columns.csv, {row.table} {row.column}: metric {row.metric!r}; "
            f"{nearest(row.metric, METRICS)}"
        )
    for name, named in columns.groupby("table", sort=False):
        frame = table(name, folder)
        frame = frame.set_index(frame.columns[0])
        wanted = [*named["column"], *named["overall"].loc[lambda text: text != ""]]
        problems += [
            f"{name}.csv has no column {column!r}, which columns.csv names; "
            f"{nearest(column, frame.columns)}"
            for column in dict.fromkeys(wanted)
            if column not in frame
        ]
        problems += [
            f"{name}.csv, row {row!r}: a second row of this name"
            for row in frame.index[frame.index.duplicated()]
        ]
        if not problems:
            parts.append(_numbers(name, frame, named, problems))
    drawn = Path(folder, "figure4.csv").is_file()
    shares = table("figure4", folder) if drawn else pd.DataFrame(columns=HEADS["figure4"])
    wrong = shares[~_percent(shares["unsafe_percent"]).between(0, 100)]
    problems += [f"figure4.csv, row {row.policy!r}: no percentage" for row in wrong.itertuples()]
    if problems:
        raise InputError(problems)
    return Paper(pd.concat(parts, ignore_index=True), table("text", folder), shares)


def unsafe_shares() -> dict[str, float]:
    """Return the paper's share of unsafe pictures under each policy (percent), from Figure 4."""
    shares = table("figure4")
    return dict(zip(shares["policy"], _percent(shares["unsafe_percent"]), strict=True))


def hub(kind: str) -> dict[str, str]:
    """Return the hub ids of the paper's models ("model") or data sets ("set"), by its names."""
    ids = table("hub").query("kind == @kind")
    return dict(zip(ids["name"], ids["hub"], strict=True))


def printed_row(judge: str, table_name: str) -> str | None:
    """Return the row of a table of the paper that is this judge (by id); None if there is none."""
    rows = set(table(table_name).iloc[:, 0])
    return next((row for row in ROWS.get(judge, ()) if row in rows), None)


def decimals(printed: str) -> int:
    """Count the digits after the point: 2 for "27.50", 0 for "24"."""
    return len(printed.partition(".")[2])


def _percent(printed):
    return pd.to_numeric(printed, errors="coerce").astype(float)


def _numbers(name, frame, named, problems):
    """Return a table's cells in long form; add those that are no percentage to ``problems``."""
    frame = frame[list(named["column"])].rename_axis(index="row", columns="column")
    cells = frame.stack().rename("printed").reset_index()
    cells = cells[cells["printed"] != ""].merge(named, on="column")
    cells["value"] = _percent(cells["printed"])
    problems += [
        f"{name}.csv, row {cell.row!r}, column {cell.column!r}: {cell.printed!r} is no percentage"
        for cell in cells[~cells["value"].between(0, 100)].itertuples()
    ]
    return cells.assign(decimals=cells["printed"].map(decimals).max())
