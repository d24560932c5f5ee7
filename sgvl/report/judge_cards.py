"""Write a card for each judge: one page of what is stored about it.

A card holds every score with n and interval, what the judge cannot do, its cost and its known
trouble, as ``docs/JUDGES.md`` lists it. Nothing is measured here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from sgvl.common import files
from sgvl.judges.systems import SYSTEMS
from sgvl.report import stored
from sgvl.report.page import CARD, html_document
from sgvl.report.tables import escaped, output_paths, page_markdown
from sgvl.scores.bars import LEAST, MOST

# The stored tables of a card: notebook, file, and the column that names a score, "" for one score.
TABLES = {
    "under each policy": ("benchmark", "scores", "policy"),
    "sets and tasks": ("ablations", "table4", "set"),
    "two opposite policies a picture": ("benchmark", "following", "set"),
    "inverted policies": ("ablations", "inversion", "measure"),
    "squares": ("ablations", "squares", "measure"),
    "order of the levels": ("ablations", "level_order", ""),
    "allow-lists": ("ablations", "allow_lists", "measure"),
    "Policy Shift Score": ("ablations", "policy_shift", "measure"),
    "rationales": ("benchmark", "rationales", "measure"),
    "verdicts after an edit": ("benchmark", "rationale_edits", "measure"),
    "violated rules": ("benchmark", "rules", "measure"),
    "above the blind ceiling, points": ("benchmark", "blind_ceiling", "average"),
}
COLUMNS = ["judge", "table", "score", "n", "value", "low", "high", "unparseable"]
ADHERENCE, BLIND = ("squares", "order of the levels"), "above the blind ceiling, points"


def judges(profile: str, panels: Sequence[str] = ()) -> pd.DataFrame:
    """Return the judges of 05 that were asked everything, a row each, by id."""
    about = stored.read_panels(profile, "judges", panels)
    return about[about["asked_about"] == "everything"].set_index("judge").fillna({"model": ""})


def scores(method: str, benchmark: str, panels: Sequence[str] = ()) -> pd.DataFrame:
    """Return every stored score of every judge: the columns of ``COLUMNS``, in percent or points.

    Parameters
    ----------
    method, benchmark : run folders of 06_ablations and of 05_benchmark
    panels : of 05_benchmark

    Raises
    ------
    InputError
        For a table that is missing, with the notebook that writes it.
    """
    parts = []
    for title, (notebook, file, column) in TABLES.items():
        if notebook == "benchmark":
            frame = stored.read_panels(benchmark, file, panels)
        else:
            frame = stored.read(method, f"ablations/{file}.csv")
        score = frame[column] if column else "order broken"
        parts.append(frame.assign(table=title, score=score).reindex(columns=COLUMNS))
    return pd.concat([part for part in parts if len(part)]).dropna(subset="value")


def write(folder: Path, profile: str, about: pd.DataFrame, scored: pd.DataFrame) -> list[Path]:
    """Write the card of each judge as ``card_<id>.md`` and ``card_<id>.html``.

    Parameters
    ----------
    folder : of the report
    about, scored : what ``judges`` and ``scores`` returned

    Returns
    -------
    The paths of the files.
    """
    paths = []
    for judge, row in about.iterrows():
        text = _card(profile, judge, row, scored[scored["judge"] == judge])
        page, document = output_paths(folder, f"{CARD}{judge}", "md", "html")
        files.write(page, text)
        files.write(document, html_document(text, folder, str(row["name"])))
        paths += [page, document]
    return paths


def _card(profile: str, judge: str, row: pd.Series, own: pd.DataFrame) -> str:
    """Return a card as Markdown; what is not ours is escaped."""
    title = escaped(str(row["name"]))
    facts = pd.DataFrame(_facts(judge, row).items(), columns=["fact", "value"])
    table = own[["table", "score", "n", "value", "low", "high"]].astype({"n": "Int64"})
    note = f"Percent with 95 % intervals, profile {profile}."
    return "\n".join(
        [
            f"# Judge card: {title}\n",
            page_markdown(facts),
            "## What it cannot do, as measured\n",
            "".join(f"- {line}\n" for line in _cannot(row, own)) or "Nothing was found.\n",
            "## Scores\n",
            page_markdown(table, note=note) if len(table) else "None is stored.\n",
        ]
    )


def _facts(judge: str, row: pd.Series) -> dict[str, str]:
    """Return what is known of a judge besides its scores; the registry is asked by id and model."""
    named = [(s.spec["model"], s) for s in SYSTEMS.values() if "model" in s.spec]
    known = dict(reversed(named)) | SYSTEMS  # of two systems with one model, the first
    system = known.get(judge) or known.get(row["model"])
    facts = {"id": judge, "model": row["model"] or "none", "cost": _cost(row)}
    if row.get("prefix_sharing"):
        facts["read once for several cases"] = row["prefix_sharing"]
    if not system:
        return facts | {"known trouble": "none is recorded: the registry has no such model"}
    return facts | {
        "licence": system.licence,
        "gate": system.gate or "none",
        "how the policy reaches it": system.policy,
        "known trouble": system.trouble or "none is recorded",
    }


def _cost(row: pd.Series) -> str:
    if not row.get("requests") or pd.isna(row["requests"]):
        return "not stored"
    n, seconds = int(row["requests"]), float(row["seconds"])
    return f"{n:,} answers in {seconds:,.1f} s; tokens are not stored"


def _cannot(row: pd.Series, own: pd.DataFrame) -> Iterator[str]:
    """Yield what a judge fails at, beyond its interval."""
    if not row["reads_policy"]:
        yield "Follow a policy: it reads none."
    if row["reads_tags"]:
        yield "Look at a picture: it is given the exact content of drawn ones."
    for score in own.itertuples():
        bar = f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}] %"
        barred = score.table in (*ADHERENCE, "rationales")
        if barred and score.high < LEAST.get(score.score, 0):
            yield f"{score.score}: {bar}, below the bar of {LEAST[score.score]} %."
        if barred and score.low > MOST.get(score.score, 100):
            yield f"{score.score}: {bar}, above the bar of {MOST[score.score]} %."
        if score.table == BLIND and score.low <= 0:
            points = bar.removesuffix(" %")
            yield f"Show by its {score.score} score that it reads policies: {points} points."
    if not own["table"].isin(ADHERENCE).any():
        yield "Squares and the order of levels were not scored."
    silent = own.loc[own["score"] == "pooled", "unparseable"].max()
    if silent > 0:
        yield f"Always answer: {silent:.1f} % of its replies under the levels hold no verdict."
