"""Tables: what the cells say, what LaTeX must not see raw, and the same bytes twice."""

import doctest
import io
import shutil
import subprocess

import pandas as pd
import pytest

from sgvl.common.errors import InputError
from sgvl.common.paths import ROOT
from sgvl.report import tables
from sgvl.scores import metrics
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE


@pytest.fixture(scope="module")
def judgements():
    """Two judges, L1 with nothing unsafe, L4 with half, and a policy that is no level."""
    frames = []
    for policy, unsafe in (("openai_content", 5), ("L4", 10), ("L1", 0)):
        for judge, wrong in (("always_right", 0), ("50% & more", 4)):
            label = [UNSAFE] * unsafe + [SAFE] * (20 - unsafe)
            said = label[:]
            said[:wrong] = [UNPARSEABLE] * wrong
            frame = pd.DataFrame({"label": label, "verdict": said, "judge": judge})
            k = frame.index.to_numpy()
            frames.append(frame.assign(policy=policy, id=k.astype(str), pair=k % 10))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def scores(judgements):
    return metrics.score_table(judgements)


def test_heads_carry_metric_n_and_positives(scores):
    assert list(tables.judge_table(scores).columns) == [
        "L1 (accuracy) n=20",
        "L4 (F1) n=20, 10 unsafe",
        "openai_content (F1) n=20, 5 unsafe",
        "Overall (macro)",
        "Overall (pooled) n=60, 15 unsafe",
    ]


def test_cells_carry_the_interval(scores):
    table = tables.judge_table(scores)
    assert list(table.index) == ["always_right", "50% & more"]
    assert (
        table.loc["always_right", "L1 (accuracy) n=20"] == "100.0 [72.2, 100.0]"
    )  # 10 of 10 pairs
    row = scores[(scores["judge"] == "50% & more") & (scores["policy"] == "L4")].iloc[0]
    expected = f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]"
    assert table.loc["50% & more", "L4 (F1) n=20, 10 unsafe"] == expected


def test_heads_show_a_range_where_judges_differ_in_n(judgements):
    heads = tables.judge_table(metrics.score_table(judgements, "drop")).columns
    assert heads[1] == "L4 (F1) n=16 to 20, 6 to 10 unsafe"


def test_missing_policy_is_named_also_after_a_round_trip(judgements):
    gone = (judgements["judge"] == "always_right") & (judgements["policy"] == "L4")
    scores = metrics.score_table(judgements[~gone])
    again = pd.read_csv(io.StringIO(scores.to_csv(index=False)))
    for table in (tables.judge_table(scores), tables.judge_table(again)):
        row = table.loc["always_right"]
        assert row["L4 (F1) n=20, 10 unsafe"] == "n/a"
        assert row["Overall (macro)"] == row.iloc[-1] == "n/a (no L4)"


def test_note_says_how(scores):
    note = tables.score_note(scores, profile="nano", seed=3, resamples=2000)
    for part in ("nano", "seed 3", "n = 60", "2,000 resamples", "BCa", "Wilson", "counts as wrong"):
        assert part in note
    assert "(0.0 to 20.0 % of a judge's answers)" in note


def test_three_files_same_bytes_twice(scores, tmp_path):
    table = tables.judge_table(scores)
    first = tables.write_table(table, tmp_path / "a", "table_6", "Table 6: 100 %", "n & seed")
    second = tables.write_table(table, tmp_path / "b", "table_6", "Table 6: 100 %", "n & seed")
    assert [path.name for path in first] == [f"table_6.{x}" for x in ("md", "tex", "csv")]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes() and b"\r" not in one.read_bytes()
    assert list(pd.read_csv(first[2])["judge"]) == ["always_right", "50% & more"]


def test_latex_is_escaped_and_booktabs(scores, tmp_path):
    table = tables.judge_table(scores)
    _, tex, _ = tables.write_table(table, tmp_path, "t", "50 % of A_B", "R&D, x < 1")
    text = tex.read_text()
    body = text.replace(r"\%", "").replace(r"\_", "").replace("% \\usepackage", "")
    assert r"50\% \& more &" in text and r"always\_right &" in text
    assert r"\caption{50 \% of A\_B}" in text and r"R\&D, x \textless{} 1" in text
    assert "_" not in body and "%" not in body.replace("{!}{%\n", "").replace("tabular}%\n", "")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {5}


