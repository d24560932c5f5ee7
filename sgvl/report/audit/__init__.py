"""Check the arithmetic of published tables; no run is needed.

``audit(reference.paper(folder))`` takes any folder of CSVs. Each starts with "# source: ...":

    table1.csv, ...   a table as printed. The first column names the rows, all others are read as
                      text; an empty cell is one that the paper left out.
    columns.csv       table, column, set, metric, overall: the columns that hold percentages.
                      ``set`` is the test set that was scored; one name in two tables is one set.
                      ``metric`` is accuracy, f1, or other (an average, or not stated).
                      ``overall`` is the column of the same table that summarises this one.
    text.csv          claim, kind, about, value, where, quote: the numbers that the text states.
                        images, pairs, rows   the size of each set in ``about`` ("L1;L2")
                        total                 the rows of these sets together
                        unsafe                the percentage of unsafe images in them
                        cell                  the value of cells "table:row:column"; * means all
                        minimum, maximum      of such cells
                        count                 the number of such cells that are printed
                        difference            of "cell > cell", in points
                        order                 "cells > cells": the left ones are larger
                        mean                  these overall cells are means of their columns
                        alias                 ``about`` and ``value`` are two names of one model
    figure4.csv       policy, unsafe_percent: shares by set, as read from a figure. May be absent.

Each finding holds what was printed, what follows from it, and the assumptions that it rests on
(``findings.ASSUMPTIONS``). ``python -m sgvl.report.audit [folder]`` prints them.
"""

from sgvl.report.audit import blind, counts, tables, text
from sgvl.report.audit.findings import CELL, POOLED, Finding, given
from sgvl.report.reference import Paper

MOST_COUNTED = 512  # in larger sets, some counts give nearly every F1 of two decimals


def audit(paper: Paper) -> list[Finding]:
    """Return all findings about a paper. Raises ``InputError`` for claims that cannot be read."""
    cells, claims = paper.cells, text.claims(paper.text, paper.cells)
    most = {name: n for name, n in text.largest(claims).items() if n <= MOST_COUNTED}
    grids = counts.grids(cells, most)
    counted = counts.start(cells, _with_shares(grids, claims))
    summaries = [tables.summarise(row, counted) for row in counts.rows(cells)]
    pooled = [summary.row for summary in summaries if summary.average.kind == "pooled"]
    solved = counts.solve(pooled, counted)
    alias = {claim.about: claim.printed for claim in claims if claim.kind == "alias"}

    def check(claim):
        if claim.kind in text.SIZES:
            return [text.check_size(claim, cells, grids)]
        if claim.kind == "unsafe":
            return text.check_share(claim, grids)
        if claim.kind == "total":
            return [text.check_total(claim, pooled, solved)]
        if claim.kind == "mean":
            return [text.check_mean(claim, cells, summaries)]
        return [text.check_cells(claim, cells)] if claim.kind in text.CELLS else []

    return [
        *tables.sizes(cells),
        *tables.unsafe(grids),
        *tables.averages(summaries),
        *tables.solved(pooled, solved),
        *tables.baselines(cells, solved.grids, given(*(POOLED if pooled else CELL))),
        *tables.constant(cells, solved.grids),
        *blind.fixed_flags(cells, solved),
        *tables.repeats(cells, alias),
        *[finding for claim in claims for finding in check(claim)],
        *text.check_figure(paper.shares, solved),
    ]


def _with_shares(grids, claims):
    """Narrow the grids by the shares that the text gives; ignore a share that no counts allow."""
    grids = dict(grids)
    for claim in (claim for claim in claims if claim.kind == "unsafe"):
        for name in set(claim.sets) & set(grids):
            fits = counts.share(grids[name], claim.value, claim.decimals)
            grids[name] = fits if fits.any() else grids[name]
    return grids
