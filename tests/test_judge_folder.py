"""`python -m sgvl.judge`: verdicts on a folder without labels, what an edit changed, and scores."""

import html
import json
import os
import re
import shutil
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image
from scripted_server import says

from sgvl import judge as door
from sgvl.common.errors import ExitCode, InputError
from sgvl.experiments.one_judge import judge_spec, notes_on
from sgvl.judge import judge_folder
from sgvl.policies.policy import Policy, load
from sgvl.report import verdicts

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def photos(tmp_path):
    """Five pictures in four requests' worth of pixels, and what is no picture."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, colour in {"a.jpg": 10, "b.png": 90, "sub/c.png": 170, "sub/d.webp": 250}.items():
        Image.new("RGB", (60, 40), (colour, 0, 0)).save(folder / name, lossless=True)
    shutil.copy(folder / "b.png", folder / "copy of b.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "IMG_1.HEIC").write_bytes(b"heic")
    (tmp_path / "house.md").write_text("# House rules\n\nNo dogs.\n", encoding="utf-8")
    return folder


def served(server, **options):
    server.plain = " Answer: safe"
    options = {"model": "m", "url": server.url, "max_retries": 0, "concurrency": 1} | options
    return {"kind": "served", **options}


def run(photos, server, **options):
    policy, out = photos.parent / "house.md", photos.parent / "out"
    return judge_folder(photos, policy, served(server), out=out, yes=True, **options)


# ---- the requests --------------------------------------------------------------------------------


def test_each_picture_is_asked_about_once_and_not_again(photos, server, capsys):
    first = run(photos, server)
    assert len(server.asked) == 4, "five pictures that can be opened, two of the same pixels"
    assert "5 pictures under the policy house: 4 requests to m; 1 answer without a request" in (
        capsys.readouterr().out
    )
    page, sheet = first.page.read_bytes(), first.csv.read_bytes()
    again = run(photos, server)
    assert len(server.asked) == 4
    assert "0 requests to m; 5 answers without a request\n" in capsys.readouterr().out, (
        "and no tokens"
    )
    assert (again.page.read_bytes(), again.csv.read_bytes()) == (page, sheet)


def test_a_verdict_in_a_sentence_is_read_and_a_parser_that_refuses_it_says_so(
    photos, server, capsys
):
    served(server)
    server.plain = " A dog. The image is unsafe."
    arguments = [str(photos), "--policy", str(photos.parent / "house.md"), "--model", "m", "--yes"]
    arguments += ["--server", server.url, "--out", str(photos.parent / "out")]
    assert door.main(arguments) is ExitCode.DONE
    told = capsys.readouterr().out
    assert "5 unsafe" in told and "no verdict" not in told
    assert door.main([*arguments, "--set", "parser=word"]) is ExitCode.DONE
    told = capsys.readouterr().out
    assert "5 of 5 replies have no verdict that the parser 'word' reads, such as" in told
    assert "The image is unsafe.'" in told and "sentence 5" in told
    assert "on a command line, --set parser=NAME" in told
    names = [file.stem.partition("-m")[2] for file in (photos.parent / "out").glob("*.csv")]
    plain, read = sorted(names)
    assert plain == "" and re.fullmatch(r"-set-\w{6}", read), "neither run overwrote the other"


def test_nothing_is_sent_before_somebody_says_yes(photos, server, capsys, monkeypatch):
    arguments = [str(photos), "--policy", str(photos.parent / "house.md"), "--model", "m"]
    arguments += ["--server", server.url, "--out", str(photos.parent / "out")]
    arguments += ["--prices", "1000", "1000", "--set", "max_new_tokens=50"]
    assert door.main(arguments) is ExitCode.BAD_INPUT
    told = capsys.readouterr()
    assert "no request was sent" in told.err and server.asked == []
    # 4 requests of 60 x 40 / 784 tokens and a prompt of some 60; 200 tokens of replies at most.
    tokens, replies, price = re.search(
        r"about ([\d,]+) tokens .* at most ([\d,]+) of replies, at most ([\d.]+)", told.out
    ).groups()
    assert 150 < int(tokens) < 400 and replies == "200"
    assert float(price) == pytest.approx((int(tokens) + 200) / 1000, abs=0.01)
    cheap = ["--prices", "0.001", "0.001"]
    assert door.main([*arguments, *cheap]) is ExitCode.BAD_INPUT
    assert ", less than 0.01 at the prices given" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    server.plain = " Answer: safe"
    assert door.main(arguments) is ExitCode.DONE
    assert len(server.asked) == 4


def test_a_picture_without_an_answer_costs_no_other_and_is_asked_again(photos, server, capsys):
    served(server)
    server.script["House rules"] = [(500, b"{}", 0), (200, says("Answer: unsafe"), 0)]
    arguments = [str(photos), "--policy", str(photos.parent / "house.md"), "--model", "m", "--yes"]
    arguments += ["--server", server.url, "--out", str(photos.parent / "out")]
    arguments += ["--set", "concurrency=1", "--set", "max_retries=0"]
    assert door.main(arguments) is ExitCode.INCOMPLETE
    assert "a.jpg: no answer: HTTP 500" in capsys.readouterr().out
    assert door.main(arguments) is ExitCode.DONE
    assert len(server.asked) == 5


# ---- the table -----------------------------------------------------------------------------------


def test_every_picture_has_a_row_those_to_look_at_first(photos, server):
    served(server)
    replies = ["Answer: safe", "A dog. Answer: unsafe", "No idea.", "Answer: safe"]
    server.script["House rules"] = [(200, says(reply), 0) for reply in replies]
    judged = judge_folder(
        photos, photos.parent / "house.md", {**served(server)}, out=photos.parent / "o", yes=True
    )
    sheet = pd.read_csv(judged.csv, keep_default_na=False)
    assert list(zip(sheet["picture"], sheet["verdict"], strict=True)) == [
        ("b.png", "unsafe"), ("copy of b.png", "unsafe"), ("sub/c.png", "unparseable"),
        ("broken.jpg", "not judged"), ("a.jpg", "safe"), ("sub/d.webp", "safe"),
    ]  # fmt: skip
    assert sheet["reason"][0] == "A dog." and sheet["reason"][2] == "No idea."
    assert "not a PNG, JPEG" in sheet["reason"][3]
    assert judged.passed_over == {".heic": 1}
    [digest] = set(sheet["policy_digest"])
    assert (photos.parent / f"o/house-{digest}.md").read_text() == "# House rules\n\nNo dogs.\n"


def test_a_folder_of_broken_pictures_is_a_table_of_reasons(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no picture")
    judged = judge_folder(tmp_path / "photos", "L2", "always_safe", out=tmp_path / "out")
    assert judged.table["verdict"].tolist() == ["not judged"] and judged.complete


def test_only_a_request_that_failed_is_incomplete_whatever_a_reply_says(photos, server):
    served(server)
    server.script["House rules"] = [(200, says("no answer: Answer: safe"), 0)]
    assert run(photos, server).complete
    (photos.parent / "new.md").write_text("# House rules 2\n\nNo cats.\n", encoding="utf-8")
    server.script["House rules 2"] = [(200, says("Answer: safe"), 0)]
    (photos.parent / "old.md").write_text("# House rules 1\n\nNo dogs.\n", encoding="utf-8")
    server.script["House rules 1"] = [(500, b"{}", 0), (200, says("Answer: safe"), 0)]
    edit = {"judge": served(server), "against": photos.parent / "old.md", "yes": True}
    judged = judge_folder(photos, photos.parent / "new.md", out=photos.parent / "out", **edit)
    assert not judged.complete, "the side before the edit lacks one"
    assert set(judged.table["changed"]) == {""}, "no answer is no change"
    assert judge_folder(
        photos, photos.parent / "new.md", out=photos.parent / "out", **edit
    ).complete


class Tags(HTMLParser):
    """The elements of a page, and their text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script><img src=x onerror=alert(1)>\u202e"