def test_narrow_table_of_other_things(tmp_path):
    frame = pd.DataFrame({"claim": ["a|b", "[x]"], "p": [1.2345, None], "n": [1, 22]})
    md, tex, csv = tables.write_table(frame, tmp_path, "claims", "Claims", "Note.")
    assert md.read_text().splitlines()[2:6] == [
        "| claim | p | n |",
        "| --- | ---: | ---: |",
        r"| a\|b | 1.23 | 1 |",
        "| [x] | n/a | 22 |",
    ]
    # \\ followed by [x] would be read as a distance.
    assert "\n{}[x] & n/a & 22" in tex.read_text() and r"\begin{table}[t]" in tex.read_text()
    assert csv.read_text() == "claim,p,n\na|b,1.2345,1\n[x],,22\n"


def test_ids_are_replaced_by_names_and_a_typo_is_an_error():
    frame = pd.DataFrame({"judge": ["sft", "base", "sft"], "value": [1, 2, 3]})
    names = {"base": "The base", "sft": "Ours (SFT)", "full": "Ours (Full)"}
    assert list(tables.named(frame, names)["judge"]) == ["Ours (SFT)", "The base", "Ours (SFT)"]
    with pytest.raises(InputError, match="judge 'sfft'; did you mean sft?"):
        tables.named(frame.replace("sft", "sfft"), names)


def test_markdown_for_the_report_stacks_intervals_and_escapes_text():
    frame = pd.DataFrame(
        {
            "judge": ["a & b", "![x](http://y)"],
            "L2 (F1) n=84, 7 unsafe": ["20.6 [10.0, 30.5]", "n/a (no L2)"],
            "Overall": ["-1.5 [-2.0, 3.0]; paper 2.50, -4.0 (inside)", "1.0 <b>"],
            "note": ["5 training seeds", "–"],
        }
    ).set_index("judge")
    beside = '-1.5<br><sub>[-2.0, 3.0]<br><span class="inside">paper 2.50, -4.0</span></sub>'
    text = tables.page_markdown(frame, "A <caption>", "R&D")
    assert text.splitlines() == [
        "**A &lt;caption&gt;**",
        "",
        "| judge | L2 (F1)<br><sub>n=84, 7 unsafe</sub> | Overall | note |",
        "| --- | ---: | --- | --- |",
        f"| a&nbsp;&amp;&nbsp;b | 20.6<br><sub>[10.0, 30.5]</sub> | {beside} | 5 training seeds |",
        "| ![x]&#40;http://y) | n/a (no L2) | 1.0 &lt;b&gt; | – |",
        "",
        "R&amp;D",
    ]


def test_claims_are_printed_with_their_interval():
    claims = pd.DataFrame(
        {"name": ["a", "b"], "statement": ["A.", "B."], "outcome": ["holds", "cannot tell"],
         "effect": [3.21, None], "low": [1.0, None], "high": [5.0, None], "n": [42.0, None],
         "note": ["one training run", "no judge x"], "profile": "nano"}
    )  # fmt: skip
    table = tables.claim_table(claims).reset_index()
    assert table.astype(object).where(table.notna(), None).values.tolist() == [
        ["A.", "holds", "3.2 [1.0, 5.0]", 42, "one training run"],
        ["B.", "cannot tell", "n/a", None, "no judge x"],
    ]


@pytest.mark.parametrize("name", ["../t", "a b", "", ".t", "a/b"])
def test_a_name_is_a_file_name(name, tmp_path):
    with pytest.raises(InputError, match="is no file name"):
        tables.write_table(pd.DataFrame({"a": [1]}), tmp_path, name, "", "")


def test_docstring_tells_the_truth():
    assert doctest.testmod(tables) == (0, 1)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs Debian's texlive-latex-recommended")
def test_latex_compiles(tmp_path):
    """Every table of the last run that was stored, in one document."""
    files = sorted((ROOT / "figures" / "nano").glob("*.tex"))
    parts = [rf"\input{{{file.as_posix()}}}" for file in files]
    preamble = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}"
    text = [preamble, r"\begin{document}", *parts, r"\end{document}"]
    (tmp_path / "tables.tex").write_text("\n".join(text), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000


def test_texts_in_a_notebook_are_whole_escaped_and_on_the_left():
    frame = pd.DataFrame({"<i>": ["<b>" + "long " * 40, None], "p": [0.123456, None]})
    shown = tables.texts(frame).to_html()
    assert "&lt;b&gt;" + "long " * 40 in shown and "0.12<" in shown and "0.123" not in shown
    assert "&lt;i&gt;" in shown and ">nan<" not in shown and ">None<" not in shown
    assert "text-align: left" in shown and ">0</th>" not in shown
    assert ">0</th>" in tables.texts(frame, index=True).to_html()
