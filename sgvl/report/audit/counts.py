"""Narrow down the sizes and the counts of test sets by all printed values together.

A test set is a grid [n, positives], true where no printed value rules it out. A cell is a list of
candidates (tp, errors). Each narrows the other, and a row's overall value narrows its cells.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.report.audit import arithmetic
from sgvl.report.audit.arithmetic import rounds_to

COMBINATIONS = 10**7  # more choices of candidates in one row than this are not searched


class Row(NamedTuple):
    """A row's overall value and the cells it should summarise."""

    overall: object  # the cell, as pandas' itertuples gives it
    parts: pd.DataFrame  # its cells


class Counts(NamedTuple):
    """The sizes and the counts that are still possible."""

    grids: dict[str, np.ndarray]  # set: boolean [n, positives]
    cells: dict[int, np.ndarray]  # index of the cell: its candidates (k, 2)


def rows(cells: pd.DataFrame) -> list[Row]:
    """Return the rows that have an overall value and every cell that it should summarise."""
    complete = []
    for (table, column), named in cells[cells["overall"] != ""].groupby(["table", "overall"]):
        own = cells[(cells["table"] == table) & (cells["column"] == column)]
        for overall in own.itertuples():
            parts = named[named["row"] == overall.row]
            if len(parts) == named["column"].nunique():
                complete.append(Row(overall, parts))
    return sorted(complete, key=lambda row: row.overall.Index)


def grids(cells: pd.DataFrame, most: dict[str, int]) -> dict[str, np.ndarray]:
    """Return the grid of each set that its cells alone allow; ``most`` is the largest n by set."""
    grids = {}
    for name, max_n in most.items():
        n, positives = np.ogrid[: max_n + 1, : max_n + 1]
        grids[name] = (positives <= n) & (n > 0)
        own = cells[cells["set"] == name]
        shares = own[own["metric"] == "accuracy"]
        possible = arithmetic.possible_n(shares["value"], shares["decimals"], max_n)
        grids[name] &= np.isin(n, possible)
        for cell in own[own["metric"] == "f1"].itertuples():
            candidates = arithmetic.possible_f1(cell.value, cell.decimals, max_n)
            grids[name] &= arithmetic.allowed(candidates, max_n)
    return grids


def share(grid: np.ndarray, percent: float, decimals: int) -> np.ndarray:
    """Return the part of a grid on which this percentage of n is positive."""
    n, positives = np.ogrid[: len(grid), : len(grid)]
    return grid & (n > 0) & rounds_to(positives, n, percent, decimals)


def start(cells: pd.DataFrame, grids: dict[str, np.ndarray]) -> Counts:
    """Return the candidates of every cell of these sets, each cell on its own.

    An accuracy gives counts only on sets without positives: there tp is 0 and errors are n - k.
    Cells of a set whose values contradict each other have no candidates.
    """
    candidates_of = {}
    possible = [name for name, grid in grids.items() if grid.any()]
    for cell in cells[cells["set"].isin(possible)].itertuples():
        grid = grids[cell.set]
        if cell.metric == "f1":
            candidates = arithmetic.possible_f1(cell.value, cell.decimals, len(grid) - 1)
            candidates_of[cell.Index] = arithmetic.supported(candidates, grid)
        elif cell.metric == "accuracy" and not grid[:, 1:].any():
            n = np.flatnonzero(grid[:, 0])
            k = np.rint(cell.value * n / 100).astype(int)
            candidates_of[cell.Index] = np.stack([np.zeros_like(n), n - k], axis=1)
    return Counts(grids, candidates_of)


def candidates(row: Row, counts: Counts) -> list[np.ndarray] | None:
    """Return the candidates of a row's cells; None if some are unknown or too many to search."""
    if not all(index in counts.cells for index in row.parts.index):
        return None
    parts = [counts.cells[index] for index in row.parts.index]
    return parts if math.prod(map(len, parts)) <= COMBINATIONS else None


def solve(rows: list[Row], counts: Counts) -> Counts:
    """Narrow cells and grids by these rows' overall values, read as pooled F1, until all is stable.

    Every row must have ``candidates``. Values that contradict each other end in empty grids.
    """
    grids, cells = dict(counts.grids), dict(counts.cells)
    sets = {index: name for row in rows for index, name in row.parts["set"].items()}
    before, left = None, _left(grids, cells)
    while left != before:
        for row in rows:
            indices = list(row.parts.index)
            parts = [arithmetic.supported(cells[index], grids[sets[index]]) for index in indices]
            fits = arithmetic.pooled(parts, row.overall.value, row.overall.decimals)
            for axis, index in enumerate(indices):
                others = tuple(other for other in range(len(indices)) if other != axis)
                cells[index] = parts[axis][fits.any(axis=others)]
                grid = grids[sets[index]]
                grids[sets[index]] = grid & arithmetic.allowed(cells[index], len(grid) - 1)
        before, left = left, _left(grids, cells)
    return Counts(grids, cells)


def _left(grids, cells):
    return sum(map(len, cells.values())) + sum(int(grid.sum()) for grid in grids.values())


def least_rows(row: Row, counts: Counts) -> int:
    """Return the fewest rows, of all sets together, that allow this row's values."""
    parts = candidates(row, counts)
    fits = arithmetic.pooled(parts, row.overall.value, row.overall.decimals)
    total = 0
    for part, name in zip(parts, row.parts["set"], strict=True):
        smallest = np.flatnonzero(counts.grids[name].any(axis=1))[0]
        total = np.add.outer(total, np.maximum(part.sum(axis=1), smallest))
    return int(total[fits].min())
