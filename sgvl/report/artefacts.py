"""Write, compare and publish the artefacts of a run: tables, figures and the report.

A notebook writes them to ``runs/<profile>/figures/``. ``figures/<profile>/`` is the published copy,
which a run never touches: ``compare`` says whether a run agrees with it, ``publish`` replaces it.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

from sgvl.common import files
from sgvl.common.errors import InputError, nearest
from sgvl.common.paths import FIGURES, ROOT, figures_of
from sgvl.report import figures, tables
from sgvl.run import receipts
from sgvl.run.units import fingerprint, load_units

SAME, INSIDE, OUTSIDE = "same bytes", "inside the intervals", "outside"
MISSING, NEW = "missing", "new"
WITH_INTERVAL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")  # "73.4 [65.0, 81.2]"
MEASURED = re.compile(rf"-?\d+\.\d+(e-?\d+)?|{WITH_INTERVAL.pattern}")  # never a row's label
PRINTED_CELLS = 8  # of an artefact that is outside; the others are counted


class Artefacts:
    """Writes the tables and figures of one notebook to the run's folder.

    ``finish`` writes their manifest, ``<notebook>.json``; files without one do not count.
    """

    def __init__(self, profile: str, notebook: str):
        self.folder = figures_of(profile)
        self._manifest = self.folder / f"{notebook}.json"
        self._manifest.unlink(missing_ok=True)
        self._paths: list[Path] = []

    def table(self, name: str, frame: pd.DataFrame, caption: str, note: str) -> pd.DataFrame:
        """Write a table as ``tables.write_table`` does, and return the frame."""
        self.add(tables.write_table(frame, self.folder, name, caption, note))
        return frame

    def figure(self, name: str, figure: plt.Figure, numbers: pd.DataFrame) -> plt.Figure:
        """Write a figure and its numbers as ``figures.save`` does, and return the figure."""
        self.add(figures.save(figure, name, numbers, self.folder))
        return figure

    def add(self, paths: Iterable[Path]) -> None:
        """Add files that something else has written to the folder."""
        self._paths += paths

    def finish(self) -> pd.Series:
        """Write the manifest, and return the sha256 of each file by its name."""
        digests = {path.name: fingerprint(path)["sha256"] for path in self._paths}
        files.write(self._manifest, json.dumps(digests, indent=1) + "\n")
        return pd.Series(digests, name="sha256")


class Cell(NamedTuple):
    """A cell in which a run does not agree with what was published; "absent" where one has none."""

    row: str
    column: str
    published: str
    run: str


class Comparison(NamedTuple):
    """Outcome of comparing one artefact of a run with the published one."""

    name: str
    outcome: str  # SAME, INSIDE, OUTSIDE, MISSING (from the run) or NEW (not published)
    cells: list[Cell]  # those that are outside

    @property
    def agrees(self) -> bool:
        """Return False if the artefact is missing or has cells outside."""
        return self.outcome not in (OUTSIDE, MISSING)


def compare(profile: str) -> list[Comparison]:
    """Compare the numbers of a run's artefacts with the published ones.

    An artefact is a CSV: a table, a figure's numbers, the claims. It is inside the intervals if
    each value with a published 95 % interval lies in it and everything else is equal, numbers after
    rounding to the two decimals that tables print.

    Raises InputError if nothing is published for the profile, or the run has written nothing.
    """
    published = FIGURES / profile
    names = sorted(path.stem for path in published.glob("*.csv"))
    if not names:
        known = sorted(path.parent.name for path in FIGURES.glob("*/*.csv"))
        raise InputError(f"{published}: nothing is published; {nearest(profile, set(known))}")
    run = figures_of(profile)
    of_run = {Path(name).stem for name in _manifests(run) if name.endswith(".csv")}
    comparisons = []
    for name in names:
        if name in of_run:
            comparisons.append(_compare(name, published / f"{name}.csv", run / f"{name}.csv"))
        else:
            comparisons.append(Comparison(name, MISSING, []))
    return comparisons + [Comparison(name, NEW, []) for name in sorted(of_run - set(names))]


def show(comparisons: list[Comparison]) -> str:
    """Return the comparisons as text: a line each, the cells that are outside, and the counts."""
    lines = []
    for name, outcome, cells in comparisons:
        count = f": {len(cells)} cell{'s' * (len(cells) > 1)}" if cells else ""
        lines.append(f"{name:<24} {outcome}{count}")
        lines += [
            f"    row {cell.row!r}, column {cell.column!r}: "
            f"published {cell.published or 'empty'}, this run {cell.run or 'empty'}"
            for cell in cells[:PRINTED_CELLS]
        ]
        if len(cells) > PRINTED_CELLS:
            lines.append(f"    and {len(cells) - PRINTED_CELLS} more")
    counts = pd.Series([comparison.outcome for comparison in comparisons]).value_counts()
    outcomes = [f"{counts[name]} {name}" for name in (SAME, INSIDE, OUTSIDE, MISSING, NEW)
                if name in counts]  # fmt: skip
    return "\n".join([*lines, f"{len(comparisons)} artefacts: {', '.join(outcomes)}"])


def publish(profile: str) -> list[Path]:
    """Replace ``figures/<profile>/`` by the run's artefacts, and return the files written.

    Files there that the run no longer makes are removed. Raises InputError if a unit of the profile
    is not up to date, or an artefact is missing or was changed since it was written.
    """
    units = load_units(profile)
    states = {name: receipts.state(unit, units) for name, unit in units.items()}
    if problems := [
        f"{name} is {status}: {note}".removesuffix(": ")
        for name, (status, note) in states.items()
        if not status.done
    ]:
        raise InputError([*problems, f"nothing was published; python -m sgvl.run {profile} first"])
    run, published = figures_of(profile), FIGURES / profile
    names = _manifests(run)
    published.mkdir(parents=True, exist_ok=True)
    for old in published.iterdir():
        if old.name not in names:
            old.unlink()
    for name in names:
        files.write(published / name, (run / name).read_bytes())
    return [published / name for name in names]


def _manifests(folder: Path) -> dict[str, str]:
    """Read the manifests of a run's artefacts and check every file against them."""
    digests = {}
    for manifest in sorted(folder.glob("*.json")):
        digests |= json.loads(manifest.read_text(encoding="utf-8"))
    place = folder.relative_to(ROOT)
    if not digests:
        raise InputError(f"{place}: no notebook has finished writing its artefacts")
    changed = [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or fingerprint(folder / name)["sha256"] != digest
    ]
    if changed:
        raise InputError(
            f"{place}/{name} is not the file that the run wrote; run its notebook with --force"
            for name in changed
        )
    return digests


