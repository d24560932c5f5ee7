"""Write the verdicts on a folder of pictures as a CSV for spreadsheets, and as one HTML page.

The page works from a file, without a network. Its pictures are small and, unless asked otherwise,
blurred. Names, reasons and policies are untrusted: they are escaped, and the page's own rule
(Content-Security-Policy) lets no script run but the one that filters its rows.
"""

import base64
import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jinja2
import pandas as pd

from sgvl.common import files
from sgvl.common.paths import PACKAGE
from sgvl.policies.policy import Policy
from sgvl.policies.versions import DIGITS
from sgvl.report.tables import cell


def write(judged, folder: Path, stem: str, passed_over: Mapping[str, int]) -> list[Path]:
    """Write ``stem``.csv and ``stem``.html into ``folder``, and return their paths.

    Parameters
    ----------
    judged : has ``table``, ``policy``, ``before``, ``judge``, ``thumbnails``, ``notes``, ``scores``
        and ``decided``, as ``experiments.own_pictures.Judged`` describes them
    passed_over : files that are no pictures, counted by their ending
    """
    sheet, document = (folder / f"{stem}.{ending}" for ending in ("csv", "html"))
    about = {
        "judge": judged.judge,
        "policy": judged.policy.name,
        "policy_digest": digest(judged.policy),
    }
    if judged.before:
        about["policy_digest_before"] = digest(judged.before)
    files.write_spreadsheet(judged.table.round(4).assign(**about), sheet)
    files.write(document, page(judged, passed_over))
    return [sheet, document]


def digest(policy: Policy) -> str:
    """Return the start of a policy's digest, which names its text and rules."""
    return policy.digest[:DIGITS]


def counts(table: pd.DataFrame) -> pd.Series:
    """Count the rows of each verdict, in the order in which the rows stand."""
    return table.groupby("verdict", sort=False).size()


def page(judged, passed_over: Mapping[str, int]) -> str:
    """Return the page."""
    texts = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE / "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = (_text(f"verdicts.{ending}") for ending in ("js", "css"))
    rows = judged.table.astype(object).where(judged.table.notna(), None).to_dict("records")
    return texts.get_template("verdicts.html.jinja").render(
        judged=judged,
        rows=rows,
        counts=counts(judged.table),
        changed=int((judged.table["changed"] != "").sum()) if judged.before else 0,
        thumbnails={name: _data(webp) for name, webp in judged.thumbnails.items()},
        digest=digest,
        edit=_edit(judged.before, judged.policy) if judged.before else [],
        scores=_cells(judged.scores),
        decided=_cells(judged.decided),
        passed_over=passed_over,
        script=script,
        style=style,
        allowed=f"script-src {_hash(script)}; style-src {_hash(style)}",
    )


def _text(name: str) -> str:
    return (PACKAGE / "report" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _edit(before: Policy, now: Policy) -> list[str]:
    """Return the lines of both versions, each after "+", "-" or a space."""
    old, new = (_document(policy).splitlines() for policy in (before, now))
    lines = difflib.unified_diff(old, new, n=len(old) + len(new), lineterm="")
    lines = list(lines)[3:] or [f" {line}" for line in new]  # after its head
    return [f"{line[0]} {line[1:]}" for line in lines]


def _document(policy: Policy) -> str:
    return f"{policy.render('brief')}\n\n{policy.render()}" if policy.default else policy.render()


def _cells(scores: pd.DataFrame | None) -> list[dict]:
    if scores is None:
        return []
    rows = scores.fillna({"missing": ""}).itertuples()
    return [{"row": row, "value": cell(row)} for row in rows]
