"""Turn scores into tables, and write a table as Markdown, LaTeX and CSV."""

import html
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from sgvl.common import files
from sgvl.common.errors import InputError, need_known

OVERALL = {"macro": "Overall (macro)", "pooled": "Overall (pooled)"}
# Tables about following the policy and only the policy: rows, columns and caption.
FOLLOWING = {
    "table1": ("judge", "measure", "How judges take a policy, measured"),
    "squares": ("judge", "measure", "Squares: following the policy, and only the policy"),
    "squares_by_edit": ("edit", "judge", "Squares right by the edit of the policy"),
    "level_order": ("judge", "all levels", "Unsafe under a level and safe under a stricter one"),
    "allow_lists": ("judge", "measure", "Allow-lists, which prohibit what they do not name"),
    "policy_shift": ("judge", "measure", "The Policy Shift Score, in two conventions"),
}
# Tables about rationales: rows are judges, columns are measures.
RATIONALES = {
    "rationales": "Right for the right reason",
    "rationale_edits": "Verdicts after an edit, by what the reply names",
    "rules": "The rules that a picture violates",
}
WIDE = 5  # a LaTeX table of more columns spans the page and is shrunk to it
# A cell with its interval and, in the report, the paper's value.
STACKED = re.compile(
    r"(-?[\d.]+) (\[-?[\d.]+, -?[\d.]+\])(?:; (paper -?[\d.]+, [-+][\d.]+)( \(inside\))?)?"
)
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def named(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return the frame with the ids in its column ``judge`` replaced by display names.

    Raises InputError, with the nearest id, for a judge that ``names`` does not have.
    """
    for judge in frame["judge"].unique():
        need_known("judge", judge, names)
    return frame.assign(judge=frame["judge"].map(names))


def texts(frame: pd.DataFrame, index: bool = False) -> Styler:
    """Show a table of texts in a notebook: whole, escaped and on the left; an index on request."""
    left = [{"selector": "th, td", "props": "text-align: left"}]
    styler = frame.style.format(escape="html", na_rep="", precision=2).set_table_styles(left)
    styler = styler.format_index(escape="html").format_index(escape="html", axis="columns")
    return styler if index else styler.hide()


def judge_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Arrange scores as the paper's Table 6: a row per judge, a column per policy, averages last.

    Parameters
    ----------
    scores : what ``metrics.score_table`` returned, or its CSV read again; values in percent

    Returns
    -------
    Cells of text, "73.4 [65.0, 81.2]", or "n/a (no L3)" where the score of a policy is missing.
    Column heads carry the metric, n and the number of unsafe pictures.
    """
    policies, judges = scores["policy"].unique(), scores["judge"].unique()
    cells = scores.assign(cell=[cell(row) for row in scores.fillna({"missing": ""}).itertuples()])
    table = cells.pivot(index="judge", columns="policy", values="cell").loc[judges, policies]
    return table.set_axis([_head(policy, scores) for policy in policies], axis="columns")


def cells(
    frame: pd.DataFrame, index: str, columns: str, text: Callable | None = None
) -> pd.DataFrame:
    """Pivot rows with value, low and high (percent) into cells "73.4 [65.0, 81.2]".

    Parameters
    ----------
    index, columns : the columns of ``frame`` whose values become rows and columns, in their order
    text : writes the cell of a row; default: ``cell``

    Returns
    -------
    A table of text whose column heads carry n; a combination without a row reads "n/a"
    """
    counts = frame.dropna(subset="n").groupby(columns, sort=False)["n"]
    heads = counts.agg(lambda n: f"n={span(n.astype(int))}")
    rows = frame.assign(missing="").itertuples()
    texts = frame.assign(cell=[(text or cell)(row) for row in rows])
    table = texts.pivot(index=index, columns=columns, values="cell")
    table = table.loc[frame[index].unique(), frame[columns].unique()].fillna("n/a")
    return table.set_axis([f"{name} {heads[name]}" for name in table], axis="columns")


def cell(row) -> str:
    """Return "73.4 [65.0, 81.2]" for a row with value, low, high and missing, or "n/a (no L3)"."""
    if pd.isna(row.value):
        return f"n/a (no {row.missing})" if row.missing else "n/a"
    if pd.isna(row.low):
        return f"{row.value:.1f}"  # too few rows for an interval
    return f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]"


