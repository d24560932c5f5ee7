"""`python -m sgvl.diff`: expected flips, what a judge made of them, golden cases, exit codes."""

import shlex
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from PIL import Image
from scripted_server import says

from sgvl import diff as door
from sgvl.common.errors import ExitCode, InputError
from sgvl.data import store
from sgvl.diff import diff_policies
from sgvl.experiments import policy_diff
from sgvl.judges import JUDGES, Judgement
from sgvl.judges.baselines import RuleJudge
from sgvl.policies.policy import load
from sgvl.scores import intervals
from sgvl.world import edits, pairs

QUIET = """---
name: quiet
title: A quiet street
default: permitted
rules:
  - prohibit: [music, dog]
    except: [park]
    text: No music and no dogs, except in the park.
---
Keep the street quiet.
"""
EDITS = {  # of QUIET, one step each
    "exception removed": ("    except: [park]\n", ""),
    "thing dropped": ("[music, dog]", "[music]"),
    "thing added": ("[music, dog]", "[music, dog, car]"),
    "place swapped": ("[park]", "[beach]"),
    "status turned": ("prohibit:", "permit:"),
    "default turned": ("default: permitted", "default: prohibited"),
}


@pytest.fixture
def versions(tmp_path):
    """Two files; ``versions(edit)`` writes both and returns them as arguments."""

    def write(edit="thing added", text=QUIET):
        (tmp_path / "old.md").write_text(text, encoding="utf-8")
        changed = text.replace(*EDITS[edit]) if edit in EDITS else edit
        assert changed != text
        (tmp_path / "new.md").write_text(changed, encoding="utf-8")
        return tmp_path / "old.md", tmp_path / "new.md"

    return write


class Planted(RuleJudge):
    """A judge that knows which of the two versions is the old one, the file ``old``."""

    def identity(self):
        return {"kind": self.id}


class ReadsOnlyTheOld(Planted):
    def __init__(self, id="old_only"):
        super().__init__(id)

    def judge(self, cases):
        old = load(self.old)
        return [self._judgement(sample, old) for sample, _ in cases]


class FlipsEverything(Planted):
    def __init__(self, id="flips_all"):
        super().__init__(id)

    def judge(self, cases):
        old = load(self.old)
        right = [self._judgement(sample, old).verdict for sample, _ in cases]
        other = {"safe": "unsafe", "unsafe": "safe"}
        return [
            Judgement(verdict if policy.digest == old.digest else other[verdict])
            for verdict, (_, policy) in zip(right, cases, strict=True)
        ]


@pytest.fixture
def planted(monkeypatch):
    for kind in (ReadsOnlyTheOld, FlipsEverything):
        monkeypatch.setitem(JUDGES, kind().id, f"{__name__}:{kind.__name__}")


def value(diff, measure):
    own = diff.summary.set_index("measure")
    return own.loc[measure, "value"] if measure in own.index else None


# ---- expected flips ------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
def test_the_rule_judge_misses_nothing_and_moves_nothing_else(versions, edit, tmp_path):
    old, new = versions(edit)
    diff = diff_policies(old, new, "rule", pictures=40, out=tmp_path / "out")
    assert len(diff.table) == 40 and diff.complete
    assert value(diff, "expected flips") >= 50, "pictures are drawn for the edit"
    assert value(diff, "missed") == 0 and value(diff, "collateral") in (0, None)
    assert value(diff, "right before") == value(diff, "right now") == 100
    assert not diff.summary["regression"].any()


def test_expected_flips_name_the_rule_before_and_after(versions, tmp_path):
    diff = diff_policies(*versions("thing added"), "rule", pictures=40, out=tmp_path / "out")
    flips = diff.table[diff.table["outcome"] == "flip made"]
    assert set(flips["rule"]) == {"No music and no dogs, except in the park."}
    assert set(flips["rule_before"]) == {"Whatever no rule mentions is permitted."}
    old, new = load(tmp_path / "old.md"), load(tmp_path / "new.md")
    id = flips["id"].iloc[0]
    assert flips["message"].iloc[0] == (
        f"{id}: unsafe under quiet {new.digest[:12]} (No music and no dogs, except in the park.); "
        f"before, under {old.digest[:12]}: safe (Whatever no rule mentions is permitted.)"
    )
    tags = dict(zip(*(edits.pictures(old, new, 40)[name] for name in ("id", "tags")), strict=True))
    assert all("car" in tags[id] for id in flips["id"])


