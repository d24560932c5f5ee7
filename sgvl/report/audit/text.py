"""Check the numbers that the text states against the tables.

``sgvl.report.audit`` lists the kinds of claims.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.common.errors import InputError, nearest, need_known
from sgvl.report.audit import arithmetic, counts
from sgvl.report.audit.arithmetic import rounds_to, same
from sgvl.report.audit.counts import Counts, Row
from sgvl.report.audit.findings import CELL, POOLED, Finding, agrees, given, span
from sgvl.report.audit.tables import Summary
from sgvl.report.reference import decimals

SIZES = ("images", "pairs", "rows")
SETS = (*SIZES, "total", "unsafe")  # kinds that are about test sets
SIDES = {"difference": 2, "order": 2}  # of " > "; all other kinds have one
CELLS = ("cell", "minimum", "maximum", "count", "mean", *SIDES)  # kinds that are about cells
KINDS = (*SETS, *CELLS, "alias")
WORDS = ("order", "mean", "alias")  # kinds whose value is no number


class Claim(NamedTuple):
    """One line of ``text.csv``."""

    name: str
    kind: str
    about: str
    printed: str
    value: float  # NaN for words
    where: str
    quote: str

    @property
    def decimals(self) -> int:
        """Count the decimals of the printed value."""
        return decimals(self.printed)

    @property
    def sets(self) -> list[str]:
        """List the test sets that the claim is about."""
        return self.about.split(";")

    def finding(self, follows: str, verdict: str, *assumptions: str) -> Finding:
        """Return a finding about this claim."""
        printed = f'"{self.quote}"' if self.quote else self.printed
        where = f"{self.where}, {self.name}"
        return Finding("text", where, printed, follows, verdict, given(*assumptions))


def claims(text: pd.DataFrame, cells: pd.DataFrame) -> list[Claim]:
    """Read the lines of ``text.csv``. Raises ``InputError`` with every line that cannot be read."""
    values = pd.to_numeric(text["value"], errors="coerce")
    lines = [
        Claim(*line[:4], value, *line[4:])
        for line, value in zip(text.itertuples(index=False), values, strict=True)
    ]
    problems = []
    for claim in lines:
        try:
            _check(claim, cells)
        except InputError as error:
            problems.append(f"text.csv, claim {claim.name!r}, column {error}")
    if problems:
        raise InputError(problems)
    return lines


def select(cells: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """Return the cells that "table:row:column" names; a part may hold wildcards of ``fnmatch``.

    Raises ``InputError`` if there is none.
    """
    parts = pattern.split(":")
    if len(parts) != 3:
        raise InputError(f"{pattern!r} is not table:row:column")
    fits = np.ones(len(cells), bool)
    for column, part in zip(("table", "row", "column"), parts, strict=True):
        known = cells.loc[fits, column].unique()
        wanted = [name for name in known if fnmatchcase(name, part)]
        if not wanted:
            raise InputError(f"no {column} {part!r}; {nearest(part, known)}")
        fits &= cells[column].isin(wanted).to_numpy()
    return cells[fits]


def largest(claims: list[Claim]) -> dict[str, int]:
    """Return, by set, the largest number of rows that the text's images and pairs give it."""
    sizes = {}
    for claim in claims:
        if claim.kind in ("images", "pairs"):
            rows = _readings(claim)[0]
            sizes |= {name: max(rows, sizes.get(name, 0)) for name in claim.sets}
    return sizes


def check_size(claim: Claim, cells: pd.DataFrame, grids: dict[str, np.ndarray]) -> Finding:
    """Report whether each set can have so many rows."""
    misfits = {rows: _misfits(rows, claim.sets, cells, grids) for rows in _readings(claim)}
    fitting = [rows for rows in misfits if not misfits[rows]]
    if fitting:
        follows = f"{fitting[0]} rows fit every value of {', '.join(claim.sets)}"
        own = cells[cells["set"].isin(claim.sets) & (cells["metric"] == "accuracy")]
        if len(own):
            chance = arithmetic.chance(fitting[0], own["value"], own["decimals"])
            follows += f", as random accuracies would with probability {chance:.0e}"
    else:
        follows = "; ".join(f"{rows} rows: {'; '.join(why)}" for rows, why in misfits.items())
    return claim.finding(follows, agrees(bool(fitting)), *CELL[:3])