def judge_measures(frame: pd.DataFrame, index: str = "judge") -> pd.DataFrame:
    """Arrange judges by measures; where n differs between judges, each cell carries its own.

    ``index`` is the column whose values become rows, if not judges.
    """
    differs = frame.groupby("measure")["n"].nunique() > 1

    def text(row):
        return cell(row) + f", n={row.n}" * bool(differs[row.measure])

    return cells(frame, index, "measure", text)


def bar_table(bars: pd.DataFrame) -> pd.DataFrame:
    """Arrange measures by judges, with the bar and n of each, and whether a judge meets the bar."""
    texts = bars.assign(missing="")
    texts["cell"] = [f"{cell(row)} {row.outcome}".strip() for row in texts.itertuples()]
    table = texts.pivot(index="measure", columns="judge", values="cell")
    table = table.loc[bars["measure"].unique(), bars["judge"].unique()]
    by_measure = bars.groupby("measure", sort=False)
    table.insert(0, "bar", by_measure["bar"].first())
    table.insert(1, "n", by_measure["n"].agg(span))
    return table


def claim_table(claims: pd.DataFrame) -> pd.DataFrame:
    """Arrange the claims of 06 for print: statement, outcome, points with interval, n and note."""
    points = [cell(row) for row in claims.assign(value=claims["effect"], missing="").itertuples()]
    table = claims.assign(points=points, n=claims["n"].astype("Int64"))
    return table[["statement", "outcome", "points", "n", "note"]].set_index("statement")


def blind_table(beyond: pd.DataFrame) -> pd.DataFrame:
    """Arrange how far judges are above the blind ceiling, with the outcome of the claim."""
    return cells(beyond, "judge", "average", lambda row: f"{cell(row)}: {row.beats}")


def score_note(scores: pd.DataFrame, profile: str, seed: int, resamples: int) -> str:
    """Return the note under a table of scores: n, seed, profile, intervals, unparseable answers.

    ``seed`` and ``resamples`` are those that ``metrics.score_table`` was given.
    """
    pooled = scores[scores["policy"] == "pooled"]
    share = span(pooled["unparseable"].dropna().round(1))
    return (
        f"Percent, profile {profile}, seed {seed}, n = {span(pooled['n'])} answers a judge. "
        "F1 of the unsafe class, accuracy where the labels hold one class. In brackets: 95 % "
        f"BCa bootstrap over pairs, {resamples:,} resamples (Wilson over pairs where no resample "
        "differs). Macro is the mean over policies, pooled is F1 over all rows; "
        f"an unparseable answer counts as wrong ({share} % of a judge's answers)."
    )


def write_table(
    frame: pd.DataFrame, folder: Path | str, name: str, caption: str, note: str
) -> list[Path]:
    """Write ``name`` as .md, .tex and .csv into ``folder``, and return the three paths.

    A named index becomes the first columns. Printed floats have two decimals and missing ones read
    "n/a"; the CSV keeps every digit. The same input gives the same bytes. The LaTeX needs booktabs
    and, for wide tables, graphicx. Raises ``InputError`` as ``output_paths`` does.
    """
    paths = output_paths(folder, name, "md", "tex", "csv")
    texts = (
        page_markdown(frame, caption, note),
        _latex(_printed(frame), name, caption, note),
        with_index_columns(frame).to_csv(index=False, lineterminator="\n"),
    )
    for path, text in zip(paths, texts, strict=True):
        files.write(path, text)
    return paths


def markdown(frame: pd.DataFrame, caption: str = "", note: str = "") -> str:
    """Return the frame as a Markdown table of plain text, caption above and note below."""

    def line(cells):
        return "| " + " | ".join(" ".join(x.split()).replace("|", r"\|") for x in cells) + " |"

    printed = _printed(frame)
    rules = ["---:" if right else "---" for right in _numeric(printed)]
    rows = [line(printed.columns), line(rules), *map(line, printed.to_numpy())]
    above, below = [f"**{caption}**", ""] if caption else [], ["", note] if note else []
    return "\n".join([*above, *rows, *below, ""])


def page_markdown(frame: pd.DataFrame, caption: str = "", note: str = "") -> str:
    """Return the frame as a Markdown table for GitHub and the report.

    An interval stands small beneath its value, and n beneath the name of its column. The name of a
    judge is never wrapped. Text is escaped: no cell can bring markup, a link or a picture.
    """
    printed = _printed(frame)
    for column in printed:
        printed[column] = printed[column].map(_name if column == "judge" else _stacked)
    return markdown(printed.rename(columns=_stacked_head), escaped(caption), escaped(note))


