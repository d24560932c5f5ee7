import json
import re
import shutil

import pandas as pd
import pytest
from PIL import Image

from sgvl.experiments.rationales import RIGHT_REASON
from sgvl.report import figures, judge_cards, page, printed, reference, tables
from sgvl.report.page import Run
from sgvl.report.tables import write_table


def scores(judge, name, value, low, high, n=40, **more):
    return {"judge": judge, "set": name, "value": value, "low": low, "high": high, "n": n, **more}


@pytest.fixture
def table5():
    return pd.DataFrame(
        [
            scores("sft", "UnsafeBench", 66.0, 60.0, 70.0),  # printed: 66.96
            scores("sft", "General", 60.0, 58.0, 62.0),  # printed: 53.37
            scores("base", "UnsafeBench", 41.0, 40.0, 41.5),  # printed as Qwen2.5-7B: 41.71
            scores("base", "General", float("nan"), float("nan"), float("nan")),
            scores("mine", "UnsafeBench", 50.0, 45.0, 55.0),  # no such row in the paper
        ]
    )


CLAIMS = pd.DataFrame(
    [
        ("sft helps", "SFT helps.", "cannot tell", 3.0, -1.0, 7.0, 42, "one training run"),
        ("rl helps", "RL helps.", "holds", 5.0, 1.0, 9.0, 42, "one training run"),
        ("full helps", "Both help.", "cannot tell", *[float("nan")] * 4, "no judge full"),
    ],
    columns=["name", "statement", "outcome", "effect", "low", "high", "n", "note"],
)
NAMES = {"sft": "Ours (SFT)", "base": "The base", "mine": "My <b>own</b> judge"}


def a_run(table5, **more):
    about = {"profile": "nano", "base_model": "nano", "names": NAMES, "claims": CLAIMS}
    return Run(**{**about, "scores": {"table5": table5}, **more})


@pytest.fixture
def folder(tmp_path, table5):
    """What 07_figures leaves, as far as it was run: one table and one figure."""
    folder = tmp_path / "runs" / "nano" / "figures"
    named = tables.named(table5, NAMES)
    write_table(named.set_index("judge"), folder, "table5", "Recaption and RL", "seed 0")
    Image.new("RGB", (8, 8), "red").save(folder / "figure6.png")
    return folder


def test_another_models_values_are_never_subtracted(folder, table5):
    report, _ = page.write(folder, a_run(table5))
    text = report.read_text(encoding="utf-8")
    assert "stand in blocks of their own" in text
    assert "Other models, as printed" in text
    assert "66.96" in text and "paper 66.96" not in text


def test_tables_as_printed_say_so_and_figures_name_their_data(folder, table5):
    cells = pd.DataFrame({"Model": ["a"], "x": ["66.0 [60.0, 70.0]; paper 66.96, -1.0 (inside)"]})
    write_table(cells.set_index("Model"), folder, "table5", "Recaption and RL", "seed 0")
    data = {"figure6": "<b> owner/name@1a2b"}
    report, _ = page.write(folder, a_run(table5, as_printed=True, data=data))
    text = report.read_text(encoding="utf-8")
    assert '<span class="inside">paper 66.96, -1.0</span>' in text
    assert "grey while the paper's value lies inside" in text
    assert "Other models" not in text and text.count("As printed in arXiv") == 6
    section = text.partition("## Figure 6")[2].partition("## Figure 7")[0]
    assert "Data: &lt;b&gt; owner/name@1a2b" in section


def test_every_table_and_figure_has_a_place_and_the_missing_say_so(folder, table5):
    report, _ = page.write(folder, a_run(table5))
    text = report.read_text()
    sections = dict(re.findall(r"^## (\S+ \S+?):.*?\n(.*?)(?=^## )", text, re.M | re.S))
    names = [f"Table {k}" for k in range(1, 7)] + [f"Figure {k}" for k in range(1, 8)]
    assert list(sections) == names
    assert "seed 0" in sections["Table 5"] and "Not run." not in sections["Table 5"]
    words = "Figure 6: safety against general ability"
    assert f"![{words}](figure6.png)" in sections["Figure 6"]
    assert "Not run." in sections["Figure 7"] and "Not run." in sections["Table 2"]


def test_the_audit_is_part_of_the_report(folder, table5):
    text = page.write(folder, a_run(table5))[0].read_text(encoding="utf-8")
    assert re.search(r"\d+ findings: .*\d+ contradicts", text)


def test_the_document_stands_alone(folder, table5):
    _, document = page.write(folder, a_run(table5))
    text = document.read_text(encoding="utf-8")
    assert text.count("<table") > 5 and "data:image/png;base64," in text
    assert not re.search(r'src="(?!data:)', text) and "href=" not in text
    assert "<td" in text and "| ---" not in text  # every table of the page is a table here


