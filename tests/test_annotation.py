"""Votes: on disk as they are said, resumed, corrected, and to Label Studio and back."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.editing import annotation
from sgvl.editing.annotation import Vote
from sgvl.policies.policy import Policy, load_all
from sgvl.world import sets

L1, L3 = LEVELS = load_all(["L1", "L3"])


@pytest.fixture(scope="module")
def bench() -> Dataset:
    return sets.unsafebench(per_category=1).select([0, 1, 2])


@pytest.fixture(scope="module")
def pictures(bench):
    return annotation.digests(bench)


@pytest.fixture
def vote(bench, pictures):
    ids = list(bench["id"])
    return lambda k, policy, verdict, note="": Vote(ids[k], pictures[ids[k]], policy, verdict, note)


def said(table: pd.DataFrame) -> list[tuple]:
    return list(
        table[["annotator", "policy", "verdict", "note"]].itertuples(index=False, name=None)
    )


def test_votes_are_appended_and_the_last_one_counts(tmp_path, pictures, vote):
    annotation.append(tmp_path, "ann", [vote(0, L1, "safe"), vote(0, L3, "unsafe", "a knife")])
    annotation.append(tmp_path, "ann", [vote(0, L1, "unsure")])
    annotation.append(tmp_path, "ann", [vote(0, L1, "unsure")])  # says nothing new
    annotation.append(tmp_path, "ann", [vote(0, L1, "safe")])  # back to the first
    annotation.append(tmp_path, "bob", [vote(1, L3, "safe")])
    lines = (tmp_path / "ann.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["safe", "unsafe", "unsure", "safe"]
    table = annotation.read(tmp_path, pictures, LEVELS)
    assert said(table) == [
        *(("ann", "L1", "safe", ""), ("ann", "L3", "unsafe", "a knife"), ("bob", "L3", "safe", ""))
    ]
    assert said(annotation.read(tmp_path, pictures, LEVELS, "bob")) == [("bob", "L3", "safe", "")]


def test_a_vote_on_other_pixels_or_on_another_text_does_not_count(tmp_path, pictures, vote):
    annotation.append(tmp_path, "ann", [vote(0, L1, "safe"), vote(0, L3, "unsafe")])
    edited = Policy(**L3.model_dump(by_alias=True) | {"text": "Everything may be shown."})
    assert said(annotation.read(tmp_path, pictures, [L1, edited])) == [("ann", "L1", "safe", "")]
    assert annotation.read(tmp_path, dict.fromkeys(pictures, "other"), LEVELS).empty
    assert annotation.read(tmp_path / "nowhere", pictures, LEVELS).empty


def test_a_torn_line_is_passed_over_and_cut_off_by_the_next_vote(tmp_path, pictures, vote):
    annotation.append(tmp_path, "ann", [vote(0, L1, "safe"), vote(1, L1, "safe")])
    file = tmp_path / "ann.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert len(annotation.read(tmp_path, pictures, LEVELS)) == 1
    annotation.append(tmp_path, "ann", [vote(1, L1, "unsafe")])
    assert [row[2] for row in said(annotation.read(tmp_path, pictures, LEVELS))] == [
        *("safe", "unsafe")
    ]
    whole = json.loads(file.read_text().splitlines()[0])
    for wrong in ({"id": 3}, whole | {"verdict": "maybe"}, whole | {"id": ["a"]}):
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(InputError, match="line 1 is not a vote"):
            annotation.read(tmp_path, pictures, LEVELS)


KILLED = """
import os, signal, sys
from pathlib import Path
from sgvl.editing.annotation import Vote, append
from sgvl.policies.policy import load
for k in range(1000):
    append(Path(sys.argv[1]), "ann", [Vote(f"x{k}", f"{k:064x}", load("L1"), "safe")])
    print(k, flush=True)
    if k == 5:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_said_before_a_kill_is_there(tmp_path):
    child = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True)
    assert child.returncode < 0 and child.stdout.split() == list("012345")
    pictures = {f"x{k}": f"{k:064x}" for k in range(1000)}
    assert annotation.read(tmp_path, pictures, [L1])["id"].tolist() == [f"x{k}" for k in range(6)]


@pytest.mark.parametrize("name", ["../ann", "a/b", "", "con", "ann "])
def test_a_name_that_is_no_name_of_a_file_is_refused(tmp_path, vote, name):
    with pytest.raises(InputError, match="annotator"):
        annotation.append(tmp_path / "votes", name, [vote(0, L1, "safe")])
    assert not (tmp_path / "ann.jsonl").exists()


def test_an_unknown_verdict_writes_nothing(tmp_path, vote):
    with pytest.raises(InputError, match="did you mean unsafe"):
        annotation.append(tmp_path, "ann", [vote(0, L1, "safe"), vote(0, L3, "unsave")])
    assert (tmp_path / "ann.jsonl").read_bytes() == b""


def test_each_annotator_has_an_order_of_its_own_which_is_kept():
    ids = [str(k) for k in range(30)]
    orders = [annotation.shuffled(ids, name, seed) for name in ("ann", "bob") for seed in (0, 1)]
    assert all(sorted(order) == sorted(ids) for order in orders)
    assert len({tuple(order) for order in orders} | {tuple(ids)}) == 5
    assert annotation.shuffled(ids, "ann", 0) == orders[0]


