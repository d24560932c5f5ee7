"""Write what an edit of a policy changed: rows, a table for a pull request, and a JUnit file."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from sgvl.common import files
from sgvl.common.errors import one_line
from sgvl.policies.policy import Policy
from sgvl.report.tables import page_markdown

SHOWN = 20  # pictures that the page for a pull request names
NOT_AS_EXPECTED = (
    *("missed", "collateral", "golden failed", "changed", "no answer", "cannot be opened"),
)


def write(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    versions: Sequence[Policy],
    judge: str,
    notes: Sequence[str],
    folder: Path,
    stem: str,
) -> list[Path]:
    """Write ``stem``.csv, .md and .xml into ``folder``, and return their paths.

    Parameters
    ----------
    table, summary : as ``experiments.policy_diff`` returns them
    versions : the policy, and the one before
    judge, notes : its name, and what to know of it
    """
    sheet, page, junit = (folder / f"{stem}.{ending}" for ending in ("csv", "md", "xml"))
    files.write_spreadsheet(table.round(4), sheet)
    files.write(page, markdown(table, summary, versions, judge, notes))
    files.write(junit, _junit(table, summary, versions[0].name))
    return [sheet, page, junit]


def markdown(table, summary, versions: Sequence[Policy], judge: str, notes: Sequence[str]) -> str:
    """Return the page for a pull request: measures, then the pictures that need a look."""
    now, before = versions
    title = f"Policy {now.name}: {before.digest[:12]} to {now.digest[:12]}, judge {judge}"
    told = table[table["outcome"].isin(NOT_AS_EXPECTED)]
    note = f"Percent with 95 % intervals over pairs; P(unsafe) in points. {' '.join(notes)}"
    parts = [page_markdown(measures(summary), title, note)]
    if len(told):
        shown = told[["outcome", "message"]].head(SHOWN)
        more = f" {len(told) - SHOWN} more are in the CSV." if len(told) > SHOWN else ""
        parts.append(page_markdown(shown, f"{len(told)} pictures to look at.{more}"))
    return "\n".join(parts)


def measures(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as text: measure, n, value with its interval, tolerance."""
    return pd.DataFrame(
        {
            "measure": summary["measure"],
            "n": summary["n"].astype(str),
            "value": [f"{r.value:.1f} [{r.low:.1f}, {r.high:.1f}]" for r in summary.itertuples()],
            "at most": ["" if pd.isna(t) else f"{t:g}" for t in summary["tolerance"]],
            "": ["regression" if above else "" for above in summary["regression"]],
        }
    )


def _junit(table: pd.DataFrame, summary: pd.DataFrame, name: str) -> bytes:
    """Return a JUnit file: a test for each measure with a tolerance, and for each golden case."""
    suite = ElementTree.Element("testsuite", name=one_line(name))
    for row in summary.dropna(subset="tolerance").itertuples():
        case = ElementTree.SubElement(suite, "testcase", classname=one_line(name), name=row.measure)
        if row.regression:
            text = f"{row.value:.1f} % of {row.n}, at most {row.tolerance:g} %"
            ElementTree.SubElement(case, "failure", message=text)
    for row in table.itertuples():
        if row.outcome in ("golden passed", "golden failed", "no answer"):
            test = f"golden: {row.id}" if row.outcome != "no answer" else row.id
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=one_line(test))
            kind = {"golden failed": "failure", "no answer": "error"}.get(row.outcome)
            if kind:
                ElementTree.SubElement(case, kind, message=one_line(row.message))
    for kind, attribute in (("failure", "failures"), ("error", "errors")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