def _compare(name: str, published: Path, run: Path) -> Comparison:
    if published.read_bytes() == run.read_bytes():
        return Comparison(name, SAME, [])
    cells = differences(*(pd.read_csv(path, dtype=str, keep_default_na=False)
                          for path in (published, run)))  # fmt: skip
    return Comparison(name, OUTSIDE if cells else INSIDE, cells)


def differences(published: pd.DataFrame, run: pd.DataFrame) -> list[Cell]:
    """List the cells in which two versions of a frame do not agree, as ``compare`` defines it.

    Both frames hold text, as printed. Rows are matched by their labels: as many leading columns of
    the published frame as it takes to tell its rows apart, measured values excepted. Rows with the
    same labels are matched in order.
    """
    labels = _label_columns(published)
    bounds = {column: pair for column in published if (pair := _bounds(column, published))}
    ends = {end for pair in bounds.values() for end in pair}
    cells = [
        Cell("(whole column)", column, *_presence(column, published, run))
        for column in dict.fromkeys([*published, *run])
        if not (column in published and column in run)
    ]
    columns = [column for column in published if column in run and column not in {*labels, *ends}]
    old, new = _by_label(published, labels), _by_label(run, labels)
    for label in dict.fromkeys([*old, *new]):
        row = ", ".join(label)
        if not (label in old and label in new):
            cells.append(Cell(row, "(whole row)", *_presence(label, old, new)))
            continue
        for column in columns:
            before, after = old[label][column], new[label][column]
            interval = [old[label][end] for end in bounds.get(column, ())]
            if not _agrees(before, after, interval):
                cells.append(Cell(row, column, before, after))
    return cells


def _presence(key, published, run) -> list[str]:
    return ["present" if key in side else "absent" for side in (published, run)]


def _label_columns(frame: pd.DataFrame) -> list[str]:
    """Return the leading columns of text or whole numbers that label the rows."""
    columns = []
    for column in frame:
        if frame[column].map(lambda text: bool(MEASURED.fullmatch(text))).any():
            break
        columns.append(column)
        if not frame.duplicated(columns).any():
            break
    return columns


def _by_label(frame: pd.DataFrame, labels: list[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return rows by their labels; rows with the same labels are numbered from the second on."""
    rows = {}
    for row in frame.to_dict("records"):
        label, number = tuple(row.get(column, "absent") for column in labels), 1
        while (key := (*label, *[str(number)] * (number > 1))) in rows:
            number += 1
        rows[key] = row
    return rows


def _bounds(column: str, frame: pd.DataFrame) -> tuple[str, str] | None:
    """Return the columns that hold the interval of a column, if it has one."""
    prefix = "" if column in ("value", "effect") else f"{column}_"
    pair = f"{prefix}low", f"{prefix}high"
    return pair if set(pair) <= set(frame) else None


def _agrees(published: str, run: str, interval: list[str]) -> bool:
    """Return True if two printed cells agree; ``interval`` holds the published bounds, if any."""
    if published == run:
        return True
    cells = [WITH_INTERVAL.fullmatch(text) for text in (published, run)]
    if all(cells):
        published, *interval = cells[0].groups()
        run = cells[1][1]
    before, after = _number(published), _number(run)
    if before is None or after is None:
        return False
    if interval and "" not in interval:
        low, high = map(float, interval)
        if low - 1e-9 <= after <= high + 1e-9:
            return True
    return f"{before:.2f}" == f"{after:.2f}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
