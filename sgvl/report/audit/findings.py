"""Findings of the audit, and the assumptions that they rest on."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

ASSUMPTIONS = {
    "decimals": "each cell is rounded to the decimals of its table's longest; zeros are dropped",
    "unsafe F1": "F1 is of the unsafe class, and 0 where no unsafe image is found",
    "same rows": "a test set has the same rows for every judge and in every table",
    "size": "no test set has more rows than the largest count that the text gives it",
    "shares": "the shares of unsafe images are those of the text",
    "pooled": "overall values that are no means are F1 over the rows of all their sets together",
    "total": "the sets have as many rows together as text.csv says",
    "pictures": "every picture of a test set is also in the largest one",
    "readable": "every answer was read as safe or as unsafe, none counted as wrong unread",
    "one model": "the two names that text.csv gives mean one model",
    "reading": "the words of the text mean this comparison",
}
CELL = ("decimals", "unsafe F1", "same rows", "size")  # assumed for counts of single cells
POOLED = (*CELL, "shares", "pooled")  # assumed for counts of whole rows
VERDICTS = ("contradicts", "partly", "agrees", "follows")


class Finding(NamedTuple):
    """One result of the audit."""

    check: str  # sizes, unsafe, averages, counts, baselines, blind, repeats, text
    where: str  # tables, rows and columns, or the section
    printed: str
    follows: str
    verdict: str  # one of VERDICTS; "follows" where the print claims nothing
    certainty: str  # "exact", or "if" and names of ASSUMPTIONS


def given(*assumptions: str) -> str:
    """Return the certainty of a finding that rests on these assumptions; "exact" without any."""
    return f"if {', '.join(assumptions)}" if assumptions else "exact"


def agrees(fits: bool) -> str:
    """Return the verdict on a claim that either holds or does not."""
    return "agrees" if fits else "contradicts"


def span(values: Iterable[int]) -> str:
    """Return whole numbers as "118", "19 to 21", "118, 236, 354, ..." or "none"."""
    values = [int(value) for value in values]
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:3])) + (", ..." if len(values) > 3 else "") or "none"


def show(findings: list[Finding], width: int = 100) -> str:
    """Return the findings as text, grouped by check, then the assumptions that they name."""
    lines, check = [], None
    for finding in findings:
        if finding.check != check:
            check = finding.check
            lines += ["", check.upper()]
        text = f"{finding.where}: {finding.printed}; {finding.follows} [{finding.certainty}]"
        head = f"  {finding.verdict:<12}"
        lines += textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head))
    tally = [f"{sum(f.verdict == verdict for f in findings)} {verdict}" for verdict in VERDICTS]
    lines += ["", f"{len(findings)} findings: {', '.join(tally)}"]
    for name, meaning in ASSUMPTIONS.items():
        if any(name in finding.certainty for finding in findings):
            lines += [f"  {name + ':':<12}{meaning}"]
    return "\n".join(lines[1:])