def test_a_wrong_verdict_is_explained_by_the_judge_and_not_by_the_rule_it_breaks(
    versions, tmp_path
):
    diff = diff_policies(*versions("thing added"), "always_unsafe", pictures=20, out=tmp_path)
    wrong = diff.table[diff.table["label_before"] == "safe"]["message"]
    assert not wrong.str.contains(
        "unsafe (Whatever no rule mentions is permitted.)", regex=False
    ).any()
    right = diff.table[diff.table["label"] == "unsafe"]["message"]
    assert right.str.contains("(No music and no dogs, except in the park.)", regex=False).all()


def test_an_edit_of_words_alone_expects_no_flip_and_measures_its_wording_risk(versions, tmp_path):
    old, new = versions(QUIET.replace("Keep the street quiet.", "Quiet, please."))
    diff = diff_policies(old, new, "rule", pictures=20, out=tmp_path / "out")
    assert value(diff, "expected flips") == 0
    assert value(diff, "collateral (wording risk)") == 0
    assert diff.sentence == (
        "20 pictures drawn for this edit. It changes the label of none: rule moved no verdict "
        "(collateral 0 of 20)."
    )


# ---- planted judges ------------------------------------------------------------------------------


def test_a_judge_that_reads_only_the_old_version_misses_every_flip(
    versions, planted, tmp_path, monkeypatch, capsys
):
    old, new = versions("thing added")
    monkeypatch.setattr(Planted, "old", old, raising=False)
    arguments = [str(old), str(new), "--judge", "old_only", "--pictures", "40"]
    assert door.main([*arguments, "--out", str(tmp_path / "out")]) is ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert (
        "40 pictures drawn for this edit. It changes the label of 20 (50 %): old_only made none of "
        "these flips (missed 20 of 20) and moved no other verdict (collateral 0 of 20).\n\n|"
    ) in said
    assert "| missed | 20 | 100.0 [83.9, 100.0] | 10 | regression |" in said
    end = "regression, exit code 1: missed 100.0 %, tolerated 10 % (--tolerate changes it)\n"
    assert said.endswith(end)
    assert "| collateral | 20 | 0.0 [0.0, 16.1] | 2 |  |" in said
    arguments += ["--tolerate", "missed=100"]
    assert door.main([*arguments, "--out", str(tmp_path / "out")]) is ExitCode.DONE


def test_a_judge_that_flips_everything_has_all_as_collateral(
    versions, planted, tmp_path, monkeypatch
):
    old, new = versions("thing added")
    monkeypatch.setattr(Planted, "old", old, raising=False)
    diff = diff_policies(old, new, "flips_all", pictures=40, out=tmp_path / "out")
    assert (value(diff, "missed"), value(diff, "collateral")) == (0, 100)
    regressions = diff.summary[diff.summary["regression"]]
    assert list(regressions["measure"]) == ["collateral"]
    assert (diff.table.query("outcome == 'collateral'")["message"].str.contains("Expected: ")).all()


def test_outcomes_and_intervals_by_hand(versions):
    old, new = map(load, versions("thing added"))
    bench = edits.pictures(old, new, 12)
    exact = {n: policy_diff._known(bench, new, old)[n].tolist() for n in ("label_before", "label")}
    assert [a != b for a, b in zip(*exact.values(), strict=True)] == [False, True] * 6
    answers = []
    for k, (id, before, now) in enumerate(zip(bench["id"], *exact.values(), strict=True)):
        wrong = k in (0, 1, 3)  # a collateral flip, two missed ones
        now = {True: before if k % 2 else {"safe": "unsafe", "unsafe": "safe"}[now]}.get(wrong, now)
        p = {"safe": 0.2, "unsafe": 0.9}
        answers += [
            {"id": id, "verdict": v, "p_unsafe": p[v], "rationale": None} for v in (now, before)
        ]
    table = policy_diff.rows(bench, answers, new, old)
    assert table["outcome"].tolist() == ["collateral", "missed", "stays", "missed"] + [
        "stays", "flip made", "stays", "flip made", "stays", "flip made", "stays", "flip made",
    ]  # fmt: skip
    assert policy_diff.sentence(table, "it", "drawn for this edit") == (
        "12 pictures drawn for this edit. It changes the label of 6 (50 %): it made 4 of these "
        "flips (missed 2 of 6) and moved 1 other verdict (collateral 1 of 6)."
    )
    own = policy_diff.summary(table, new, old).set_index("measure")
    assert own.loc["missed", "value"] == pytest.approx(100 * 2 / 6)
    assert own.loc["collateral", "value"] == pytest.approx(100 / 6)
    assert own.loc["right now", "value"] == pytest.approx(100 * 9 / 12)
    assert own.loc["move of P(unsafe), expected flips", "value"] == pytest.approx(70 * 4 / 6)
    for row in own.itertuples():
        assert row.low <= row.value <= row.high


def test_the_unit_of_an_interval_is_the_pair():
    alone = intervals.average([1, 0] * 40, range(80))
    paired = intervals.average([1, 1, 0, 0] * 20, [k // 2 for k in range(80)])
    assert alone.value == paired.value == 50
    assert paired.high - paired.low == pytest.approx(1.41 * (alone.high - alone.low), rel=0.1)


# ---- golden cases --------------------------------------------------------------------------------


@pytest.fixture
def golden(versions, server):
    """Two golden cases beside a policy of text alone; the server knows only the new version."""
    old, new = versions("# House 2\n\nNo red.\n", text="# House 1\n\nNo dogs.\n")
    for name, colour in {"red": (200, 0, 0), "blue": (0, 0, 200)}.items():
        Image.new("RGB", (30, 20), colour).save(new.parent / f"{name}.png")
    new.with_suffix(".cases.csv").write_text("image,label\nred.png,unsafe\nblue.png,safe\n")
    server.script["House 1"] = [(200, says("Answer: safe"), 0)]
    arguments = [str(old), str(new), "--server", server.url, "--model", "m", "--yes"]
    arguments += ["--out", str(new.parent / "out"), "--set", "concurrency=1"]
    return [*arguments, "--set", "max_retries=0"]


def test_golden_cases_that_pass_end_with_0(golden, server, tmp_path):
    replies = ["Red! Answer: unsafe", "Answer: safe"]
    server.script["House 2"] = [(200, says(reply), 0) for reply in replies]
    assert door.main(golden) is ExitCode.DONE
    assert len(server.asked) == 4, "one a picture and version"
    suite = ElementTree.parse(next((tmp_path / "out").glob("*.xml"))).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "0")
    assert door.main(golden) is ExitCode.DONE and len(server.asked) == 4


def test_a_golden_regression_ends_with_1_and_is_a_failure_of_junit(golden, server, tmp_path):
    hostile = "<script>alert(1)</script> \x00 | [x](http://evil) Answer: safe"
    server.script["House 2"] = [(200, says(hostile), 0), (200, says("Answer: safe"), 0)]
    assert door.main(golden) is ExitCode.DIFFERS
    suite = ElementTree.parse(next((tmp_path / "out").glob("*.xml"))).getroot()
    failed = {c.get("name"): c.find("failure") for c in suite if c.find("failure") is not None}
    assert set(failed) == {"golden", "golden: red.png"}
    assert failed["golden: red.png"].get("message").endswith("Expected: unsafe")
    assert failed["golden"].get("message") == "50.0 % of 2, at most 0 %"
    page = next((tmp_path / "out").glob("*.md")).read_text(encoding="utf-8")
    assert "| golden | 2 | 50.0" in page and "regression" in page
    assert "<script>" not in page and "](http" not in page
    assert door.main([*golden, "--tolerate", "golden=50"]) is ExitCode.DONE


def test_two_versions_that_are_the_same_ask_golden_cases_or_nothing(
    golden, versions, server, capsys
):
    """The header has rules, so pictures would be drawn for an edit."""
    old, new = versions("thing added")
    old.write_bytes(new.read_bytes())
    assert door.main(golden) is ExitCode.DIFFERS
    assert len(server.asked) == 2, "the two golden cases, each once"
    new.with_suffix(".cases.csv").unlink()
    capsys.readouterr()
    assert door.main(golden) is ExitCode.DONE and len(server.asked) == 2
    said = capsys.readouterr().out
    assert said == f"{old} and {new} are the same version of the policy quiet: nothing is asked\n"


def test_a_case_without_an_answer_ends_with_4_and_is_asked_again(golden, server, tmp_path, capsys):
    server.script["House 2"] = [(500, b"{}", 0), (200, says("Answer: unsafe"), 0)]
    assert door.main(golden) is ExitCode.INCOMPLETE
    suite = ElementTree.parse(next((tmp_path / "out").glob("*.xml"))).getroot()
    assert suite.get("errors") == "1"
    assert "\nm failed 1 of 1 golden cases. No verdict on 1.\n" in capsys.readouterr().out
    assert door.main(golden) is ExitCode.DIFFERS, "now all are answered, one of them wrongly"
    assert "\nm failed 1 of 2 golden cases.\n" in capsys.readouterr().out
    assert len(server.asked) == 5


def test_a_folder_without_labels_shows_what_changed(golden, server, tmp_path, capsys):
    (tmp_path / "new.cases.csv").unlink()
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (30, 20), (9, 9, 9)).save(photos / "a.png")
    (photos / "b.png").write_bytes(b"no picture")
    server.script["House 2"] = [(200, says("Answer: unsafe"), 0)]
    assert door.main([*golden, "--on", str(photos)]) is ExitCode.DONE
    said = capsys.readouterr().out
    assert "\nm changed its verdict on 1 of 1 pictures without labels: which" in said
    assert "is not known. No verdict on 1.\n" in said and "| changed | 1 | 100.0" in said
    sheet = pd.read_csv(next((tmp_path / "out").glob("*.csv")), keep_default_na=False)
    assert dict(zip(sheet["id"], sheet["outcome"], strict=True)) == {
        "a.png": "changed", "b.png": "cannot be opened",
    }  # fmt: skip