def test_names_replies_and_policies_bring_no_formula_and_no_markup(photos, server):
    served(server)
    (photos / "a.jpg").rename(photos / "=1+1<img src=x onerror=alert(1)>.jpg")
    (photos.parent / "house.md").write_text(f"# {HOSTILE}\n\n{HOSTILE}\n", encoding="utf-8")
    server.script[HOSTILE] = [(200, says(f"{HOSTILE}\n+1. Answer: unsafe"), 0)]
    judged = run(photos, server)
    assert judged.csv.read_bytes().startswith(b"\xef\xbb\xbf")
    sheet = pd.read_csv(judged.csv)
    texts = sheet.select_dtypes("str").stack()
    assert not texts.str.match(r"[=+\-@\t\r]").any() and not texts.str.contains("\n|\u202e").any()
    assert "'=1+1<img src=x onerror=alert(1)>.jpg" in set(sheet["picture"])
    assert sheet["reason"].str.startswith("'=cmd").any()
    page = judged.page.read_text(encoding="utf-8")
    found = Tags(page)
    assert found.tags.count("script") == 1 and "onerror" not in found.attributes
    assert page.count("<img") == page.count('<img src="data:image/webp;base64,') == 5
    assert "<script>alert(1)</script>" in found.text, "as text"
    policy = re.search('Content-Security-Policy" content="([^"]+)"', page)[1]
    assert html.unescape(policy).startswith("default-src 'none'; img-src data:")
    assert "unsafe-inline" not in policy and not re.search("https?://", page)