def test_the_first_screen_says_what_was_run_and_how_the_claims_came_out(folder, table5):
    Image.new("RGB", (8, 8), "blue").save(folder / "table6_heatmap.png")
    table4 = pd.DataFrame(
        scores("base", name, 50.0, 40.0, 60.0, n)
        for name, n in {"UnsafeBench": 200, "presence": 50, "counting": 40}.items()
    )
    sources = {"UnsafeBench": "drawn", "presence": "general", "counting": "general"}
    run = a_run(table5, scores={"table4": table4, "table5": table5}, sources=sources)
    page_file, document = page.write(folder, run)
    first, _, rest = page_file.read_text(encoding="utf-8").partition("## ")
    counts = "holds: 1, does not hold: 0, cannot tell: 2, vacuous: 0"
    assert f"**3 claims of the paper** ({counts})" in first
    lines = [line for line in first.splitlines() if line.startswith("|")]
    assert lines[2:5] == [
        "| ✓ holds | RL helps | +5.0 [+1.0, +9.0] |",
        "| ? cannot tell | SFT helps | +3.0 [-1.0, +7.0] |",
        "| ? cannot tell | Full helps | no judge full |",
    ]
    assert lines[7:] == [
        "| UnsafeBench | drawn | 200 |",
        "| presence, counting | general | 50, 40 |",
    ]
    assert "Base model nano, 3 judges." in first
    assert first.count("![") == 1 and "![table6_heatmap](table6_heatmap.png)" in first
    assert rest.startswith("Table 1")


def test_a_table_without_rows_is_a_line(folder, table5):
    none = pd.DataFrame(columns=["judge"]).set_index("judge")
    write_table(none, folder, "squares", "Squares", "")
    text = page.write(folder, a_run(table5))[0].read_text()
    section = text.partition("## The policy, and only the policy\n")[2].partition("## ")[0]
    assert (
        section.endswith("\n\nNothing in this run counts for this table.\n\n")
        and "| judge |" not in section
    )


def test_the_first_screen_says_in_words_who_was_shown_to_read_the_policy(folder, table5):
    beyond = pd.DataFrame(
        [
            ("Ours (SFT)", "macro", "holds"),
            ("The <b>base</b>", "macro", "cannot tell"),
            ("The <b>base</b>", "pooled", "holds"),
            ("always safe", "macro", "does not hold"),
        ],
        columns=["judge", "average", "beats"],
    )
    report, _ = page.write(folder, a_run(table5, above_blind=beyond))
    lines = report.read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("**Shown to read the policy:** Ours (SFT). ")
    assert lines[2].endswith("**Not shown:** The &lt;b&gt;base&lt;/b&gt;, always safe.")


def test_what_is_not_ours_is_escaped(folder, table5):
    names = NAMES | {"mine": "<script>alert(1)</script> ![x](http://a.b/c.png)"}
    write_table(tables.named(table5, names), folder, "table5", "Recaption", "seed 0")
    run = a_run(table5, names=names, base_model="<i>", as_printed=True)
    written = [path.read_text(encoding="utf-8") for path in page.write(folder, run)]
    for text in written:
        assert "<script" not in text and "<i>" not in text
        assert "&lt;script&gt;" in text
    assert "](http" not in written[0], "no link, no picture"
    assert "<img" in written[1] and 'src="http' not in written[1] and "href=" not in written[1]