def test_pairs_that_passed_are_annotated_under_all_policies(bench, tmp_path):
    """Real pictures have no rule that decides them: their category stands for it."""
    real = bench.select_columns(["id", "image", "category"])
    real = real.add_column("pair", ["p", "p", "q"])
    real = real.add_column("gate", ["passed", "passed", "rejected"])
    store.save({"made": real}, tmp_path / "made", seed=0)
    kept = annotation.pairs_to_annotate(str(tmp_path / "made"), tmp_path)
    assert list(kept["id"]) == list(bench["id"])[:2]
    cases = annotation.cases_of(kept, LEVELS)
    assert list(cases) == ["policy", "id", "pair", "clause"] and len(cases) == 4
    assert set(cases["clause"]) == set(kept["category"]) and "label" not in cases
    store.save({"made": real.select([2])}, tmp_path / "none", seed=0)
    with pytest.raises(InputError, match="no pair passed"):
        annotation.pairs_to_annotate(str(tmp_path / "none"), tmp_path)


# ---- Label Studio ------------------------------------------------------------------------------


@pytest.fixture
def votes(bench, tmp_path, pictures, vote):
    own = [vote(k, policy, "safe") for k in range(3) for policy in LEVELS]
    annotation.append(tmp_path / "votes", "ann", own)
    annotation.append(tmp_path / "votes", "bob", own[:4] + [vote(2, L3, "unsafe", "<b>sharp</b>")])
    annotation.append(tmp_path / "votes", "cat", [vote(2, L3, "unsafe"), vote(0, L1, "unsure")])
    return annotation.read(tmp_path / "votes", pictures, LEVELS)


def test_votes_come_back_from_label_studio(bench, tmp_path, votes):
    file = annotation.export_label_studio(tmp_path / "out", bench, LEVELS, votes)
    back = annotation.import_label_studio(file, bench["id"], LEVELS)
    keys = ["annotator", "id", "policy"]
    assert back.sort_values(keys).to_numpy().tolist() == votes.sort_values(keys).to_numpy().tolist()
    fields = ElementTree.parse(tmp_path / "out" / "labels.xml").getroot()
    assert [field.get("name") for field in fields.iter("Choices")] == ["L1", "L3"]
    assert [choice.get("value") for choice in fields.iter("Choice")][:3] == [
        *("safe", "unsafe", "unsure")
    ]


def test_an_export_of_its_own_is_read_and_what_does_not_fit_is_named(bench, tmp_path):
    """By id of a user, without an id of ours, with a skipped task, in several annotations."""

    def annotated(by, verdict, name="L3", **more):
        value = {"choices": [verdict]}
        part = {"from_name": name, "to_name": "img", "type": "choices", "value": value}
        return {"completed_by": by, "result": [part], "was_cancelled": False} | more

    image = f"/data/upload/1/{bench['id'][0]}.png"
    task = {"data": {"image": image}, "annotations": [annotated(7, "Safe"), annotated(7, "Unsafe")]}
    task["annotations"] += [annotated({"id": 8}, "unsure"), annotated(9, "x", was_cancelled=True)]
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task]))
    back = annotation.import_label_studio(file, bench["id"], LEVELS)
    assert said(back) == [("7", "L3", "unsafe", ""), ("8", "L3", "unsure", "")]
    wrong = [
        {
            "data": {"image": image},
            "annotations": [annotated(1, "harmful"), annotated(1, "safe", "L9")],
        },
        {"data": {"image": "zz.png"}, "annotations": []},
        {"image": image},
    ]
    file.write_text(json.dumps(wrong))
    with pytest.raises(InputError) as caught:
        annotation.import_label_studio(file, bench["id"], LEVELS)
    lines = str(caught.value).splitlines()
    assert "verdict 'harmful'; allowed: safe, unsafe, unsure" in lines[0]
    assert "'L9'; allowed: L1, L3" in lines[1] and "zz.png" in lines[2]
    assert "task 3: not a task" in lines[3]
    two = annotated(1, "safe")
    two["result"][0]["value"]["choices"].append("unsafe")
    task = {"data": {"image": "a.png"}, "annotations": [two]}
    task2 = {"data": {"id": ["a/a.png"]}, "annotations": []}
    none = annotated(1, "safe")
    none["result"][0]["value"]["choices"] = []
    task3 = {"data": {"id": "c.png"}, "annotations": [two, none]}
    file.write_text(json.dumps([task, task2, task3]))
    with pytest.raises(InputError) as caught:
        annotation.import_label_studio(file, ["a/a.png", "b/a.png", "c.png"], LEVELS)
    lines = str(caught.value).splitlines()
    assert "task 1: 'a.png' may be a/a.png or b/a.png; give the task an id" in lines[0]
    assert "no picture" in lines[1] and "verdict 'safe and unsafe'" in lines[2]
    assert "verdict ''" in lines[3]
    nobody = [annotated(None, "safe"), annotated(None, "unsafe")]
    file.write_text(json.dumps([{"data": {"id": "c.png"}, "annotations": nobody}]))
    back = annotation.import_label_studio(file, ["c.png"], LEVELS)
    assert list(back["verdict"]) == ["safe", "unsafe"], "two people, though neither is named"
    for text in ("[", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(InputError, match="not JSON"):
            annotation.import_label_studio(file, bench["id"], LEVELS)
    with pytest.raises(InputError, match="No such file"):
        annotation.import_label_studio(tmp_path / "none.json", bench["id"], LEVELS)