def test_a_cell_holds_what_a_spreadsheet_can(tmp_path):
    from sgvl.common.files import write_spreadsheet

    frame = pd.DataFrame(
        {"a": ["x" * 40_000, "−", "\t=1", "＝1", "a  b\n"], "b": [-1.5, 2, 3, 4, None]}
    )
    write_spreadsheet(frame, tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert read["a"].str.len().tolist() == [32_000, 1, 3, 3, 4], "names stay apart"
    assert read["b"].tolist() == ["-1.5", "2.0", "3.0", "4.0", ""], "numbers stay numbers"


# ---- an edit -------------------------------------------------------------------------------------


def test_other_pictures_of_the_same_folder_name_have_files_of_their_own(photos):
    elsewhere = photos.parent / "elsewhere" / photos.name
    shutil.copytree(photos, elsewhere)
    where = {"judge": "always_unsafe", "out": photos.parent / "out"}
    places = photos, elsewhere, photos / "a.jpg"
    judged = [judge_folder(place, "L2", **where) for place in places]
    assert len({own.csv for own in judged}) == len({own.page for own in judged}) == 3
    assert [len(pd.read_csv(own.csv)) for own in judged] == [len(own.table) for own in judged]
    assert len(judged[2].table) == 1 and "a" in judged[2].csv.name
    assert judge_folder(photos, "L2", **where).csv == judged[0].csv


def test_against_shows_what_the_edit_changed_and_asks_for_the_new_side_alone(photos, server):
    run(photos, server)
    house, old = photos.parent / "house.md", photos.parent / "any name.md"
    house.rename(old)
    house.write_text("# Strict rules\n\nNo red.\n", encoding="utf-8")
    replies = ["Red. Answer: unsafe", "Answer: safe"]
    server.script["Strict rules"] = [(200, says(reply), 0) for reply in replies]
    judged = run(photos, server, against=old)
    assert len(server.asked) == 8, "four more: the old side is stored, whatever its file is called"
    table = judged.table.set_index("picture")
    assert table["changed"].tolist() == ["safe → unsafe", "", "", "", "", ""]
    changed = table.iloc[0]
    assert changed.name == "a.jpg" and changed["reason"] == "Red."
    assert changed["reason_before"] == "House rules", "what the server said before"
    page = judged.page.read_text(encoding="utf-8")
    assert "<strong>1 changed</strong>" in page
    assert "<ins>+ No red.</ins>" in page and "<del>- No dogs.</del>" in page
    assert len(list((photos.parent / "out").glob("*.html"))) == 2, "nothing is overwritten"


def test_a_policy_without_a_heading_is_the_same_under_another_file_name(photos, server):
    house = photos.parent / "house.md"
    house.write_text("No dogs.\n", encoding="utf-8")
    run(photos, server)
    house.rename(photos.parent / "v1.md")
    house.write_text("No cats.\n", encoding="utf-8")
    run(photos, server, against=photos.parent / "v1.md")
    assert len(server.asked) == 8


def test_the_copy_of_a_policy_is_the_text_that_was_judged(photos, server):
    served(server)
    house = photos.parent / "house.md"

    def edit(plan):
        house.write_text("No cats.\n", encoding="utf-8")
        return True

    judge_folder(photos, house, served(server), out=photos.parent / "out", allow=edit)
    [copy] = (photos.parent / "out").glob("*.md")
    assert "No dogs." in copy.read_text(encoding="utf-8"), "edited while the server answered"


def test_the_edit_of_a_long_policy_is_shown_at_once():
    old, new = ([f"{i}. No {what}s of kind {i}." for i in range(3000)] for what in ("dog", "cat"))
    old, new = (Policy(name="a", title="A", text="\n".join([*p, "End."])) for p in (old, new))
    begun = time.monotonic()
    lines = verdicts._edit(old, new)
    assert time.monotonic() - begun < 5
    assert lines[:3] == ["  A", "  ", "- 0. No dogs of kind 0."] and lines[-1] == "  End."
    assert len(lines) == 6003 and verdicts._edit(old, old)[0] == "  A"


def test_two_versions_that_are_the_same_are_named_as_such(photos, capsys):
    house, out = photos.parent / "house.md", photos.parent / "out"
    judge_folder(photos, house, "always_safe", against=house, out=out)
    assert "the two versions of the policy are the same" in capsys.readouterr().out


# ---- labels --------------------------------------------------------------------------------------


def test_labels_add_scores_with_intervals(photos, server):
    served(server)
    replies = ["Answer: unsafe", "Answer: safe", "Answer: unsafe", "Answer: safe"]
    server.script["House rules"] = [(200, says(reply), 0) for reply in replies]
    labels = photos.parent / "labels.csv"
    rows = ["a.jpg;Unsafe", "b.png;safe", "sub\\c.png;safe", "broken.jpg;safe"]
    labels.write_text("\n".join(["Image;Label", *rows]), encoding="utf-8")
    judged = run(photos, server, labels=labels)
    [score] = judged.scores.itertuples()
    assert (score.policy, score.n, score.positives, score.metric) == ("house", 3, 1, "f1")
    assert score.value == pytest.approx(200 / 3) and score.low < score.value < score.high
    table = judged.table.set_index("picture")["label"]
    assert table["a.jpg"] == "unsafe" and table["sub/d.webp"] == ""
    assert "66.7 [" in judged.page.read_text(encoding="utf-8")


def test_the_score_of_calling_all_unsafe_stands_beside_that_of_the_judge(photos, capsys):
    labels = photos.parent / "labels.csv"
    labels.write_text("image,label\na.jpg,unsafe\nb.png,safe\nsub/c.png,safe\n", encoding="utf-8")
    files = [str(photos), "--policy", "L2", "--labels", str(labels)]
    door.main([*files, "--judge", "always_unsafe", "--out", str(photos.parent / "out")])
    told = capsys.readouterr().out
    assert re.search(r"L2: f1 50\.0 \[.*\], n = 3, 1 unsafe; 50\.0 if all were called unsafe", told)


def test_labels_of_what_is_not_judged_are_named_as_such(photos, capsys):
    labels = photos.parent / "labels.csv"
    labels.write_text("image,label\na.jpg,safe\nIMG_1.HEIC,unsafe\n", encoding="utf-8")
    judged = judge_folder(photos, "L2", "always_unsafe", labels=labels, out=photos.parent / "out")
    said = "1 of 2 labels are about files that are not among the pictures, such as IMG_1.HEIC"
    assert said in capsys.readouterr().out and said in judged.page.read_text(encoding="utf-8")


def test_a_risk_decides_what_a_person_need_not_see(photos, capsys):
    """Two labelled pictures of each class allow for one error at 0.7, and for none at 0.3."""
    labels = photos.parent / "labels.csv"
    rows = ["a.jpg,unsafe", "b.png,unsafe", "sub/c.png,safe", "sub/d.webp,safe"]
    labels.write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    where = {"judge": "always_unsafe", "labels": labels, "out": photos.parent / "out"}
    bold = judge_folder(photos, "L2", **where, risk=0.7)
    written = bold.csv.read_bytes(), bold.page.read_bytes()
    decisions = bold.table.set_index("picture")["decision"]
    assert decisions["a.jpg"] == "a person", "P(unsafe) is 1 for all: no threshold parts them"
    assert "at a risk of 0.7: safe below P(unsafe) 1, unsafe above 1" in capsys.readouterr().out
    assert bold.decided.set_index("measure")["value"].tolist() == [0, 0, 0]
    page = bold.page.read_text(encoding="utf-8")
    assert "decision: a person" in page and "decided 0.0 [" in page
    judge_folder(photos, "L2", **where, risk=0.3)
    assert (
        "at a risk of 0.3: too few labels for a threshold: every picture goes to a person (3 of "
        "each class are needed; there are 2 unsafe and 2 safe)."
    ) in capsys.readouterr().out
    rows[1] = "b.png,safe"
    labels.write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    judge_folder(photos, "L2", **where, risk=0.3)
    said = capsys.readouterr().out
    assert "It takes 3 labelled pictures of a class; there are 1 unsafe." in said
    scored = judge_folder(photos, "L2", **where)
    plain = judge_folder(photos, "L2", **where | {"labels": None})
    labels.write_text("image,label\na.jpg,safe\n", encoding="utf-8")
    other = judge_folder(photos, "L2", **where)
    assert (bold.csv.read_bytes(), bold.page.read_bytes()) == written
    assert len({scored.csv, plain.csv, other.csv, *(photos.parent / "out").glob("*.csv")}) == 6
    assert re.fullmatch(r"photos-L2-\w{12}-always_unsafe-labels-\w{6}\.csv", scored.csv.name)
    assert "label" not in plain.table and plain.csv.stem.endswith("-always_unsafe")


def test_a_judge_without_p_unsafe_has_no_thresholds(photos, server, capsys):
    served(server)
    labels = photos.parent / "labels.csv"
    labels.write_text("image,label\na.jpg,unsafe\nb.png,safe\n", encoding="utf-8")
    judged = run(photos, server, labels=labels, risk=0.5)
    assert "m gave no P(unsafe) on a labelled picture, so there are no" in capsys.readouterr().out
    assert judged.decided is None and "decision" not in judged.table


# ---- judges of this machine ----------------------------------------------------------------------


def test_the_shipped_model_says_that_it_reads_no_policy_without_rules():
    reader = SimpleNamespace(reads_policy=True)
    for policy, last in {
        "house": "Add rules to its header, or name another model",
        "quiet": "",
    }.items():
        policies = [load(EXAMPLES / f"{policy}.md")]
        notes = notes_on(judge_spec("nano", policies), reader, policies, drawn=True)
        assert "".join(notes).endswith(last) and len(notes) == bool(last)


def test_the_shipped_model_may_be_named_on_the_command_line(tmp_path, capsys):
    named = ["--policy", str(EXAMPLES / "quiet.md"), "--judge", "nano", "--out", str(tmp_path)]
    assert door.main([str(EXAMPLES / "photos" / "park" / "1.jpg"), *named]) is ExitCode.DONE
    assert "1 picture under the policy quiet: 1 request to nano" in capsys.readouterr().out


def test_the_shipped_model_judges_the_examples_and_says_what_it_is(tmp_path, capsys):
    judged = judge_folder(EXAMPLES / "photos", EXAMPLES / "quiet.md", out=tmp_path)
    said = capsys.readouterr().out
    assert said.index("knows drawings only") < said.index("6 requests to nano")
    assert "knows drawings only" in judged.page.read_text(encoding="utf-8")
    assert len(judged.table) == 6 and judged.table["p_unsafe"].between(0, 1).all()
    assert {"safe", "unsafe"} == set(judged.table["verdict"])
    same = judge_folder(EXAMPLES / "photos", EXAMPLES / "quiet.md", out=tmp_path, by_rule=True)
    for column in ("picture", "verdict"):
        assert same.table[column].tolist() == judged.table[column].tolist(), "it has one rule"
    assert same.table["p_unsafe"].tolist() == pytest.approx(judged.table["p_unsafe"], abs=1e-6)
    identity = json.loads((tmp_path / "answers/nano.jsonl").read_text().splitlines()[0])
    assert identity["policy"] == "quiet"


def test_a_judge_that_reads_no_policy_is_named_as_such(photos, capsys):
    judged = judge_folder(photos, "L2", "always_unsafe", out=photos.parent / "out")
    assert "always_unsafe does not read the policy" in capsys.readouterr().out
    assert (judged.table["verdict"] == "unsafe").sum() == 5


WRONG = {
    "no folder": (["nowhere", "--policy", "L2"], "nowhere: no such folder"),
    "no policy": (["photos", "--policy", "hose.md"], "no policy file"),
    "unknown judge": (["photos", "--policy", "L2", "--judge", "llama_gard_4"], "did you mean lla"),
    "no model": (["photos", "--policy", "L2", "--server", "http://x/v1"], "--server needs --model"),
    "a setting": (["photos", "--policy", "L2", "--set", "prompt"], "write KEY=VALUE"),
    "an option": (["photos", "--policy", "L2", "--set", "promt=word"], "did you mean prompt?"),
    "no slots": (
        ["photos", "--policy", "house.md", "--judge", "qwenguard_3b"],
        "rules sorted into",
    ),
    "labels": (["photos", "--policy", "L2", "--labels", "labels.csv"], "labels.csv: No such file"),
    "no labels": (["photos", "--policy", "L2", "--labels", "none.csv"], "none.csv: no labels"),
    "no name": (["", "--policy", "L2"], "no pictures are named"),
    "a text": (["photos", "--policy", "house.txt"], "no policy file house.txt"),
    "another ending": (
        ["photos", "--policy", "own.txt"],
        "own.txt: a policy is a Markdown file; rename it to own.md",
    ),
    "an empty file": (["photos", "--policy", "empty.md"], "empty.md: the file is empty"),
    "half a header": (["photos", "--policy", "half.md"], "half.md: the header needs a line of ---"),
    "a name": (["photos", "--policy", "spaced.md"], "spaced.md: name: 'my house': use letters"),
    "a folder": (["photos", "--policy", "photos.md"], "photos.md: a folder; name a Markdown file"),
    "a picture": (["photos", "--policy", "photos/a.jpg"], "write the policy's text into a.md"),
    "long name": (["photos", "--policy", "long.md"], "name: String should have at most 80"),
    "no folder for files": (["photos", "--policy", "L2", "--out", "house.md"], "cannot be written"),
    "a folder for a file": (["photos", "--policy", "L2", "--out", "full"], "always_safe.csv: "),
    "no tags": (["photos", "--policy", "L2", "--judge", "rule"], "this picture has no tags"),
    "no rules": (["photos", "--policy", "house.md", "--by-rule"], "rules cannot be judged apart"),
    "by rule": (["photos", "--policy", "L2", "--judge", "opennsfw", "--by-rule"], "rule by rule"),
    "no labels for a risk": (["photos", "--policy", "L2", "--risk", "0.1"], "name their --labels"),
    "a risk": (["photos", "--policy", "L2", "--labels", "none.csv", "--risk", "5"], "such as 0.05"),
}

LAST = ("no folder for files", "a folder for a file", "no labels")


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(photos, case, monkeypatch, capsys):
    arguments, message = WRONG[case]
    monkeypatch.chdir(photos.parent)
    Path("own.txt").write_text("No dogs.\n")
    Path("none.csv").write_text("image,label\n")
    Path("empty.md").write_text(" \n")
    Path("half.md").write_text("name: a\ntitle: A\n---\nNo dogs.\n")
    Path("spaced.md").write_text("---\nname: my house\ntitle: A\n---\nNo dogs.\n")
    Path("photos.md").mkdir()
    Path("long.md").write_text(f"---\nname: {'a' * 81}\ntitle: A\n---\nNo dogs.\n")
    Path(f"full/photos-L2-{verdicts.digest(load('L2'))}-always_safe.csv").mkdir(parents=True)
    arguments = arguments + ["--judge", "always_safe"] * (case in ("long name", *LAST))
    assert door.main(arguments) is ExitCode.BAD_INPUT
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert not told.startswith("/"), "paths stand there as they were written"


@pytest.mark.parametrize("price", ["nan", "inf", "-1"])
def test_a_price_is_a_number_from_0_on(price):
    with pytest.raises(ValueError):
        door.price(price)


def test_two_folders_have_files_of_their_own(photos):
    out = photos.parent / "out"
    first = judge_folder(photos, "L2", "always_safe", out=out)
    before = first.csv.read_bytes()
    second = judge_folder(photos / "sub", "L2", "always_safe", out=out)
    assert first.csv != second.csv and first.csv.read_bytes() == before


def test_names_of_any_length_and_kind(photos, capsys):
    """The longest name of a policy's file and of a model's folder; a picture without UTF-8."""
    long = photos.parent / f"{'n' * 252}.md"
    (photos.parent / "house.md").rename(long)
    model = "/".join(["x" * 60] * 5)
    assert len(judge_spec({"kind": "served", "model": model, "url": "http://x"}, [])["id"]) <= 80
    assert judge_folder(photos, long, "always_safe", out=photos.parent / "out").csv.is_file()
    os.rename(photos / "a.jpg", os.fsencode(photos) + b"/\xff.jpg")
    with pytest.raises(InputError, match="not a name in UTF-8"):
        judge_folder(photos, long, "always_safe", out=photos.parent / "out")


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(InputError, match="no pictures in this folder; allowed: .jpg"):
        judge_folder(tmp_path, "L2", "always_safe", out=tmp_path / "out")


WRONG_LINES = {
    "--polcy L1 photos": "unknown option --polcy; did you mean --policy?",
    "photos": "the following arguments are required: --policy",
    "photos --policy L1 --risk much": "argument --risk: invalid float value: 'much'",
    "photos --policy L1 --prices 1": "argument --prices: expected 2 arguments",
    "README.md --policy L1": "README.md: no picture; allowed: a folder, or .jpg",
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_mistyped_line_is_answered_in_one_line(line, capsys):
    try:
        code = door.main(line.split())
    except SystemExit as stop:  # as argparse ends
        code = stop.code
    said = capsys.readouterr()
    assert code == 2 and len(said.err.splitlines()) == 1 and not said.out
    assert WRONG_LINES[line] in said.err