def test_a_judges_name_is_never_wrapped_and_an_interval_stands_beneath(folder, table5):
    page_file, document = page.write(folder, a_run(table5))
    row = "| Ours&nbsp;(SFT) | UnsafeBench | 66.00 | 60.00 | 70.00 | 40 |"
    assert row in page_file.read_text(encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    assert (
        '<table class="judges">' in text and ".judges td:first-child { white-space: nowrap" in text
    )


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium")
def test_the_widest_table_fits_1280_pixels_and_the_first_screen_is_one(folder, table5, tmp_path):
    from playwright.sync_api import sync_playwright

    judges = [f"Ours (RL+SafeEdit) {k}" for k in range(11)]
    head = "{} (F1) n=200, 100 unsafe"
    columns = [head.format(name) for name in ("Illegal activity", *"BCDEFGHIJK")]
    wide = pd.DataFrame("100.0 [85.1, 100.0]", pd.Index(judges, name="judge"), columns)
    write_table(wide, folder, "table2", "Nine categories", "n = 200")
    Image.new("RGB", (1200, 900), "blue").save(folder / "table6_heatmap.png")
    claims = pd.concat([CLAIMS] * 7, ignore_index=True)
    _, document = page.write(folder, a_run(table5, claims=claims))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(document.as_uri())
        tables_that_scroll = tab.locator(".wide").evaluate_all(
            "divs => divs.filter(d => d.scrollWidth > d.clientWidth).map(d => d.innerText)"
        )
        assert tables_that_scroll == []
        lines_of_names = tab.locator(".judges td:first-child").evaluate_all(
            "cells => cells.map(cell => { const text = document.createRange();"
            " text.selectNodeContents(cell); return text.getClientRects().length; })"
        )
        assert len(lines_of_names) > 50 and set(lines_of_names) == {1}
        assert tab.locator(".first").bounding_box()["height"] < 800
        browser.close()


def test_the_seeds_of_another_run_are_shown(folder, table5, tmp_path):
    seeds = tmp_path / "runs" / "nano_seeds" / "figures"
    assert "seeds.png" not in page.write(folder, a_run(table5), seeds)[0].read_text()
    write_table(table5.set_index("judge"), seeds, "seeds_differences", "What a stage adds", "seeds")
    Image.new("RGB", (8, 8), "green").save(seeds / "seeds.png")
    page_file, document, picture = page.write(folder, a_run(table5), seeds)
    assert picture == folder / "seeds.png" and picture.exists()
    section = page_file.read_text(encoding="utf-8").partition("## Trained with other seeds")[2]
    assert "![seeds](seeds.png)" in section and "What a stage adds" in section
    assert 'src="seeds.png"' not in document.read_text(encoding="utf-8")


def test_stage_two_with_one_thing_changed_is_shown(folder, table5, tmp_path):
    head = "## Stage 2, one change at a time\n"
    without = page.write(folder, a_run(table5))[0].read_text(encoding="utf-8")
    assert without.partition(head)[2].lstrip().startswith("Not run.")
    write_table(table5.set_index("judge"), tmp_path / "own", "stage2", "By change", "seed 1")
    write_table(table5.set_index("judge"), tmp_path / "own", "stage2_paid", "Paid", "five seeds")
    text = page.write(folder, a_run(table5), None, tmp_path / "own")[0].read_text(encoding="utf-8")
    shown = text.partition(head)[2]
    assert "By change" in shown and "five seeds" in shown and "As published" not in shown


HOSTILE = "My <b>own</b> judge ](http://a.b)"


def cards(folder):
    """Cards of a classifier, a released guard and a judge of no panel table."""
    about = pd.DataFrame(
        [
            ("mine", HOSTILE, False, False, "<i>x</i>", "", 1200, 34.56),
            ("guard", "A guard", True, False, "", "inclusionAI/SingGuard-4b", 0, 0.0),
            ("rule", "the rule", True, True, "", "", 12, 0.1),
        ],
        columns=[
            "judge", "name", "reads_policy", "reads_tags", "prefix_sharing", "model", "requests",
            "seconds",
        ],
    ).set_index("judge")  # fmt: skip
    scored = pd.DataFrame(
        [
            ("mine", "under each policy", "pooled", 900, 60.0, 55.0, 65.0, 12.5),
            ("mine", "squares", "squares right, xor", 12, 0.0, 0.0, 24.2, None),
            ("mine", "squares", "stays", 24, 100.0, 86.0, 100.0, None),
            ("mine", "rationales", RIGHT_REASON, 80, 70.0, 60.0, 79.0, None),
            ("mine", "order of the levels", "order broken", 500, 9.0, 6.0, 12.0, None),
            ("mine", "above the blind ceiling, points", "macro", 60, -3.0, -5.0, -1.0, None),
            ("guard", "squares", "squares right, xor", 12, 60.0, 40.0, 85.0, None),
        ],
        columns=judge_cards.COLUMNS,
    )
    return about, judge_cards.write(folder, "nano", about, scored)


def test_a_card_says_what_is_stored_and_what_a_judge_cannot_do(folder):
    about, paths = cards(folder)
    assert [path.name for path in paths[:2]] == ["card_mine.md", "card_mine.html"]
    mine, guard, rule = (path.read_text(encoding="utf-8") for path in paths[::2])
    assert "| cost | 1,200 answers in 34.6 s; tokens are not stored |" in mine
    cannot = mine.partition("## What it cannot do")[2].partition("## Scores")[0]
    assert re.findall("^- (.*)$", cannot, re.M) == [
        "Follow a policy: it reads none.",
        "squares right, xor: 0.0 [0.0, 24.2] %, below the bar of 80 %.",
        f"{RIGHT_REASON}: 70.0 [60.0, 79.0] %, below the bar of 85 %.",
        "order broken: 9.0 [6.0, 12.0] %, above the bar of 2 %.",
        "Show by its macro score that it reads policies: -3.0 [-5.0, -1.0] points.",
        "Always answer: 12.5 % of its replies under the levels hold no verdict.",
    ], "what its interval leaves open is no failure"
    assert "| squares | stays | 24 | 100.00 | 86.00 | 100.00 |" in mine
    assert "said to call harm safe in its fast mode" in guard and "Apache-2.0" in guard
    assert "Nothing was found." in guard and "| cost | not stored |" in guard
    assert "the registry has no such model" in mine
    assert "Squares and the order of levels were not scored." in rule


def test_cards_are_escaped_and_the_report_leads_to_them(folder, table5):
    about, paths = cards(folder)
    texts = [path.read_text(encoding="utf-8") for path in paths[:2]]
    for text in texts:
        assert "<b>" not in text and "<i>x" not in text and "&lt;b&gt;" in text
    assert "](http" not in texts[0] and "href=" not in texts[1]
    names = NAMES | about["name"].to_dict()
    run = a_run(table5, names=names, cards=list(about.index))
    page_file, document = page.write(folder, run)
    assert 'href="card_guard.md">A guard</a>' in page_file.read_text(encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    links = re.findall('href="([^"]*)"', text)
    assert links == ["card_mine.html", "card_guard.html", "card_rule.html"]
    assert all((folder / link).is_file() for link in links) and "<b>own" not in text


def test_a_figure_of_squares_stands_above_its_table_and_is_described(folder, table5):
    assert "adherence" not in page.write(folder, a_run(table5))[0].read_text(encoding="utf-8")
    row = {"judge": "base", "panel": "a [1](x) <b>", "measure": "flips", "n": 9, "blind": None}
    drawn = pd.DataFrame([row | {"value": 50.0, "low": 40.0, "high": 60.0}])
    figures.save(figures.adherence(drawn), "adherence", drawn, folder)
    report, document = page.write(folder, a_run(table5))
    assert "in panels: a \\[1\\]&#40;x) &lt;b&gt;. Dashed" in report.read_text(encoding="utf-8")
    alt = re.search('<img[^>]*alt="(A row for each of 1 judges[^"]*)"', document.read_text("utf-8"))
    assert "in panels: a [1](x) &lt;b&gt;." in alt[1].replace("&#40;", "(")


def test_the_same_run_gives_the_same_bytes(folder, table5):
    first = [path.read_bytes() for path in page.write(folder, a_run(table5))]
    assert [p.read_bytes() for p in page.write(folder, a_run(table5))] == first


def test_what_was_not_run_and_why(tmp_path, monkeypatch, table5):
    monkeypatch.setattr(page, "PARAMS", tmp_path / "params")
    monkeypatch.setattr(page, "runs", lambda profile: tmp_path / "runs" / profile)
    (tmp_path / "params" / "nano").mkdir(parents=True)
    (tmp_path / "runs" / "nano").mkdir(parents=True)
    receipts = {
        "03_sft.recap": {"status": "ok", "reason": ""},
        "03_sft.L1": {"status": "failed", "reason": "loss is nan"},
        "03_sft.L2": None,
        "03_sft.L3": ["of another shape"],
    }
    for name, receipt in receipts.items():
        (tmp_path / "params" / "nano" / f"{name}.yaml").touch()
        if receipt:
            (tmp_path / "runs" / "nano" / f"{name}.json").write_text(json.dumps(receipt))
    gaps = page.not_run("nano", {"table5": table5}).set_index("what")["why"]
    assert "03_sft.recap" not in gaps
    assert gaps["03_sft.L1"] == "failed: loss is nan"
    assert gaps["03_sft.L2"] == "not run yet"
    assert gaps["03_sft.L3"] == "runs/nano/03_sft.L3.json is no receipt of a finished run"
    assert gaps["04_grpo.rl"] == "no parameter file params/nano/04_grpo.rl.yaml"
    assert gaps["table5: w/o Recap (SFT), Ours (Full)"] == "no judge of this name was asked"


def test_every_head_that_is_renamed_is_one_of_the_papers():
    for name, heads in printed.HEADS.items():
        assert set(heads.values()) <= set(reference.table(name))


def test_every_id_on_the_hub_is_of_a_row_or_a_set_of_the_paper():
    names = ("table2", "table3", "table4", "table5", "table6")
    rows = {row for name in names for row in reference.table(name).iloc[:, 0]}
    assert set(reference.hub("model")) <= rows
    assert set(reference.hub("set")) == {*printed.SAFETY, *printed.GENERAL}


def test_every_row_that_a_judge_is_printed_in_is_one_of_the_papers():
    names = ("table2", "table3", "table4", "table5", "table6")
    rows = {row for name in names for row in reference.table(name).iloc[:, 0]}
    known = {row for printed in reference.ROWS.values() for row in printed}
    assert known - rows == {f"{stage} on L{k}" for stage in ("SFT", "RL") for k in (2, 3)}
    assert reference.printed_row("base", "table6") == "Qwen2.5-VL-7B"
    assert reference.printed_row("base", "table3") == "Qwen2.5-7B"
    assert reference.printed_row("taxonomy", "table4") is None
