"""Versions of a policy: header keys, edits by name, history with and without git, appeals."""

import os
import subprocess
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from sgvl import diff as door
from sgvl import judge as judge_door
from sgvl.common.errors import ExitCode, InputError
from sgvl.diff import diff_policies, policy_history
from sgvl.experiments import squares
from sgvl.judge import judge_folder
from sgvl.policies import versions
from sgvl.policies.policy import FORMS, Policy, load

ROOT = Path(__file__).parents[1]
HEADER = """---
name: quiet
title: A quiet street
{keys}default: permitted
rules:
  - prohibit: [music, dog{more}]
    except: [park]
    text: No noise.{severity}
---
Keep the street quiet.
"""


def written(file: Path, more="", keys="", severity="") -> Path:
    severity = severity and f"\n    severity: {severity}"
    file.write_text(HEADER.format(more=more, keys=keys, severity=severity), encoding="utf-8")
    return file


# ---- the keys of the header ----------------------------------------------------------------------


def test_a_policy_without_the_keys_keeps_its_digest():
    assert load("L2").digest[:12] == "d7a263b2fa5d"
    assert "severity" not in load("L2").model_dump_json()


def test_severity_and_parent_change_the_digest_and_neither_label_nor_prompt():
    plain = load("L2")
    rules = [rule.model_copy(update={"severity": "high"}) for rule in plain.rules]
    for update in ({"rules": rules}, {"parent": "0" * 12}):
        other = plain.model_copy(update=update)
        other = Policy.model_validate_json(other.model_dump_json(by_alias=True), strict=False)
        assert other.digest != plain.digest
        assert [other.render(form) for form in FORMS] == [plain.render(form) for form in FORMS]
        assert other.label(["knife", "street"])[:2] == plain.label(["knife", "street"])[:2]
    assert plain.label(["knife", "street"]).severity == ""


def test_the_highest_severity_of_what_is_prohibited_counts():
    def rule(tag, severity):
        return {"prohibit": [tag], "except": ["park"], "text": tag, "severity": severity}

    made = Policy(name="m", title="M", default="permitted",
                  rules=[rule("dog", "low"), rule("cat", "high"), rule("car", None)])  # fmt: skip
    for tags, severity in {
        "dog street": "low", "cat dog street": "high", "dog car street": "low",
        "cat park": "", "car street": "",
    }.items():  # fmt: skip
        assert made.label(tags.split()).severity == severity, tags


def test_wrong_keys_are_named(tmp_path):
    with pytest.raises(InputError, match="severity: .*'low', 'medium' or 'high'.*'huge'"):
        load(written(tmp_path / "a.md", severity="huge"))
    with pytest.raises(InputError, match="parent: .*pattern.*'abc'"):
        load(written(tmp_path / "a.md", keys="parent: abc\n"))


def test_missed_flips_are_counted_by_severity(tmp_path):
    old = written(tmp_path / "old.md")
    new = written(tmp_path / "new.md", ", car", severity="high")
    diff = diff_policies(old, new, "always_safe", pictures=20, out=tmp_path)
    summary = diff.summary.set_index("measure")
    assert summary.loc["missed, severity high", "n"] == summary.loc["missed", "n"] == 10
    assert summary.loc["missed, severity high", "value"] == 100
    assert set(diff.table.query("outcome == 'missed'")["severity"]) == {"high"}


# ---- edits ---------------------------------------------------------------------------------------

OTHER_NAMES = {  # what makes them special is in the picture
    "irrelevant rule added": "rule added",
    "rule with exception turned": "rule turned",
}


@pytest.mark.parametrize("square", squares.draw(2), ids=lambda square: square.id)
def test_the_edit_of_a_square_is_named(square):
    [found] = [one for one in versions.edits(*square.policies) if not one.startswith("wording")]
    assert found.partition(":")[0] == OTHER_NAMES.get(square.edit, square.edit)
    assert versions.edits(square.policies[0], square.policies[0]) == []


def test_words_and_severity_are_edits_too(tmp_path):
    before = load(written(tmp_path / "a.md"))
    after = load(written(tmp_path / "b.md", severity="low"))
    assert versions.edits(before, after) == [
        "severity of music: none to low", "severity of dog: none to low",
    ]  # fmt: skip
    after = before.model_copy(update={"title": "Quiet", "text": "Be quiet."})
    assert versions.edits(before, after) == ["wording: title, text"]


# ---- history -------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str, date: str = "") -> None:
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")
           for key, value in {"NAME": "A", "EMAIL": "a@b.c", "DATE": date}.items()}  # fmt: skip
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *arguments], cwd=folder, env=os.environ | who | alone, check=True)


@pytest.fixture
def repository(tmp_path) -> Path:
    """A policy that was renamed, broken for a while, reformatted, and is edited but not committed.

    Returns its file.
    """
    git(tmp_path, "init", "-q")

    def commit(date):
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "edit", date=date)

    (tmp_path / "rules").mkdir()
    first = written(tmp_path / "rules" / "[old] name.md")
    commit("2026-01-10T23:30:00+0000")
    git(tmp_path, "mv", "rules/[old] name.md", "rules/quiet.md")
    file = written(first.with_name("quiet.md"), ", car")
    commit("2026-02-01T01:00:00+0200")  # 31 January in UTC
    file.write_text(file.read_text().replace("permitted", "permited"))
    commit("2026-02-03T12:00:00+0000")
    written(file, ",   car")  # the same policy
    commit("2026-02-05T12:00:00+0000")
    written(file, ", car, bus")
    commit("2026-03-01T12:00:00+0000")
    return written(file, ", bus")