def test_a_saved_set_is_read_by_name(versions, tmp_path, monkeypatch):
    monkeypatch.setattr(door, "runs", lambda profile: tmp_path / profile)
    store.save({"safeeditbench": pairs.safeeditbench(0, 1)}, tmp_path / "nano/data", seed=0)
    old, new = versions("default turned")
    diff = diff_policies(old, new, "rule", on="safeeditbench", out=tmp_path / "out")
    assert value(diff, "expected flips") > 50 and value(diff, "missed") == 0
    assert diff.table["pair"].nunique() == len(diff.table) / 2
    with pytest.raises(InputError, match="did you mean safeeditbench"):
        diff_policies(old, new, "rule", on="safeeditbnch", out=tmp_path / "out")


WRONG = {
    "no such file": (["nowhere.md", "new.md"], "no policy file"),
    "no rules": (
        ["old.md", "text.md", "--on", "drawn"],
        "; the new version of text is text without",
    ),
    "nothing to ask about": (["text.md", "other.md"], "name pictures with --on"),
    "a tolerance": (["old.md", "new.md", "--tolerate", "mised=1"], "did you mean missed?"),
    "a percent": (["old.md", "new.md", "--tolerate", "missed"], "write WHAT=PERCENT"),
    "no percent": (["old.md", "new.md", "--tolerate", "missed=nan"], "nan; allowed: 0 to 100"),
    "no pictures": (["old.md", "new.md", "--pictures", "0"], "draw at least 2"),
    "a seed": (["old.md", "new.md", "--seed", "-1"], "at least 0"),
    "one version": (["old.md"], "old.md: name two versions"),
    "no such folder": (["old.md", "new.md", "--on", "photo"], "photo: no such folder of pictures"),
    "history of nothing": (["--history", "nowhere.md"], "no policy file"),
    "history of no pictures": (["--history", "old.md", "--pictures", "1"], "draw at least 2"),
    "golden picture": (["text.md", "text.md", "--cases", "bad.csv"], "x.png: no such file"),
    "golden file": (["text.md", "text.md", "--cases", "none.csv"], "none.csv: No such file"),
    "broken picture": (["text.md", "text.md", "--cases", "broken.csv"], "cannot be opened"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_ends_with_2_and_one_line(versions, case, tmp_path, monkeypatch, capsys):
    arguments, message = WRONG[case]
    versions()
    (tmp_path / "text.md").write_text("No dogs.\n")
    (tmp_path / "other.md").write_text("No cats.\n")
    (tmp_path / "bad.csv").write_text("image,label\nx.png,safe\n")
    (tmp_path / "broken.csv").write_text("image,label\ny.png,safe\n")
    (tmp_path / "y.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert (
        door.main(["--pictures", "2", "--judge", "always_safe", *arguments]) is ExitCode.BAD_INPUT
    )
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_the_workflow_runs_what_there_is(monkeypatch):
    file = Path(__file__).parents[1] / "examples" / "policy_check.yml"
    steps = yaml.safe_load(file.read_text())["jobs"]["diff"]["steps"]
    [command] = [s["run"] for s in steps if "sgvl.diff" in s.get("run", "")]
    asked = []
    monkeypatch.setattr(door, "_main", lambda options: asked.append(options) or ExitCode.DONE)
    assert door.main(shlex.split(command)[3:]) is ExitCode.DONE
    assert asked[0].policies == ["house_before.md", "policies/house.md"]
