"""Findings that follow from the tables alone."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.report.audit import arithmetic, counts
from sgvl.report.audit.counts import Counts, Row
from sgvl.report.audit.findings import CELL, POOLED, Finding, agrees, given, span

MOST_N = 4096  # sizes looked at for accuracies


class Summary(NamedTuple):
    """A row's overall value, and how it comes from the row's cells."""

    row: Row
    average: arithmetic.Average
    parts: list[np.ndarray] | None  # the candidates of its cells, where they have counts

    @property
    def chance(self) -> float:
        """Return the probability that a random value would be a pooled F1 of these cells."""
        overall = self.row.overall
        return arithmetic.reach(self.parts, self.row.parts["value"], overall.decimals)

    def is_mean_of(self, metric: str) -> bool:
        """Return True if it is the mean of the columns that have this metric."""
        parts, overall = self.row.parts, self.row.overall
        values = parts.loc[parts["metric"] == metric, "value"]
        kind = arithmetic.averaging(values, overall.value, overall.decimals).kind
        return kind == "mean"


def summarise(row: Row, counted: Counts) -> Summary:
    """Decide if a row's overall value is a mean, a pooled F1, or neither."""
    parts = counts.candidates(row, counted)
    values, overall = row.parts["value"], row.overall
    return Summary(row, arithmetic.averaging(values, overall.value, overall.decimals, parts), parts)


def sizes(cells: pd.DataFrame) -> list[Finding]:
    """Report, for each set, the n that can give all of its accuracies."""
    findings = []
    for name, own in cells[cells["metric"] == "accuracy"].groupby("set", sort=False):
        n = arithmetic.possible_n(own["value"], own["decimals"], MOST_N)
        follows = f"n is {span(n)} (looked at up to {MOST_N})"
        if len(n):
            chance = arithmetic.chance(n[0], own["value"], own["decimals"])
            follows += f"; random values would fit so small an n with probability {chance:.0e}"
        printed = f"{len(own)} accuracies, {own['value'].nunique()} of them distinct"
        where = f"{name} in {' and '.join(own['table'].unique())}"
        certainty = given("decimals", "same rows")
        findings.append(Finding("sizes", where, printed, follows, "follows", certainty))
    return findings


def unsafe(grids: dict[str, np.ndarray]) -> list[Finding]:
    """Report the sizes that the cells of each set allow, and those that all sets can share."""
    findings = [
        Finding("unsafe", name, f"up to n = {len(grid) - 1}", _open(grid), verdict, given(*CELL))
        for name, grid in grids.items()
        for verdict in ["follows" if grid.any() else "contradicts"]
    ]
    if len(grids) > 1:
        sizes = [set(np.flatnonzero(grid.any(axis=1))) for grid in grids.values()]
        follows = f"sizes that fit all of them: {span(sorted(set.intersection(*sizes)))}"
        where = ", ".join(grids)
        findings += [Finding("unsafe", where, "one n for all", follows, "follows", given(*CELL))]
    return findings


def averages(summaries: list[Summary]) -> list[Finding]:
    """Report for each row if its overall value is a mean or a pooled F1."""
    findings = []
    for summary in summaries:
        overall, average = summary.row.overall, summary.average
        follows = f"{average.kind}: the mean is {average.mean:.2f}, the gap {average.gap:+.2f}"
        if "pooled" in average.kind:
            follows += f"; {_fraction(summary)}"
        where = f"{overall.table}, {overall.row}, {overall.column}"
        certainty = given(*(POOLED[:-1] if summary.parts else ["decimals"]))
        findings.append(Finding("averages", where, overall.printed, follows, "follows", certainty))
    return findings


def solved(rows: list[Row], counted: Counts) -> list[Finding]:
    """Report the sets and cells that remain possible if all these rows are pooled F1."""
    if not rows:
        return []
    where, printed = rows[0].overall.table, f"{len(rows)} overall values together"
    grids = {name: counted.grids[name] for row in rows for name in row.parts["set"]}
    if not all(grid.any() for grid in grids.values()):
        left = {where: "no counts fit all of them"}
    else:
        left = {name: _open(grid) for name, grid in grids.items()}
        least = max(counts.least_rows(row, counted) for row in rows)
        known = sum(all(len(counted.cells[i]) == 1 for i in row.parts.index) for row in rows)
        left[where] = (
            f"the sets have at least {least} rows in all; "
            f"in {known} table rows tp and errors of every cell are known"
        )
    return [
        Finding("counts", name, printed, follows, "follows", given(*POOLED))
        for name, follows in left.items()
    ]


def baselines(cells: pd.DataFrame, grids: dict[str, np.ndarray], certainty: str) -> list[Finding]:
    """Report how many judges do better than one that flags everything."""
    findings = []
    for name, grid in grids.items():
        own = cells[(cells["set"] == name) & (cells["metric"] == "f1")]
        n, positives = np.nonzero(grid)
        if own.empty or not positives.any():
            continue
        trivial = 200 * positives / (positives + n)
        below, above = own["value"] < trivial.min(), own["value"] > trivial.max()
        best = own.nlargest(1, "value").iloc[0]
        printed = f"{len(own)} F1 values, the best {best['printed']} ({best['row']})"
        follows = (
            f"flagging everything scores {trivial.min():.1f} to {trivial.max():.1f}: "
            f"{below.sum()} are below that, {above.sum()} above"
        )
        findings.append(Finding("baselines", name, printed, follows, "follows", certainty))
    return findings


def constant(cells: pd.DataFrame, grids: dict[str, np.ndarray]) -> list[Finding]:
    """Report rows that a constant answer explains, and rows that look constant but cannot be."""
    findings = []
    none_unsafe = {name for name, grid in grids.items() if not grid[:, 1:].any()}
    for (table, row), own in cells[cells["set"].isin(grids)].groupby(["table", "row"], sort=False):
        safe = own.loc[(own["metric"] == "accuracy") & own["set"].isin(none_unsafe), "value"]
        f1 = own.loc[own["metric"] == "f1", "value"]
        if safe.empty or f1.empty:
            continue
        if (safe == 100).all() and (f1 == 0).all():
            follows = "what always answering safe scores"
        elif (safe == 0).all() and (f1 == 0).any():
            follows = (
                "every safe image wrong there, every unsafe one here: no one answer does this, "
                "but counting unparseable answers as wrong does"
            )
        else:
            continue
        printed = f"accuracy {safe.iloc[0]:g}, F1 {', '.join(f'{value:g}' for value in f1)}"
        certainty = given("unsafe F1", "shares")
        findings.append(
            Finding("baselines", f"{table}, {row}", printed, follows, "follows", certainty)
        )
    return findings


def repeats(cells: pd.DataFrame, alias: dict[str, str]) -> list[Finding]:
    """Report whether numbers that are printed in more than one table agree."""
    findings, compared = [], 0
    named = cells.assign(row=cells["row"].replace(alias))
    twice = named[named.duplicated(["set", "row"], keep=False)]
    for (name, row), own in twice.groupby(["set", "row"], sort=False):
        first, *others = own.itertuples()
        for other in others:
            compared += 1
            digits = min(first.decimals, other.decimals)
            if not arithmetic.same(first.value, other.value, digits):
                where = f"{first.table} and {other.table}, {row}, {name}"
                printed = f"{first.printed} and {other.printed}"
                certainty = given("decimals", "same rows", "one model")
                findings.append(
                    Finding("repeats", where, printed, "they differ", "contradicts", certainty)
                )
    if compared:
        printed = f"{compared} numbers stand in a second table"
        follows = f"{compared - len(findings)} of them are the same there"
        verdict, certainty = agrees(not findings), given("one model")
        findings.append(Finding("repeats", "all", printed, follows, verdict, certainty))
    return findings


def _open(grid):
    n, positives = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
    if not len(n):
        return "no n fits"
    # F1 never bounds n from above: where every n to the end of the grid fits, larger ones do too.
    size = f"at least {n[0]}" if len(n) == len(grid) - n[0] else span(n)
    return f"n is {size}, unsafe {span(positives)}"


def _fraction(summary):
    """Return the pooled F1 in counts, as far as this row alone determines them."""
    overall, parts = summary.row.overall, summary.parts
    fits = arithmetic.pooled(parts, overall.value, overall.decimals)
    chosen = np.argwhere(fits).T
    tp, errors = sum(part[index] for part, index in zip(parts, chosen, strict=True)).T
    fraction = f"2 x {span(np.unique(tp))} / {span(np.unique(2 * tp + errors))}"
    return f"{fraction}, by {chosen.shape[1]} of {fits.size} choices of counts"
