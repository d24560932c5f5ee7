"""One report a profile: each table and figure, ours and the paper's, claims, audit, and the gaps.

``write`` puts ``REPORT.md`` and a self-contained ``REPORT.html`` beside the files of 07_figures.
Nothing is measured here. The paper's values are subtracted from ours only where the judges are the
paper's own models; elsewhere they stand in a block of their own, headed as another model's.
"""

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sgvl.common.paths import PARAMS, runs
from sgvl.report import reference
from sgvl.report.audit import audit
from sgvl.report.tables import cell, cells, markdown, output_paths
from sgvl.training import grpo, sft

TABLES = {
    "table1": "Table 1: guards, and how they take a policy",
    "table2": "Table 2: nine categories of UnsafeBench",
    "table3": "Table 3: trained on one level, judged at all",
    "table4": "Table 4: safety sets beside general ability",
    "table5": "Table 5: recaption and RL",
    "table6": "Table 6: judges under each policy",
}
FIGURES = {
    "figure1": "Figure 1: the method, as it was run",
    "figure2": "Figure 2: matched pairs",
    "figure3": "Figure 3: what the recaption puts back",
    "figure4": "Figure 4: the share of unsafe pictures under each policy",
    "figure5": "Figure 5: one picture, every verdict",
    "figure6": "Figure 6: safety against general ability",
    "figure7": "Figure 7: one picture, two policies",
}
BASE = ("Qwen2.5-VL-7B", "Qwen2.5-7B")  # the paper's base has two names in its tables
ROWS = {"Ours (RL+SafeEdit)": "Ours (RL+SafeEditTrain)"}
# Our columns by the paper's heads, where they differ. Its "Overall" is beside our mean over columns
# (its words); the audit says what its values fit.
HEADS = {
    "table2": {"Self-harm": "Self-Harm", "Illegal activity": "Illegal", "macro": "Overall"},
    "table4": {"UnsafeBench": "Unsafebench"},
    "table5": {"UnsafeBench": "Unsafebench"},
    "table6": {**{f"L{k}": f"Policy L{k}" for k in range(1, 6)}, "macro": "Overall"},
}
EXPLAINED = "`python -m sgvl.report.audit` explains the assumptions."
STYLE = """
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
       color: #222; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td[style*=right] { white-space: nowrap; }
th { border-bottom: 2px solid #222; }
img { max-width: 100%; height: auto; }
.inside { color: #767676; }
summary { cursor: pointer; }
"""


def write(
    folder: Path, profile: str, scores: Mapping[str, pd.DataFrame], same_models: bool = False
) -> list[Path]:
    """Write both forms of the report from the files in ``folder``; return their paths.

    Parameters
    ----------
    folder : where 07_figures wrote its tables and figures
    scores : per table, rows with judge, policy or set, n, value, low, high (percent)
    same_models : whether these judges are the paper's own models
    """
    parts = [f"# Report of the profile {profile}\n", HEAD[same_models]]
    for name, title in TABLES.items():
        parts += [f"## {title}\n", *_ours(folder, name), *_paper(name, scores, same_models)]
    for name, title in FIGURES.items():
        parts += [f"## {title}\n", *_figure(folder, name)]
    parts += ["## Training curves\n"]
    parts += [_picture(file.stem) for file in sorted(folder.glob("curves_*.png"))]
    for title, name in (("The paper's claims", "claims"), ("The policy turned round", "inversion")):
        parts += [f"## {title}\n", *_ours(folder, name)]
    parts += ["## Trained with other seeds\n", *_figure(folder, "seeds")]
    parts += _ours(folder, "seeds") if (folder / "seeds.png").exists() else []
    parts += ["## The published tables, audited\n", *_audit()]
    gaps = not_run(profile, scores)
    parts += ["## What was not run\n", markdown(gaps) if len(gaps) else "Nothing.\n"]
    page, document = output_paths(folder, "REPORT", "md", "html")
    text = "\n".join(parts)
    page.write_text(text, encoding="utf-8", newline="\n")
    document.write_text(_document(text, folder, profile), encoding="utf-8", newline="\n")
    return [page, document]


