"""Tables 2 to 6 of a run, in an arrangement of our own or in the paper's rows and columns.

As printed, every cell that the paper has is there: a score with its interval, or the reason why
there is none. The paper's value is subtracted only where the model that was run and the data are
the paper's, by their ids on the hub. Judges that the paper does not have stand below, after a line
of their own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import pandas as pd

from sgvl.report import reference, tables
from sgvl.report.reasons import Reason, unavailable
from sgvl.scores.accuracy import mean
from sgvl.scores.blind_ceiling import NAMES as BLIND

TITLES = {
    "table1": "Table 1: guards, and how they take a policy",
    "table2": "Table 2: nine categories of UnsafeBench",
    "table3": "Table 3: trained on one level, judged at all",
    "table4": "Table 4: safety sets beside general ability",
    "table5": "Table 5: recaption and RL",
    "table6": "Table 6: judges under each policy",
}
CAPTIONS = {  # of our own arrangement
    "table2": "{UnsafeBench} by category",
    "table3": "Trained on one level, judged under all",
    "table4": "Safety sets beside general ability",
    "table5": "Recaption and RL",
    "table6": "Judges on {SafeEditBench}",
}
BELOW = "not in the paper:"  # opens the rows of judges that the paper does not have
MODEL, MACRO = "Model run", "Overall (macro)"
# Our columns by the heads of each table, where they differ.
HEADS = {
    "table2": {"Self-harm": "Self-Harm", "Illegal activity": "Illegal", "pooled": "Overall"},
    "table3": {},
    "table4": {"UnsafeBench": "Unsafebench", "mmmu": "MMMU", "realworldqa": "RealWorldQA"}
    | {"blink": "BLINK", "mmt": "MMT"},
    "table5": {"UnsafeBench": "Unsafebench"},
    "table6": {**{f"L{k}": f"Policy L{k}" for k in range(1, 6)}, "pooled": "Overall"},
}
SAFETY = ("LlavaGuard", "UnsafeBench", "SafeEditBench")
GENERAL = ("MMMU", "RealWorldQA", "BLINK", "MMT")
# The sets behind the columns of Tables 4 and 5; one set is behind all columns of the others.
SETS = {
    **{name: (name,) for name in (*SAFETY, *GENERAL)},
    "Unsafebench": ("UnsafeBench",),
    "Safety Overall": SAFETY,
    "General Overall": GENERAL,
    "General": GENERAL,
}
SET_OF_TABLE = {"table2": "UnsafeBench", "table3": "SafeEditBench", "table6": "SafeEditBench"}


RATES = (  # a part of the note of Table 4
    "The paper does not say which rate its column LlavaGuard holds; those of that set's authors "
    "stand beside our F1. "
)


class Judges(NamedTuple):
    """The judges of a run as far as tables print them.

    Parameters
    ----------
    names, models : the display name and the model ("" for none) of each judge asked, by id; the
        blind judges have a name
    missing : why a judge could not be asked, by id
    base_model : the model that was trained
    """

    names: Mapping[str, str]
    models: Mapping[str, str]
    missing: Mapping[str, str]
    base_model: str

    @classmethod
    def of(cls, about: pd.DataFrame, base_model: str) -> "Judges":
        """Make them of what ``stored.judges`` returned."""
        judged, missing = about[about["reason"] == ""], about[about["reason"] != ""]
        return cls(
            dict(zip(judged["judge"], judged["name"], strict=True)) | BLIND,
            dict(zip(judged["judge"], judged["model"], strict=True)),
            dict(zip(missing["judge"], missing["reason"], strict=True)),
            base_model,
        )

    def model(self, judge: str) -> str:
        """Return the model that was run: a hub id, or for a trained one what it was made of."""
        model = self.models.get(judge) or "none"
        folder, _, unit = model.removesuffix("/model").rpartition("/training/")
        return f"{self.base_model}, then {unit}" if folder.startswith("runs/") else model


class Tables(NamedTuple):
    """The numbers of a run, and what its tables say about them.

    Parameters
    ----------
    numbers : scores by table: judge (id), policy or set, n, value, low, high (percent)
    sources : where the rows of each set of SETS come from; none for a set that is not there
    profile, seed, resamples : of the run, for the notes
    as_printed : whether rows and columns are the paper's
    rates : of LlavaGuard's set, as its authors score it, by judge
    """

    numbers: Mapping[str, pd.DataFrame]
    judges: Judges
    sources: Mapping[str, str]
    profile: str
    seed: int
    resamples: int
    as_printed: bool
    rates: pd.DataFrame = pd.DataFrame(columns=["judge"])

    def table(self, name: str) -> tuple[pd.DataFrame, str, str]:
        """Return a table, its caption and its note."""
        if self.as_printed:
            caption = f"{TITLES[name]}. {data(name, self.sources)}"
            about = self.numbers, self.profile, self.seed, self.sources
            table = as_printed(name, self.numbers, self.judges, self.sources)
            if name == "table4":
                table = beside(table, self.rates, self.judges)
            return table, caption, note(name, *about)
        scores = tables.named(self.numbers[name], self.judges.names)
        caption = CAPTIONS[name].format_map(defaultdict(lambda: "none", self.sources))
        if "policy" in scores:
            about = self.profile, self.seed, self.resamples
            return tables.judge_table(scores), caption, tables.score_note(scores, *about)
        about = f"profile {self.profile}, seed {self.seed}; safety sets in F1."
        return (
            tables.cells(scores, "judge", "set"),
            caption,
            f"Percent with 95 % intervals, {about}",
        )


def as_printed(
    name: str, numbers: Mapping[str, pd.DataFrame], judges: Judges, sources: Mapping[str, str]
) -> pd.DataFrame:
    """Return a table of the paper with this run's scores.

    Parameters
    ----------
    name : table2, table3, table4, table5 or table6
    numbers : scores by table: judge (id), policy or set, n, value, low, high (percent)
    sources : where the rows of each set of SETS come from; a set that is not there is left out

    Returns
    -------
    pandas.DataFrame
        The rows and columns of ``reference/<name>.csv``, then the columns MACRO (Tables 2 and 6)
        and MODEL; after a row BELOW, the judges that the paper does not have.
    """
    printed = reference.table(name)
    printed = printed.set_index(printed.columns[0])
    labels = [column for column in printed if column not in _columns(name)]
    scores = _scores(name, numbers)
    scored = list(dict.fromkeys(judge for judge, _ in scores))
    by_row = {reference.printed_row(judge, name): judge for judge in reversed(scored)}
    rows = []
    for row, cells in printed.iterrows():
        if judge := by_row.get(row):
            line = _line(name, judge, scores, judges, sources)
        else:
            line = _empty_line(name, row, cells.drop(labels), judges)
        rows.append({**cells[labels], **line})
    more = [judge for judge in scored if reference.printed_row(judge, name) is None]
    rows += [_line(name, judge, scores, judges, sources) for judge in more]
    index = [*printed.index, *(judges.names[judge] for judge in more)]
    table = pd.DataFrame(rows, pd.Index(index, name=printed.index.name)).fillna("")
    columns = [*printed, *([MACRO] if MACRO in table else []), MODEL]
    table = table[columns]
    if not more:
        return table
    line = pd.DataFrame("", pd.Index([BELOW], name=printed.index.name), columns)
    return pd.concat([table[: len(printed)], line, table[len(printed) :]])


def beside(table: pd.DataFrame, rates: pd.DataFrame, judges: Judges) -> pd.DataFrame:
    """Put the rates of LlavaGuard's authors beside our F1 in its column of Table 4.

    The paper does not say which of them it prints there.
    """
    table = table.copy()
    for rate in rates.itertuples():
        row = reference.printed_row(rate.judge, "table4") or judges.names.get(rate.judge)
        if row in table.index and rate.n:
            table.loc[row, "LlavaGuard"] += (
                f"; of {rate.n:.0f} replies with a rating: F1 {rate.f1:.1f}, "
                f"accuracy {rate.accuracy:.1f}, balanced {rate.balanced_accuracy:.1f}"
            )
    return table


def note(
    name: str, numbers: Mapping[str, pd.DataFrame], profile: str, seed: int, sources: Mapping
) -> str:
    """Return the note under a printed table: how it was made, the number of answers, the data."""
    counts = {column: [] for column in _columns(name)}
    for (_, column), row in _scores(name, numbers).items():
        if column in counts and not pd.isna(row.n):
            counts[column].append(int(row.n))
    n = ", ".join(
        f"{column} {tables.span(pd.Series(own))}" for column, own in counts.items() if own
    )
    return (
        f"Percent, in brackets 95 % intervals, profile {profile}, seed {seed}; an unparseable "
        "answer counts as wrong. Rows and columns as in arXiv 2603.01228v1; its value and the "
        f"difference stand where model and data are the paper's. Overall is pooled over all rows. "
        f"{RATES if name == 'table4' else ''}"
        f"Answers of a judge: {n or 'none'}. Data: {data(name, sources)}."
    )


def figure_data(sources: Mapping[str, str], captions: str) -> dict[str, str]:
    """Return where the rows behind each figure come from; ``captions``: those of stage 1."""
    bench, general = (_from(sets, sources) for sets in (("SafeEditBench",), GENERAL))
    figures = {"figure1": f"{captions}; {bench}", "figure3": captions}
    figures |= dict.fromkeys(("figure2", "figure4", "figure5"), bench)
    return figures | dict.fromkeys(("figure6", "figure7"), f"{bench}; {general}")


def data(name: str, sources: Mapping[str, str]) -> str:
    """Return where the rows behind a table of the paper come from, set by set."""
    sets = dict.fromkeys(own for column in _columns(name) for own in _sets(name, column))
    return _from(sets, sources)


def _from(sets: Iterable[str], sources: Mapping[str, str]) -> str:
    return "; ".join(f"{own}: {sources[own]}" for own in sets if own in sources) or "none"


@cache
def _columns(name: str) -> list[str]:
    """Return the columns of numbers of a table of the paper."""
    return list(reference.table("columns").query("table == @name")["column"])


@cache
def _published(name: str) -> dict[tuple[str, str], str]:
    """Return the cells of a table of the paper, by row and column, as printed."""
    cells = reference.paper().cells.query("table == @name")
    return dict(zip(zip(cells["row"], cells["column"], strict=True), cells["printed"], strict=True))


def _scores(name: str, numbers: Mapping[str, pd.DataFrame]) -> dict:
    """Return the scores of a table by judge and column of the paper."""
    frame, heads = numbers[name], HEADS[name]
    by = "policy" if "policy" in frame else "set"
    scores = {
        (row.judge, heads.get(getattr(row, by), getattr(row, by))): row
        for row in frame.itertuples(index=False)
    }
    if name in ("table2", "table6"):
        scores |= {(j, MACRO): row for (j, column), row in scores.items() if column == "macro"}
    if name == "table4":
        pooled = numbers["table6"].query("policy == 'pooled'")
        bench = {row.judge: row for row in pooled.itertuples(index=False)}
        judges = dict.fromkeys(judge for judge, _ in scores)
        scores |= {(judge, "SafeEditBench"): bench[judge] for judge in judges if judge in bench}
        for judge in judges:
            for column, parts in {"Safety Overall": SAFETY, "General Overall": GENERAL}.items():
                own = [scores.get((judge, HEADS[name].get(part, part))) for part in parts]
                if None not in own:
                    whole = mean(pd.DataFrame([part._asdict() for part in own]))
                    scores[judge, column] = SimpleNamespace(**whole, missing="")
    wanted = {*_columns(name), MACRO}
    return {key: row for key, row in scores.items() if key[1] in wanted}


def _line(name: str, judge: str, scores: Mapping, judges: Judges, sources: Mapping) -> dict:
    """Return the cells of a judge that was asked."""
    published, model = _published(name), judges.models.get(judge)
    same = [row for row, id in reference.hub("model").items() if id == model]
    line = {}
    for column in [*_columns(name), *([MACRO] if (judge, MACRO) in scores else [])]:
        score = scores.get((judge, column))
        if score is None or pd.isna(score.value):
            line[column] = _no_score(scores, name, judge, column)
            continue
        line[column] = tables.cell(score)
        paper = next((published[row, column] for row in same if (row, column) in published), None)
        if paper and _same_data(name, column, sources):
            inside = " (inside)" if score.low <= float(paper) <= score.high else ""
            line[column] += f"; paper {paper}, {score.value - float(paper):+.1f}{inside}"
    return line | {MODEL: judges.model(judge)}


def _empty_line(name: str, row: str, cells: pd.Series, judges: Judges) -> dict:
    """Return the cells of a row of the paper for which there is no score."""
    judge = next(judge for judge, rows in reference.ROWS.items() if row in rows)
    absent = judges.missing.get(judge)
    reason = unavailable(absent) if absent else Reason.NOT_ASKED
    line = {
        column: str(reason if printed else Reason.NOT_PRINTED) for column, printed in cells.items()
    }
    macro = {MACRO: str(reason)} if name in ("table2", "table6") else {}
    return line | macro | {MODEL: "none"}


def _no_score(scores: Mapping, name: str, judge: str, column: str) -> str:
    if all(other != column for _, other in scores):
        return str(Reason.NO_ROWS)
    if (judge, column) not in scores and set(_sets(name, column)) & set(GENERAL):
        return str(Reason.NO_QUESTIONS)
    return str(Reason.UNDEFINED)


def _sets(name: str, column: str) -> tuple[str, ...]:
    """Return the sets that a column is about."""
    return SETS[column] if name in ("table4", "table5") else (SET_OF_TABLE[name],)


def _same_data(name: str, column: str, sources: Mapping[str, str]) -> bool:
    """Return True if all rows behind a column come from the paper's data sets."""
    return all(
        {part.partition("@")[0] for part in sources.get(own, "").split("; ")}
        == {reference.hub("set")[own]}
        for own in _sets(name, column)
    )