def output_paths(folder: Path | str, name: str, *suffixes: str) -> list[Path]:
    """Create ``folder`` and return the path of ``name`` with each suffix in it.

    Raises ``InputError`` if ``name`` is no plain file name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise InputError(f"{name!r} is no file name: use letters, digits, '_', '-' and '.' only")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [Path(folder, f"{name}.{suffix}") for suffix in suffixes]


def with_index_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with a named index as its first columns; a nameless index is dropped."""
    return frame.reset_index() if any(frame.index.names) else frame


def latex(text: str) -> str:
    r"""Escape text for LaTeX.

    >>> print(latex("SD_Filter & 5 %"))
    SD\_Filter \& 5 \%
    """
    # A cell that opens with a bracket would be read as the argument of the line break before it.
    return ("{}" if text.startswith("[") else "") + " ".join(text.split()).translate(LATEX)


def escaped(text: str) -> str:
    """Escape text for Markdown that a browser or GitHub renders: it brings no markup or link."""
    # Without "](" there is no link and no picture; "&#40;" is the bracket, as text.
    return html.escape(text, quote=False).replace("](", "]&#40;")


def _name(text):
    return escaped(text).replace(" ", "&nbsp;")


def _stacked(text):
    """Write the interval, and the paper's value if there is one, beneath the value."""
    if not (match := STACKED.fullmatch(text)):
        return escaped(text)
    value, interval, paper, inside = match.groups()
    below = [interval]
    if paper:
        below.append(f'<span class="inside">{paper}</span>' if inside else paper)
    return f"{value}<br><sub>{'<br>'.join(below)}</sub>"


def _stacked_head(text):
    name, n, count = text.partition(" n=")
    return escaped(name) + (f"<br><sub>n={escaped(count)}</sub>" if n else "")


def _head(policy, scores):
    rows = scores[(scores["policy"] == policy) & (scores["n"] > 0)]
    if policy == "macro":
        return OVERALL[policy]
    metric = "/".join(rows["metric"].unique()).replace("f1", "F1")
    unsafe = f", {span(rows['positives'])} unsafe" if rows["positives"].any() else ""
    return f"{OVERALL.get(policy, f'{policy} ({metric})')} n={span(rows['n'])}{unsafe}"


def span(values):
    """Return "118", or "118 to 124" where judges differ."""
    if not len(values):
        return "0"
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _text(value):
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "n/a"
    return f"{value:.2f}" if pd.api.types.is_float(value) else str(value)


def _numeric(printed):
    """Return for each column True if every cell is a number or missing; these align right."""
    number = r"n/a.*|–|[-+]?[\d.]+(e-?\d+)?( \[.*|; .*|<br>.*|(, | to )[\d., ]+)?"
    return [printed[column].str.fullmatch(number).all() for column in printed]


def _printed(frame):
    return with_index_columns(frame).map(_text).rename(columns=str)


def _latex(printed, name, caption, note):
    wide = printed.shape[1] > WIDE
    styler = Styler(printed).hide(axis="index").format(latex)
    table = styler.format_index(_latex_head, axis="columns").to_latex(
        column_format="".join("r" if right else "l" for right in _numeric(printed)),
        hrules=True,
        caption=latex(caption),
        label=f"tab:{name}",
        environment="table*" if wide else "table",
        position="t",
        position_float="centering",
    )
    start, end = r"\begin{tabular}", r"\end{tabular}"
    if wide:
        table = table.replace(start, "\\resizebox{\\textwidth}{!}{%\n" + start)
        table = table.replace(end, end + "%\n}")
        end += "%\n}"
    table = table.replace(
        end, end + "\n\\par\\smallskip\n{\\footnotesize " + latex(note) + "\\par}"
    )
    return r"% \usepackage{booktabs, graphicx}" + "\n" + table


def _latex_head(head):
    """Break a long head into lines of about 14 letters."""
    lines = textwrap.wrap(head, 14, break_long_words=False) or [""]
    if len(lines) == 1:
        return latex(head)
    return r"\shortstack{" + r"\\".join(map(latex, lines)) + "}"