HEAD = {
    True: "Each cell: ours [95 % interval], the paper's value, the difference in points. The last "
    "two are grey while the paper's value lies inside our interval.\n",
    False: f"Ours with 95 % intervals. The paper's values are those of another model ({BASE[0]} "
    "and what was trained from it): they stand in blocks of their own and are not subtracted.\n",
}


def beside(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Our scores with the paper's value and the difference in each cell that both have."""
    published = reference.paper().cells.query("table == @name").set_index(["row", "column"])
    base = next(name for name in BASE if name in published.index.levels[0])
    rows, heads = {**ROWS, "base": base}, HEADS.get(name, {})
    columns = "policy" if "policy" in scores else "set"

    def text(row):
        column = getattr(row, columns)
        key = rows.get(row.judge, row.judge), heads.get(column, column)
        if key not in published.index or pd.isna(row.value):
            return cell(row)
        printed = published.loc[key]
        theirs = f"paper {printed['printed']}, {row.value - printed['value']:+.1f}"
        if row.low <= printed["value"] <= row.high:
            theirs = f'<span class="inside">{theirs}</span>'
        return f"{cell(row)}<br>{theirs}"

    return cells(scores, "judge", columns, text)


def not_run(profile: str, scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What the paper has and this profile lacks, one row each: what, why."""
    variants = [f"03_sft.{v}" for v in sft.VARIANTS] + [f"04_grpo.{v}" for v in grpo.VARIANTS]
    gaps = [(name, why) for name in variants if (why := _why(profile, name))]
    for name in TABLES:
        if name not in scores:
            continue
        known = {ROWS.get(judge, judge) for judge in scores[name]["judge"]}
        known |= set(BASE) if "base" in known else set()
        published = reference.table(name).iloc[:, 0]
        if lacking := [row for row in published if row not in known]:
            gaps.append((f"{name}: {', '.join(lacking)}", "no judge of this name was asked"))
    return pd.DataFrame(gaps, columns=["what", "why"])


def _why(profile, name):
    if not (PARAMS / profile / f"{name}.yaml").exists():
        return f"no parameter file params/{profile}/{name}.yaml"
    receipt = runs(profile) / f"{name}.json"
    if not receipt.exists():
        return "not run yet"
    found = json.loads(receipt.read_text(encoding="utf-8"))
    return "" if found["status"] == "ok" else f"{found['status']}: {found['reason']}"


def _ours(folder, name):
    """The tables that 07_figures wrote under this name, table6_variants after table6."""
    files = sorted(folder.glob(f"{name}.md")) + sorted(folder.glob(f"{name}_*.md"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    return texts or ([] if name == "table1" else ["Not run.\n"])


def _paper(name, scores, same_models):
    table = reference.table(name)
    if same_models and name in scores:
        return [markdown(beside(name, scores[name]), "Ours, the paper's, the difference")]
    head = "As printed" if name == "table1" else "Other models, as printed"
    printed = table.map(lambda cell: cell or "–")
    return [markdown(printed, f"{head} in arXiv 2603.01228v1")]


def _figure(folder, name):
    if not (folder / f"{name}.png").exists():
        return ["Not run.\n"]
    return [_picture(name)]


def _picture(name):
    return f"![{name}]({name}.png)\n\n[PDF]({name}.pdf), [numbers]({name}.csv)\n"


def _audit():
    """Findings that contradict what was printed; all of them folded below."""
    findings = pd.DataFrame(audit(reference.paper()))
    counts = findings["verdict"].value_counts()
    tally = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    against = findings[findings["verdict"] == "contradicts"].drop(columns="verdict")
    return [
        f"{len(findings)} findings: {tally}. {EXPLAINED}\n",
        markdown(against, "What contradicts the print"),
        "<details><summary>Every finding</summary>\n",
        markdown(findings),
        "</details>\n",
    ]


def _document(text, folder, profile):
    """The page as one HTML file: pictures inlined, no network."""
    import mistune

    body = mistune.create_markdown(escape=False, plugins=["table"])(text)
    body = body.replace("<table>", '<div class="wide"><table>')
    body = body.replace("</table>", "</table></div>")

    def inlined(match):
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([\w.-]+\.png)"', inlined, body)
    body = re.sub(r'<p><a href="[\w.-]+\.pdf">.*</p>\n', "", body)  # they stay behind
    head = f'<meta charset="utf-8"><title>sgvl: {html.escape(profile)}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )
