"""Ask of each row: could a judge that never reads the policy have scored this?

Such a judge flags one fixed set of pictures, whatever the policy. Where nothing is unsafe, its
accuracy gives the size of that set. F1 at another level then gives the true positives and the false
alarms that the judge needs there, and these two must add up to the same size.

If they do, the row's values cannot tell this judge from one that reads the policy; it does not
follow that the judge did not read. If they do not, verdicts changed with the policy, rightly or
wrongly.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from sgvl.report.audit.counts import Counts
from sgvl.report.audit.findings import POOLED, Finding, given, span


def fixed_flags(cells: pd.DataFrame, counted: Counts) -> list[Finding]:
    """Report for each row whether one fixed set of flagged pictures explains all of its values.

    Parameters
    ----------
    cells : of a paper, in long form
    counted : the sizes and counts that are still possible. Each set is taken at its smallest size,
        and its pictures to be among those of the largest set.
    """
    grids = {name: grid for name, grid in counted.grids.items() if grid.any()}
    sizes = {name: int(np.flatnonzero(grid.any(axis=1))[0]) for name, grid in grids.items()}
    largest = max(sizes.values(), default=0)
    findings, explained = [], 0
    for (table, row), own in cells[cells["set"].isin(grids)].groupby(["table", "row"], sort=False):
        own = own[own.index.isin(counted.cells)]
        if len(own) < 2 or "accuracy" not in set(own["metric"]):
            continue
        counts = {
            cell.set: flags(counted.cells[cell.Index], sizes[cell.set], grids[cell.set])
            for cell in own.itertuples()
        }
        if not all(counts.values()):
            continue
        # The set may hold pictures that a level lacks, so a level may see some flags fewer.
        windows = [
            {flag + more for flag in flagged for more in range(largest - sizes[name] + 1)}
            for name, flagged in counts.items()
        ]
        explained += bool(fits := sorted(set.intersection(*windows)))
        if fits:
            follows = f"one fixed set of {span(fits)} flagged pictures gives every value"
        else:
            changed = max(_apart(a, b) for a, b in combinations(windows, 2))
            seen = "; ".join(f"{name} {span(flagged)}" for name, flagged in counts.items())
            follows = (
                f"no fixed set gives all: flagged are {seen}, so between two of them at least "
                f"{changed} more verdicts differ than pictures"
            )
        printed = ", ".join(own["printed"])
        findings.append(_finding(f"{table}, {row}", printed, follows))
    if findings:
        follows = f"{explained} could come from a judge that never reads the policy"
        printed = f"{len(findings)} rows over several policies"
        where = " and ".join(dict.fromkeys(finding.where.split(",")[0] for finding in findings))
        findings.append(_finding(where, printed, follows))
    return findings


def flags(candidates: np.ndarray, n: int, grid: np.ndarray) -> list[int]:
    """List how many pictures a judge may have flagged, given its possible (tp, errors).

    With P positives, fn = P - tp and fp = errors - fn, so it flags tp + fp = 2 tp + errors - P.

    >>> grid = np.zeros((11, 11), bool)
    >>> grid[10, 4] = True  # 10 pictures, 4 of them unsafe
    >>> flags(np.array([[3, 2], [4, 9]]), 10, grid)  # (4, 9): 9 false alarms among 6 safe ones
    [4]
    """
    tp, errors = candidates[:, :1], candidates[:, 1:]
    positives = np.flatnonzero(grid[n])[None, :]
    missed = positives - tp
    alarms = errors - missed
    possible = (missed >= 0) & (alarms >= 0) & (alarms <= n - positives)
    return sorted({int(flag) for flag in (tp + alarms)[possible]})


def _finding(where: str, printed: str, follows: str) -> Finding:
    certainty = given(*POOLED, "total", "pictures", "readable")
    return Finding("blind", where, printed, follows, "follows", certainty)


def _apart(one: set[int], other: set[int]) -> int:
    return min(abs(a - b) for a in one for b in other)
