"""Rules judged apart: exact for the rule judge, and an edit asks about the edited rule alone."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scripted_server import says

from sgvl.data import Sample, store
from sgvl.diff import diff_policies
from sgvl.experiments import one_judge, own_pictures, rule_by_rule
from sgvl.judge import judge_folder
from sgvl.judges import make_judge, under
from sgvl.policies.apart import rules_apart
from sgvl.policies.brief import parse_brief
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, in_category
from sgvl.policies.policy import load
from sgvl.policies.random_policies import fill, mixed_skeleton
from sgvl.scores.rationale import rules_violated
from sgvl.text.prompts import CAPTION

RULES = {"music": "prohibited", "dog": "prohibited except park", "alcohol": "prohibited"}


def policy_file(path, rules, default="permitted"):
    """A policy whose rules are clauses of one tag."""
    lines = [f"---\nname: house\ntitle: House rules\ndefault: {default}\nrules:"]
    for tag, clause in rules.items():
        status, _, places = clause.partition(" except ")
        key = {"prohibited": "prohibit", "permitted": "permit"}[status]
        lines.append(f"  - {key}: [{tag}]\n    except: [{places}]\n    text: {tag} {clause}.")
    path.write_text("\n".join([*lines, "---\nBe kind.\n"]), encoding="utf-8")
    return path


def brief(server, **options):
    server.plain = " Answer: safe"
    spec = {"kind": "served", "model": "m", "url": server.url, "policy_form": "brief"}
    return spec | {"max_retries": 0, "concurrency": 1, "with_p_unsafe": False} | options


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(6):
        Image.new("RGB", (30, 20), (0, 40 * k, 0)).save(tmp_path / "photos" / f"{k}.png")
    return tmp_path / "photos"


# ---- the split -----------------------------------------------------------------------------------


def random_policy(rng):
    """A random policy, where half of the categories have a rule about one of their things, too."""
    policy = fill(rng, mixed_skeleton(rng, 8), list(CATEGORIES))
    rules = [rule.model_dump(by_alias=True) for rule in policy.rules]
    for rule in policy.rules:
        [tag] = rule.tags
        if tag in CATEGORIES and rng.random() < 0.5:
            thing = str(rng.choice(in_category(tag)))
            key = "permit" if rng.random() < 0.7 else "prohibit"
            places = [str(place) for place in rng.choice(PLACES, rng.integers(3), replace=False)]
            rules.append({key: [thing], "except": places, "text": f"About {thing}."})
    rules = [rules[k] for k in rng.permutation(len(rules))]
    return type(policy).model_validate(policy.model_dump(by_alias=True) | {"rules": rules})


def test_rules_judged_apart_label_every_scene_as_the_policy_does():
    rng, judge, unsafe = np.random.default_rng(0), make_judge("rule"), 0
    for k in range(300):
        policy = random_policy(rng)
        about = [tag if tag in concepts() else in_category(tag)[0] for tag in _tags(policy)]
        names = rng.choice([*concepts(), *about * 5], int(rng.integers(1, 4)))
        tags = frozenset(map(str, (*names, rng.choice(PLACES))))
        rules, captions = rule_by_rule.questions(judge, [policy])
        assert captions == [], "it reads the tags"
        answers = judge.judge(under([Sample(str(k), None, tags)], rules))
        [given] = rule_by_rule.combine(
            [policy], {str(k): tags}, (answer._asdict() for answer in answers), iter(())
        )
        exact = policy.label(tags)
        assert given["verdict"] == exact.label, (policy.render("brief"), tags)
        assert set(rules_violated(tags, policy)) <= set(given["broken"])
        unsafe += exact.label == "unsafe"
    assert 60 < unsafe < 240


def _tags(policy):
    return [tag for rule in policy.rules for tag in rule.tags]


def test_a_rule_that_stays_is_the_same_policy_before_and_after_an_edit():
    one = parse_brief("weapons prohibited; dog permitted except park; cat permitted; "
                      "all else permitted", "one")  # fmt: skip
    two = parse_brief("knife permitted; weapons prohibited; dog permitted except park; "
                      "all else permitted", "two")  # fmt: skip
    before, after = (
        {rule.digest: rule.render("brief") for rule in rules_apart(policy)} for policy in (one, two)
    )
    assert list(before.values()) == [
        "weapons prohibited; all else permitted.",
        "dog permitted except park; all else permitted.",
    ]
    assert [text for digest, text in after.items() if digest not in before] == [
        "weapons prohibited; knife permitted; all else permitted."
    ]


# ---- the doors -----------------------------------------------------------------------------------


def test_an_edit_asks_about_the_edited_rule_alone(photos, server, tmp_path, capsys):
    old = policy_file(tmp_path / "old.md", RULES)
    new = policy_file(tmp_path / "new.md", RULES | {"dog": "prohibited except beach"})
    where = {"out": tmp_path / "out", "yes": True, "by_rule": True}
    judge_folder(photos, old, brief(server), **where)
    assert len(server.asked) == 6 * 3
    server.script["dog prohibited except beach; all else permitted."] = [
        (200, says("A dog. Answer: unsafe"), 0), (200, says("Answer: safe"), 0),
    ]  # fmt: skip
    judged = judge_folder(photos, new, brief(server), against=old, **where)
    assert len(server.asked) == 6 * 3 + 6
    assert "6 requests to m, rule by rule; 18 answers without a request" in capsys.readouterr().out
    first = judged.table.iloc[0]
    assert (first["picture"], first["changed"]) == ("0.png", "safe → unsafe")
    assert first["reason"] == "dog prohibited except beach. A dog."
    assert first["reason_before"] == "No rule is broken."
    assert "by-rule" in judged.csv.name
    assert set(pd.read_csv(judged.csv)["judge"]) == {"m, rule by rule"}
    policy_file(new, {"music": "prohibited", "alcohol": "prohibited"})
    judge_folder(photos, new, brief(server), against=old, **where)
    assert len(server.asked) == 24, "a rule that is dropped costs nothing"


def test_an_allow_list_goes_by_what_a_caption_names(photos, server, tmp_path):
    rules = {"dog": "permitted except park", "vehicles": "permitted"}
    listed = policy_file(tmp_path / "listed.md", rules, "prohibited")
    server.script[CAPTION[0]] = [
        (200, says(f"I see {things}."), 0) for things in
        ("a dog and a car", "a Cat and a dog", "an object", "a dog at the park", "a car", "it")
    ]  # fmt: skip
    where = {"out": tmp_path / "out", "yes": True, "by_rule": True}
    judged = judge_folder(photos, listed, brief(server), **where)
    assert len(server.asked) == 6, "a caption of each picture"
    table = judged.table.set_index("picture").sort_index()
    assert table["verdict"].tolist() == ["safe", "unsafe", "safe", "unsafe", "safe", "safe"]
    assert table.loc["1.png", "reason"].startswith("cat: animals, all else prohibited.")
    assert table.loc["2.png", "reason"] == "Nothing is named." and table["p_unsafe"].isna().all()
    policy_file(listed, {"animals": "permitted", "vehicles": "permitted"}, "prohibited")
    judged = judge_folder(photos, listed, brief(server), **where)
    assert len(server.asked) == 6 and set(judged.table["verdict"]) == {"safe"}


def test_progress_ends_at_its_total(photos, server, tmp_path):
    """Six pictures: their rules and their captions are twelve steps, captions alone are six."""
    server.script[CAPTION[0]] = [(200, says("a dog."), 0)] * 12
    listed = policy_file(tmp_path / "listed.md", {"dog": "permitted"}, "prohibited")
    rules = policy_file(tmp_path / "rules.md", RULES)
    for policies, total in (([listed], 6), ([rules], 6), ([rules, listed], 12)):
        steps: list[int] = []
        one_judge.ask(
            make_judge(brief(server)), store.samples(own_pictures.read(photos).rows),
            [load(file) for file in policies], tmp_path / str(len(server.asked)),
            lambda plan: True, progress=lambda *step, to=steps: to.extend(step), by_rule=True,
        )  # fmt: skip
        assert steps[-2:] == [total, total]


def test_a_request_that_failed_leaves_its_picture_without_an_answer(photos, server, tmp_path):
    house = policy_file(tmp_path / "house.md", RULES)
    server.script["music prohibited; all else permitted."] = [
        (500, b"{}", 0), (200, says("?"), 0), (200, says("Answer: safe"), 0),
    ]  # fmt: skip
    where = {"out": tmp_path / "out", "yes": True, "by_rule": True}
    judged = judge_folder(photos, house, brief(server), **where)
    assert not judged.complete
    verdicts = judged.table.set_index("picture")["verdict"]
    assert verdicts["0.png"] == "not judged" and verdicts["1.png"] == "unparseable"
    assert judge_folder(photos, house, brief(server), **where).complete
    assert len(server.asked) == 18 + 1


def test_a_killed_comparison_asks_for_no_stored_answer_again(photos, server, tmp_path):
    """The old side is stored; the process dies on the way through the new one."""
    old = policy_file(tmp_path / "old.md", RULES)
    new = policy_file(tmp_path / "new.md", RULES | {"dog": "prohibited", "cat": "prohibited"})
    out = tmp_path / "out"
    diff_policies(old, old, brief(server), photos, out=out, yes=True, by_rule=True)
    assert len(server.asked) == 18
    command = [sys.executable, "-m", "sgvl.diff", old, new, "--on", photos, "--by-rule", "--yes"]
    command += ["--server", server.url, "--model", "m", "--out", out]
    for option in ("policy_form", "max_retries", "concurrency", "with_p_unsafe"):
        command += ["--set", f"{option}={str(brief(server)[option]).lower()}"]
    command = list(map(str, command))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    server.delay = 0.2
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        while len(server.asked) < 18 + 5 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    server.delay = 0
    stored = (out / "answers/m-by-rule.jsonl").read_bytes().count(b"\n")
    assert 18 + 3 <= stored < 18 + 12
    begun = len(server.asked)
    assert subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode == 0
    assert len(server.asked) - begun == 18 + 12 - stored
    keys = (out / "answers/m-by-rule.jsonl").read_text().splitlines()
    assert len(keys) == len(set(keys)) == 30


def test_the_rule_judge_misses_nothing_rule_by_rule(tmp_path):
    old = policy_file(tmp_path / "old.md", RULES | {"animals": "permitted"}, "prohibited")
    new = policy_file(tmp_path / "new.md", RULES | {"food": "permitted"}, "prohibited")
    diff = diff_policies(old, new, "rule", pictures=40, out=tmp_path / "out", by_rule=True)
    values = diff.summary.set_index("measure")["value"]
    assert values["expected flips"] > 30 and values["missed"] == values["collateral"] == 0
    assert values["right before"] == values["right now"] == 100
