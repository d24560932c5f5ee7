"""Turn scores into tables, and write a table as Markdown, LaTeX and CSV."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from sgvl.common.errors import InputError

OVERALL = {"macro": "Overall (macro)", "pooled": "Overall (pooled)"}
WIDE = 5  # a LaTeX table of more columns spans the page and is shrunk to it
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def judge_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Judges down, policies across, both averages last: the form of the paper's Table 6.

    ``scores`` is what ``metrics.score_table`` returned, or its CSV read again. A cell reads "73.4
    [65.0, 81.2]", in percent; the column heads carry the metric, n and how many of them are unsafe.
    Where there is no value, "n/a (no L3)" says which policy is missing.
    """
    policies, judges = scores["policy"].unique(), scores["judge"].unique()
    cells = scores.assign(cell=[cell(row) for row in scores.fillna({"missing": ""}).itertuples()])
    table = cells.pivot(index="judge", columns="policy", values="cell").loc[judges, policies]
    return table.set_axis([_head(policy, scores) for policy in policies], axis="columns")


def cells(
    frame: pd.DataFrame, index: str, columns: str, text: Callable | None = None
) -> pd.DataFrame:
    """Rows with value, low and high (percent) as a table of cells "73.4 [65.0, 81.2]".

    The column heads carry n; a combination that was not measured reads "n/a". ``text`` writes the
    cell of a row, if not ``cell``.
    """
    counts = frame.dropna(subset="n").groupby(columns, sort=False)["n"]
    heads = counts.agg(lambda n: f"n={_span(n.astype(int))}")
    rows = frame.assign(missing="").itertuples()
    shown = frame.assign(cell=[(text or cell)(row) for row in rows])
    table = shown.pivot(index=index, columns=columns, values="cell")
    table = table.loc[frame[index].unique(), frame[columns].unique()].fillna("n/a")
    return table.set_axis([f"{name} {heads[name]}" for name in table], axis="columns")


def cell(row) -> str:
    """A row with value, low, high and missing as "73.4 [65.0, 81.2]", or "n/a (no L3)"."""
    if pd.isna(row.value):
        return f"n/a (no {row.missing})" if row.missing else "n/a"
    return f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]"


def score_note(
    scores: pd.DataFrame, profile: str, seed: int, resamples: int, unparseable: str = "wrong"
) -> str:
    """The lines under a table of scores: n, seed, profile, intervals and how answers were counted.

    ``seed``, ``resamples`` and ``unparseable`` are those that ``metrics.score_table`` was given.
    """
    counted = {
        "wrong": "an unparseable answer counts as wrong",
        "drop": "unparseable answers are left out",
        "safe": "an unparseable answer counts as safe",
    }
    pooled = scores[scores["policy"] == "pooled"]
    silent = _span(pooled["unparseable"].dropna().round(1))
    return (
        f"Percent, profile {profile}, seed {seed}, n = {_span(pooled['n'])} answers a judge. "
        "F1 of the unsafe class, accuracy where the labels hold one class. In brackets: 95 % "
        f"BCa bootstrap over pairs, {resamples:,} resamples (Wilson over pairs where no resample "
        "differs). Macro is the mean over policies, pooled is F1 over all rows; "
        f"{counted[unparseable]} ({silent} % of a judge's answers)."
    )


def write_table(
    frame: pd.DataFrame, folder: Path | str, name: str, caption: str, note: str
) -> list[Path]:
    """Write ``name`` as .md, .tex and .csv into ``folder``, and return the three paths.

    A named index is printed as the first columns. Printed floats have two decimals and missing ones
    read "n/a"; the CSV keeps every digit. The same input gives the same bytes. The LaTeX needs
    booktabs and, for wide tables, graphicx. Raises ``InputError`` as ``output_paths`` does.
    """
    paths = output_paths(folder, name, "md", "tex", "csv")
    texts = (
        markdown(frame, caption, note),
        _latex(_printed(frame), name, caption, note),
        with_index_columns(frame).to_csv(index=False, lineterminator="\n"),
    )
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8", newline="\n")
    return paths


def markdown(frame: pd.DataFrame, caption: str = "", note: str = "") -> str:
    """The frame as a table of GitHub's Markdown, its caption above and its note below."""

    def line(cells):
        return "| " + " | ".join(" ".join(x.split()).replace("|", r"\|") for x in cells) + " |"

    printed = _printed(frame)
    rules = ["---:" if right else "---" for right in _numeric(printed)]
    rows = [line(printed.columns), line(rules), *map(line, printed.to_numpy())]
    above, below = [f"**{caption}**", ""] if caption else [], ["", note] if note else []
    return "\n".join([*above, *rows, *below, ""])


def output_paths(folder: Path | str, name: str, *suffixes: str) -> list[Path]:
    """Paths of ``name`` with each suffix in ``folder``, which is made.

    Raises ``InputError`` if ``name`` is no plain file name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise InputError(f"{name!r} is no file name: letters, digits, '_', '-' and '.' only")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [Path(folder, f"{name}.{suffix}") for suffix in suffixes]


def with_index_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a named index turned into its first columns; a nameless one just numbers."""
    return frame.reset_index() if any(frame.index.names) else frame


def latex(text: str) -> str:
    r"""Escape text for LaTeX.

    >>> print(latex("SD_Filter & 5 %"))
    SD\_Filter \& 5 \%
    """
    # A cell that opens with a bracket would be read as the argument of the line break before it.
    return ("{}" if text.startswith("[") else "") + " ".join(text.split()).translate(LATEX)


def _head(policy, scores):
    rows = scores[(scores["policy"] == policy) & (scores["n"] > 0)]
    if policy == "macro":
        return OVERALL[policy]
    metric = "/".join(rows["metric"].unique()).replace("f1", "F1")
    unsafe = f", {_span(rows['positives'])} unsafe" if rows["positives"].any() else ""
    return f"{OVERALL.get(policy, f'{policy} ({metric})')} n={_span(rows['n'])}{unsafe}"


def _span(values):
    """ "118", or "118 to 124" where judges differ: under "drop" each has its own n."""
    if not len(values):
        return "0"
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _text(value):
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "n/a"
    return f"{value:.2f}" if pd.api.types.is_float(value) else str(value)


def _numeric(printed):
    """For each column, whether every cell starts with a number: such columns align right."""
    number = r"n/a|[-+]?\d"
    return [printed[column].str.match(number).all() for column in printed]


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
    """Long heads in lines of about 14 letters, one above the other."""
    lines = textwrap.wrap(head, 14, break_long_words=False) or [""]
    if len(lines) == 1:
        return latex(head)
    return r"\shortstack{" + r"\\".join(map(latex, lines)) + "}"
