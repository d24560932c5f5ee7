"""Write the report of a profile: one screen of results, then every table and figure, and the gaps.

``write`` puts ``REPORT.md`` and a self-contained ``REPORT.html`` beside the files of 07_figures.
Nothing is measured here. The paper's tables stand in blocks of their own.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sgvl.common import files, paths
from sgvl.common.paths import PARAMS, runs
from sgvl.report import figures, reference
from sgvl.report.audit import audit
from sgvl.report.audit.findings import ASSUMPTIONS
from sgvl.report.printed import TITLES
from sgvl.report.tables import RATIONALES, escaped, markdown, output_paths, page_markdown, span
from sgvl.scores.blind_ceiling import NAMES as BLIND
from sgvl.training import grpo, sft

FIGURES = {
    "figure1": "Figure 1: the method, as it was run",
    "figure2": "Figure 2: matched pairs",
    "figure3": "Figure 3: what the recaption puts back",
    "figure4": "Figure 4: the share of unsafe pictures under each policy",
    "figure5": "Figure 5: one picture, every verdict",
    "figure6": "Figure 6: safety against general ability",
    "figure7": "Figure 7: a policy and a question, in the judges' own words",
}
SEEN = {  # how to read a figure or a table, by its name
    "figure2": "An unsafe picture beside its edited counterpart; a frame marks what was edited.",
    "figure3": "Words that the recaptioner added are marked.",
    "figure6": "The macro score of Table 6 against the share of general questions answered right, "
    "with 95 % intervals. Markers shrink from judge to judge, so that equal ones show as rings.",
    "figure7": "What one policy permits and another prohibits; then a question with options.",
    "squares": "A square is a picture and its edited copy under a policy and its edited copy, "
    "right if all four verdicts are. Of xor the labels lie crosswise, of 3:1 one differs from the "
    "others: a judge that looks at the picture alone, or reads the policy alone, gets none of "
    "these. A judge flips where the label turns with the policy, and stays where its wording alone "
    "changes.",
    "seeds": "A dot is one training run. The bar is the mean over runs; its 95 % interval includes "
    "the variation between pictures and between runs.",
    "stage2": "Stage 2 is trained again with one choice changed; a row has the name of the change "
    "in the parameter file. A group is dead if all of its replies have the same reward.",
}
CARD = "card_"  # the file of a judge's card begins so
MAIN_FIGURE = "table6_heatmap"  # the one on the first screen
BASE = ("Qwen2.5-VL-7B", "Qwen2.5-7B")  # the paper's base has two names in its tables
OUTCOMES = {
    "holds": "✓ holds",
    "does not hold": "✗ does not hold",
    "cannot tell": "? cannot tell",
    "vacuous": "– vacuous",
}
HEAD = {
    True: "Rows and columns are the paper's. Each cell: ours, its 95 % interval, and where model "
    "and data are the paper's, its value and the difference in points. The last two are grey while "
    "the paper's value lies inside our interval. A cell without a score says why.\n",
    False: f"Ours with 95 % intervals. The paper's values are those of another model ({BASE[0]} "
    "and what was trained from it): they stand in blocks of their own and are not subtracted.\n",
}
EXPLAINED = (
    "What *follows* from the print is not claimed there. *Certainty* is exact, or names the "
    "assumptions that a finding rests on; they are listed below."
)
STYLE = """
body { max-width: 80rem; margin: 1rem auto; padding: 0 1rem; font: 16px/1.45 system-ui, sans-serif;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
        margin: .5rem 0; }