def test_the_history_of_a_file_in_git(repository):
    with pytest.warns(UserWarning, match="left out: .*default"):
        found = versions.history(repository)
    assert [version.policy.rules[0].tags[2:] for version in found] == [
        [], ["car"], ["car", "bus"], ["bus"],
    ]  # fmt: skip
    assert [version.date and version.date.isoformat() for version in found] == [
        "2026-01-10T23:30:00+00:00", "2026-01-31T23:00:00+00:00", "2026-03-01T12:00:00+00:00", None,
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:commit .* left out")
def test_the_version_of_a_day_or_of_a_digest(repository):
    first, second, third, now = versions.history(repository)
    for when, version in {
        "2026-01-10": first, "2026-01-30": first, "2026-01-31": second, "2026-02-28": second,
        "2026-03-01T11:59": second, "2026-03-01T12:00+00:00": third, "2027-01-01": third,
        first.policy.digest[:8]: first, now.policy.digest: now,
    }.items():  # fmt: skip
        assert versions.at(repository, when).policy == version.policy, when
    for when, message in {
        "2026-01-09": "no version on 2026-01-09; the first is of 2026-01-10",
        "0" * 12: "0 versions of digest 000000000000; known: ",
        "last week": "write a date",
    }.items():
        with pytest.raises(InputError, match=message):
            versions.at(repository, when)


@pytest.mark.filterwarnings("ignore:commit .* left out")
def test_an_appeal_is_judged_under_the_policy_of_that_day(repository, capsys):
    photo = str(ROOT / "examples" / "photos" / "park" / "1.jpg")
    out = repository.parent / "out"
    command = [photo, "--policy", str(repository), "--judge", "always_safe", "--out", str(out)]
    assert judge_door.main([*command, "--at", "2026-01-15"]) is ExitCode.DONE
    first = versions.history(repository)[0]
    told = f"policy quiet {first.policy.digest[:12]}, committed 2026-01-10 23:30 UTC\n"
    assert told in capsys.readouterr().out
    [sheet] = out.glob("*.csv")
    assert set(pd.read_csv(sheet)["policy_digest"]) == {first.policy.digest[:12]}
    copy = out / f"quiet-{first.policy.digest[:12]}.md"
    assert copy.read_bytes() == first.content
    assert judge_door.main([*command, "--at", "2025-01-01"]) is ExitCode.BAD_INPUT
    assert "no version on 2025-01-01" in capsys.readouterr().err


def test_without_git_the_copies_of_judged_versions_are_joined_by_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    file, out, digests = tmp_path / "quiet.md", tmp_path / "out", []
    for more in ("", ", car", ", car, bus"):
        keys = f"parent: '{digests[-1][:12]}'\n" if digests else ""
        digests.append(load(written(file, more, keys)).digest)
        judge_folder(ROOT / "examples" / "photos" / "park", file, "always_safe", out=out)
    assert [v.policy.digest for v in versions.history(file, out)] == digests
    assert [v.policy.digest for v in versions.history(file)] == digests[-1:]
    assert versions.at(file, digests[0][:12], out).policy.digest == digests[0]
    with pytest.raises(InputError, match="no version has a date; name a digest"):
        versions.at(file, "2026-01-01", out)


# ---- the table -----------------------------------------------------------------------------------


def test_the_table_counts_what_is_stored_and_asks_nothing(tmp_path):
    one = written(tmp_path / "1.md")
    two = written(tmp_path / "2.md", ", car", f"parent: '{load(one).digest}'\n")
    three = written(tmp_path / "3.md", ", car", "parent: '000000000000'\n", "high")
    options = {"pictures": 20, "out": tmp_path / "out"}
    table = policy_history(one, two, three, judge="rule", **options)
    assert table["expected"].tolist() == ["", 10, 0]
    assert (table["flip made"] == "").all() and not (tmp_path / "out").exists()
    assert table["parent"].tolist() == ["", "as stated", "states 000000000000"]
    assert table["edits"].tolist() == [
        "", "rule added: car prohibited except park",
        "; ".join(f"severity of {tag}: none to high" for tag in ("music", "dog", "car")),
    ]  # fmt: skip
    diff_policies(one, two, "rule", **options)
    table = policy_history(one, two, three, judge="rule", **options)
    assert table["flip made"].tolist() == ["", 10, ""], "the second edit was not judged"
    assert (table.loc[1, "missed"], table.loc[1, "collateral"]) == (0, 0)


def test_the_example_states_its_parent_and_its_severities(tmp_path):
    names = ("quiet", "quiet_edited", "quiet_night")
    files = [ROOT / "examples" / f"{name}.md" for name in names]
    table = policy_history(*files, judge="rule", pictures=2, out=tmp_path)
    assert table["parent"].tolist() == ["", "", "as stated"]
    assert table["edits"][2].startswith("rule added: weapons prohibited; exception added: music, ")
    assert load(files[-1]).label(["knife", "dog", "street"]).severity == "high"


@pytest.mark.filterwarnings("ignore:commit .* left out")
def test_the_door_prints_the_history_and_writes_it(repository, capsys):
    out = repository.parent / "out"
    command = [str(repository), "--history", "--judge", "rule", "--pictures", "4"]
    assert door.main([*command, "--out", str(out)]) is ExitCode.DONE
    said = capsys.readouterr().out
    assert "| 2026-01-31 23:00 |" in said and "rule dropped: car prohibited except park" in said
    assert "missed" not in said, "nothing is stored"
    sheet = pd.read_csv(out / "quiet-history.csv", dtype=str, keep_default_na=False)
    assert sheet["expected"][0] == "" and all(sheet["expected"][1:].astype(int) >= 2)
    assert datetime.fromisoformat(sheet["date"][2]) == datetime(2026, 3, 1, 12)