def check_share(claim: Claim, grids: dict[str, np.ndarray]) -> list[Finding]:
    """Report whether this percentage of a set can be unsafe."""
    findings = []
    for name in (name for name in claim.sets if name in grids):
        fits = counts.share(grids[name], claim.value, claim.decimals)
        n, unsafe = (span(np.flatnonzero(fits.any(axis=axis))) for axis in (1, 0))
        follows = f"{name} can have it: {unsafe} of {n}" if fits.any() else f"no {name} has it"
        findings.append(claim.finding(follows, agrees(fits.any()), *CELL))
    return findings


def check_total(claim: Claim, rows: list[Row], counted: Counts) -> Finding:
    """Report whether these sets can have so many rows together; ``rows``: those that are pooled."""
    grids = [counted.grids[name] for name in claim.sets if name in counted.grids]
    if len(grids) < len(claim.sets) or not all(grid.any() for grid in grids):
        return claim.finding("their sizes are not known", "follows")
    least = [int(np.flatnonzero(grid.any(axis=1))[0]) for grid in grids]
    most = sum(int(np.flatnonzero(grid.any(axis=1))[-1]) for grid in grids)
    low = max([sum(least), *(counts.least_rows(row, counted) for row in rows)])
    follows = f"they have {low} to {most}"
    if claim.value == low == sum(least):
        follows += f"; it is the fewest possible, so n is {', '.join(map(str, least))}"
    return claim.finding(follows, agrees(low <= claim.value <= most), *POOLED)


def check_mean(claim: Claim, cells: pd.DataFrame, summaries: list[Summary]) -> Finding:
    """Report how many of these overall values are means of their columns, or pooled F1."""
    wanted = select(cells, claim.about).index
    own = [summary for summary in summaries if summary.row.overall.Index in wanted]
    if not own:
        place = f"text.csv, claim {claim.name!r}, column about"
        raise InputError(f"{place}: columns.csv names no columns that {claim.about!r} summarises")
    means = [summary for summary in own if "mean" in summary.average.kind.split(" or ")]
    follows = f"{len(means)} of {len(own)} are means of their columns"
    if pooled := [summary for summary in own if "pooled" in summary.average.kind]:
        chance = np.prod([summary.chance for summary in pooled])
        f1_means = sum(summary.is_mean_of("f1") for summary in own)
        follows += f", {f1_means} of the F1 columns alone; {len(pooled)} are pooled F1, which "
        follows += f"random values would be with probability {chance:.0e}"
    return claim.finding(follows, agrees(len(means) == len(own)), "decimals")


def check_figure(shares: pd.DataFrame, counted: Counts) -> list[Finding]:
    """Check shares of unsafe images, as a figure shows them, against the counts still possible."""
    findings = []
    for name, printed in shares.itertuples(index=False):
        if name in counted.grids and counted.grids[name].any():
            fits = counts.share(counted.grids[name], float(printed), decimals(printed))
            follows = "the counts that are left allow it" if fits.any() else "no counts give it"
            verdict, where = agrees(fits.any()), f"figure4, {name}"
            share = f"{printed} % unsafe"
            findings.append(Finding("text", where, share, follows, verdict, given(*POOLED)))
    return findings


def check_cells(claim: Claim, cells: pd.DataFrame) -> Finding:
    """Check a number or an order in the text against the cells that it is about."""
    chosen, *others = (select(cells, side) for side in claim.about.split(" > "))
    if claim.kind == "order":
        return _check_order(claim, chosen, *others)
    if claim.kind == "difference":
        return _check_difference(claim, chosen.iloc[0], others[0].iloc[0])
    if claim.kind == "count":
        names = chosen["row"] if chosen["row"].nunique() > 1 else chosen["column"]
        follows = f"{len(chosen)} printed: {', '.join(names)}"
        return claim.finding(follows, agrees(len(chosen) == claim.value), "reading")
    extreme = {"minimum": chosen["value"].min(), "maximum": chosen["value"].max()}
    chosen = chosen[chosen["value"] == extreme.get(claim.kind, chosen["value"])]
    digits = np.minimum(chosen["decimals"], claim.decimals)
    fits = same(chosen["value"], claim.value, digits)
    names = " and ".join(f"{cell.row} {cell.column} {cell.printed}" for cell in chosen.itertuples())
    return claim.finding(f"{chosen['table'].iloc[0]} has {names}", agrees(fits.all()))


def _check(claim, cells):
    need_known("kind:", claim.kind, KINDS)
    if claim.kind not in WORDS and np.isnan(claim.value):
        raise InputError(f"value: {claim.printed!r} is no number")
    try:
        if claim.kind in CELLS:
            sides = [select(cells, side) for side in claim.about.split(" > ")]
            if len(sides) != SIDES.get(claim.kind, 1):
                raise InputError(f"{claim.kind} takes {SIDES.get(claim.kind, 1)} side(s) of ' > '")
        for name in claim.sets if claim.kind in SETS else []:
            need_known("no set", name, cells["set"].unique())
    except InputError as error:
        raise InputError(f"about: {error}") from error


def _readings(claim):
    """List the numbers of rows it may mean: of "128 images", each may have a counterpart or not."""
    rows = int(claim.value)
    return {"images": (rows, 2 * rows), "pairs": (2 * rows,), "rows": (rows,)}[claim.kind]


def _misfits(rows, sets, cells, grids):
    """List why some of these sets cannot have so many rows."""
    why = []
    for name in sets:
        own = cells[(cells["set"] == name) & (cells["metric"] == "accuracy")]
        k = np.rint(own["value"] * rows / 100).astype(int)
        wrong = own[~rounds_to(k, rows, own["value"], own["decimals"])]
        if len(wrong):
            cell, close = wrong.iloc[0], 100 * k[wrong.index[0]] / rows
            example = f"{cell.printed} ({cell.row}; the nearest is {close:.2f})"
            why.append(f"{len(wrong)} of {len(own)} values of {name} are no k/{rows}: {example}")
        elif name in grids and not grids[name][: rows + 1].any():
            least = np.flatnonzero(grids[name].any(axis=1))
            why.append(f"{name} has {f'at least {least[0]}' if len(least) else 'no size'}")
    return why


def _check_difference(claim, left, right):
    difference = left["value"] - right["value"]
    follows = f"{left['printed']} - {right['printed']} = {difference:+.2f}"
    slack = sum(0.5 / 10**x for x in (left["decimals"], right["decimals"], claim.decimals))
    return claim.finding(follows, agrees(abs(difference - claim.value) <= slack + 1e-9))


def _check_order(claim, left, right):
    """Compare row by row where both sides have the same rows, else each with each."""
    left, right = left.set_index("row")["value"], right.set_index("row")["value"]
    if set(left.index) == set(right.index):
        gaps = left - right
    else:
        gaps = pd.Series(np.subtract.outer(left.to_numpy(), right.to_numpy()).ravel())
    holds = int((gaps > 0).sum())
    mostly = "partly" if 2 * holds > len(gaps) else "contradicts"
    verdict = "agrees" if holds == len(gaps) else mostly
    follows = f"holds in {holds} of {len(gaps)}, by {gaps.min():+.2f} to {gaps.max():+.2f} points"
    return claim.finding(follows, verdict, "reading")