th, td { padding: .25em .45em; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; line-height: 1.25; }
th { border-bottom: 2px solid #222; vertical-align: bottom; }
td[style*=right] { white-space: nowrap; }
.judges td:first-child { white-space: nowrap; }
sub { font-size: 11px; font-weight: normal; vertical-align: baseline; color: #555; }
.inside { color: #767676; }
.wide { overflow-x: auto; }
img { max-width: min(100%, 56rem); height: auto; }
summary { cursor: pointer; }
.first { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2rem; }
.first p { margin: .4rem 0; font-size: 14px; }
.first table { font-size: 13px; width: 100%; }
.first th, .first td { padding: .1em .4em; }
@media (max-width: 60rem) { .first { display: block; } }
@media (max-width: 40rem) { img { max-width: none; zoom: .55; } p:has(> img) { overflow-x: auto; } }
"""
OWN = {  # tables that the paper does not have
    "claims": "The paper's claims",
    "blind_ceiling": "The blind ceiling",
    "inversion": "The inverted policy",
    "squares": "The policy, and only the policy",
    "squares_by_edit": "The policy, and only the policy: by edit",
    "level_order": "The order of the levels",
    "allow_lists": "Allow-lists",
    "policy_shift": "The Policy Shift Score",
    **RATIONALES,
    "kit_claims": "The kit's own claims",
}
SEEDS = [  # tables of 09_seeds
    *("seeds_differences", "seeds_comparisons", "seeds_claims", "seeds_bars", "seeds_by_operator"),
    *("seeds_rationales", "seeds_carried_over", "seeds_things_named"),
]
FIGURE_OF = {"squares": "adherence"}  # above a table of OWN
JUDGE_HEADS = ("judge", "Model", "Variant", "Policy Level", "Method / Benchmark")


class Run(NamedTuple):
    """Facts that the report prints about a run, besides the files of 07_figures."""

    profile: str
    base_model: str
    names: Mapping[str, str]  # display name of each judge, by id
    scores: Mapping[str, pd.DataFrame]  # by table: judge, policy or set, n, value, low, high (%)
    claims: pd.DataFrame  # what 06_ablations stored
    sources: Mapping[str, str] = {}  # where the pictures of each set of Table 4 come from
    as_printed: bool = False  # True if the rows and columns of the tables are the paper's
    data: Mapping[str, str] = {}  # where the rows behind a figure come from, printed beneath it
    cards: Sequence[str] = ()  # ids of the judges that have a card beside the report
    above_blind: pd.DataFrame = pd.DataFrame()  # of blind_ceiling, with the judges' display names


def write(
    folder: Path, run: Run, seeds: Path | None = None, stage2: Path | None = None
) -> list[Path]:
    """Write both forms of the report from the files in ``folder``.

    Parameters
    ----------
    folder : where 07_figures wrote its tables and figures
    seeds, stage2 : where 09_seeds and 09b_stage2 wrote theirs, or the published copies; None leaves
        them out

    Returns
    -------
    Paths of REPORT.md and REPORT.html, and of a picture copied from ``seeds``
    """
    parts = [f"# Profile {html.escape(run.profile)}: what was run, and what it shows\n"]
    parts += [*_first_screen(folder, run, bool(seeds)), HEAD[run.as_printed]]
    for name, title in TITLES.items():
        parts += [f"## {title}\n", *_ours(folder, name), *_paper(name, run)]
    for name, title in FIGURES.items():
        parts += [f"## {title}\n", *_seen(name), *_figure(folder, name)]
        parts += [f"Data: {html.escape(run.data[name])}\n"] if name in run.data else []
    parts += ["## Training curves\n"]
    parts += [_picture(file) for file in sorted(folder.glob("curves_*.png"))]
    for name, title in OWN.items():
        parts += [f"## {title}\n", *_seen(name), *_above(folder, name), *_ours(folder, name)]
    parts += ["## Judge cards\n", *_cards(run)]
    copied = _copy_seeds(folder, seeds)
    parts += ["## Trained with other seeds\n", *_seeds(seeds, copied)]
    parts += ["## Stage 2, one change at a time\n", *_stage2(stage2)]
    parts += ["## The published tables, audited\n", *_audit()]
    gaps = not_run(run.profile, run.scores)
    parts += ["## What was not run\n", page_markdown(gaps) if len(gaps) else "Nothing.\n"]
    page, document = output_paths(folder, "REPORT", "md", "html")
    text = "\n".join(parts)
    files.write(page, text)
    files.write(document, html_document(text, folder, run.profile))
    return [page, document, *copied]


def not_run(profile: str, scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """List what the paper has and this profile lacks: columns what and why."""
    variants = [f"03_sft.{v}" for v in sft.VARIANTS] + [f"04_grpo.{v}" for v in grpo.VARIANTS]
    gaps = [(name, why) for name in variants if (why := _why(profile, name))]
    for name in TITLES:
        if name not in scores:
            continue
        rows = {reference.printed_row(judge, name) for judge in scores[name]["judge"]}
        if lacking := [row for row in reference.table(name).iloc[:, 0] if row not in rows]:
            gaps.append((f"{name}: {', '.join(lacking)}", "no judge of this name was asked"))
    return pd.DataFrame(gaps, columns=["what", "why"])


def _why(profile, name):
    """Return why a training unit has no result; "" if it has one."""
    receipt = runs(profile) / f"{name}.json"
    if not receipt.exists():
        file = PARAMS / profile / f"{name}.yaml"
        return "not run yet" if file.exists() else f"no parameter file params/{profile}/{file.name}"
    try:
        facts = json.loads(receipt.read_text(encoding="utf-8"))
        return "" if facts["status"] == "ok" else f"{facts['status']}: {facts['reason']}"
    except (OSError, ValueError, TypeError, KeyError):
        return f"runs/{profile}/{name}.json is no receipt of a finished run"


def _first_screen(folder, run, seeded):
    """Return who reads the policy; then the claims, one figure and the data in two columns."""
    return [
        *_finding(run.above_blind),
        '<div class="first">\n<div>\n',
        *_outcomes(run.claims, seeded),
        "</div>\n<div>\n",
        "Table 6: the judges that were asked under every level, in percent.\n",
        *_figure(folder, MAIN_FIGURE),
        *_what_was_run(run),
        "</div>\n</div>\n",
    ]


def _finding(above_blind):
    """Say in words which judges were shown to read the policy, by their macro score."""
    if above_blind.empty:
        return []
    macro = above_blind[above_blind["average"] == "macro"]
    shown = macro["beats"] == "holds"
    read, others = (
        ", ".join(html.escape(name) for name in macro.loc[rows, "judge"]) or "none"
        for rows in (shown, ~shown)
    )
    meaning = "scores above the best that is possible without reading one, by a whole interval"
    shown_to = f"**Shown to read the policy:** {read}. Over the levels, each {meaning}."
    return [f"{shown_to} **Not shown:** {others}.\n"]


def _what_was_run(run):
    """Return the base model, the number of judges, and n and source of each set."""
    line = f"Base model {html.escape(run.base_model)}, {len({*run.names} - {*BLIND})} judges.\n"
    if "table4" not in run.scores:
        return [line]
    sets = run.scores["table4"].dropna(subset="n").astype({"n": int})
    counts = sets.groupby("set", sort=False)["n"].agg(span).rename("n").reset_index()
    counts["source"] = counts["set"].map(lambda name: run.sources.get(name, "n/a"))
    rows = counts.groupby("source", sort=False)[["set", "n"]].agg(", ".join).reset_index()
    rows = rows.rename(columns={"n": "answers per judge"})
    return [line, page_markdown(rows[["set", "source", "answers per judge"]])]


def _outcomes(claims, seeded):
    """Count the claims by outcome, and give each a line."""
    counts = claims["outcome"].value_counts()
    words = ", ".join(f"{outcome}: {counts.get(outcome, 0)}" for outcome in OUTCOMES)
    order = claims.assign(outcome=pd.Categorical(claims["outcome"], list(OUTCOMES), ordered=True))
    order = order.sort_values("outcome", kind="stable")
    lines = pd.DataFrame(
        {
            "outcome": order["outcome"].astype(str).map(OUTCOMES),
            "claim": order["name"].map(_title),
            "points, or % of one judge": [_effect(row) or row.note for row in order.itertuples()],
        }
    )
    by = "by one training run of each judge"
    by += "; by several below, under *Trained with other seeds*" * seeded
    return [f"**{len(claims)} claims of the paper** ({words}), {by}\n", markdown(lines)]


def _title(claim):
    """Write a claim's name as a title, as "SFT on L1 degenerates"."""
    title = re.sub(r"\b(sft|rl|l[1-5])\b", lambda match: match[0].upper(), claim)
    title = title.replace("safeedit", "SafeEdit")
    return title[0].upper() + title[1:]


def _effect(row):
    return "" if pd.isna(row.effect) else f"{row.effect:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"


def _ours(folder, name):
    """Return the table that 07_figures wrote under this name."""
    file, numbers = folder / f"{name}.md", folder / f"{name}.csv"
    if not file.exists():
        return [] if name == "table1" else ["Not run.\n"]
    if len(numbers.read_text(encoding="utf-8").splitlines()) == 1:  # the names of columns
        return ["Nothing in this run counts for this table.\n"]
    return [file.read_text(encoding="utf-8")]


def _paper(name, run):
    ours = run.as_printed or name == "table1"
    head = "As printed" if ours else "Other models, as printed"
    printed = reference.table(name).map(lambda cell: cell or "–")
    return [page_markdown(printed, f"{head} in arXiv 2603.01228v1")]


def _seen(name):
    return [f"{SEEN[name]}\n"] if name in SEEN else []


def _figure(folder, name):
    if not (folder / f"{name}.png").exists():
        return ["Not run.\n"]
    return [_picture(folder / f"{name}.png")]


def _picture(png):
    name = png.stem
    return f"{_image(png)}\n[PDF]({name}.pdf), [numbers]({name}.csv)\n"


def _image(png):
    """Link a picture with the description that it holds."""
    alt = escaped(figures.description(png, FIGURES.get(png.stem, png.stem)))
    alt = re.sub(r"[][]", r"\\\g<0>", alt)
    return f"![{alt}]({png.name})\n"


def _above(folder, name):
    """Return the figure that stands above a table, if it was drawn."""
    figure = FIGURE_OF.get(name)
    return _figure(folder, figure) if figure and (folder / f"{figure}.png").exists() else []


def _cards(run):
    """Link the card of each judge; ids are plain file names, names are not."""
    links = [
        f'<li><a href="{CARD}{id}.md">{html.escape(run.names[id])}</a></li>\n' for id in run.cards
    ]
    return [f"<ul>\n{''.join(links)}</ul>\n"] if links else ["Not run.\n"]


def _copy_seeds(folder, seeds):
    """Copy the figure of 09_seeds to the report, so that its link holds where it is published."""
    picture = seeds and seeds / "seeds.png"
    if not picture or not picture.exists():
        return []
    files.write(folder / picture.name, picture.read_bytes())
    return [folder / picture.name]


def _seeds(seeds, copied):
    if not copied:
        return ["Not run.\n"]
    return [
        *_as_published(seeds, "make seeds"),
        *_seen("seeds"),
        _image(copied[0]),
        *(line for name in SEEDS if (seeds / f"{name}.md").exists() for line in _ours(seeds, name)),
    ]


def _stage2(folder):
    """Return the tables of 09b_stage2, one for each panel of variations."""
    if not folder:
        return ["Not run.\n"]
    names = sorted(file.stem for file in folder.glob("stage2*.md"))
    lines = (line for name in names for line in _ours(folder, name))
    return [*_as_published(folder, "make stage2"), *_seen("stage2"), *lines]


def _as_published(folder, command):
    published = folder.is_relative_to(paths.FIGURES)
    return [f"As published; `{command}` runs it again.\n"] if published else []


def _audit():
    """Return the findings that contradict what was printed, and all findings folded below."""
    findings = pd.DataFrame(audit(reference.paper()))
    counts = findings["verdict"].value_counts()
    tally = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    against = findings[findings["verdict"] == "contradicts"].drop(columns="verdict")
    return [
        f"{len(findings)} findings: {tally}. {EXPLAINED}\n",
        page_markdown(against, "What contradicts the print"),
        "<details><summary>Every finding</summary>\n",
        page_markdown(findings),
        "</details>\n",
        "<details><summary>The assumptions</summary>\n",
        "\n".join(f"- *{name}*: {meaning}" for name, meaning in ASSUMPTIONS.items()) + "\n",
        "</details>\n",
    ]


def html_document(text: str, folder: Path, title: str) -> str:
    """Return a page of Markdown as one HTML file: pictures of ``folder`` inlined, no network.

    A link to a card leads to its HTML form.
    """
    import mistune

    body = mistune.create_markdown(escape=False, plugins=["table"])(text)
    heads = "|".join(map(re.escape, JUDGE_HEADS))
    first = rf"<table>(?=\s*<thead>\s*<tr>\s*<th[^>]*>(?:{heads})</th>)"
    body = re.sub(first, '<table class="judges">', body)
    body = re.sub(r"(<table[^>]*>)", r'<div class="wide">\1', body)
    body = body.replace("</table>", "</table></div>")

    def inlined(match):
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([\w.-]+\.png)"', inlined, body)
    body = re.sub(r'<p><a href="[\w.-]+\.pdf">.*</p>\n', "", body)  # these files are not included
    body = re.sub(rf'href="({CARD}[\w.-]+)\.md"', r'href="\1.html"', body)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>sgvl: {html.escape(title)}</title>"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )
