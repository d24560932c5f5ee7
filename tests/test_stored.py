"""What 07 reads and chooses: files with the notebook that writes them, and examples for figures."""

import pandas as pd
import pytest
from datasets import Dataset
from PIL import Image

from sgvl.common import paths
from sgvl.common.errors import InputError
from sgvl.policies import load_all
from sgvl.report import examples, stored
from sgvl.world.scenes import Scene, Thing


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run named mine."""
    for module in (paths, stored):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path / "runs" / "mine"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("ablations/table2.csv", "06_ablations"),
        ("benchmark/scores.csv", "05_benchmark"),
        ("recaption/figure3.csv", "02_recaption"),
        ("training/03_sft.recap/log.csv", "03_sft.recap"),
    ],
)
def test_a_missing_file_names_the_notebook_that_writes_it(run, path, unit):
    with pytest.raises(InputError) as caught:
        stored.read("mine", path)
    assert str(caught.value) == (
        f"runs/mine/{path}: no such file; {unit} writes it (python -m sgvl.run mine --only {unit})"
    )


@pytest.mark.parametrize("text", ["", "a,b\n1,2,3,4\n1\n5,6,7,8,9\n"])
def test_a_broken_file_does_so_too(run, text):
    (run / "ablations").mkdir(parents=True)
    (run / "ablations" / "table2.csv").write_text(text)
    with pytest.raises(InputError, match="table2.csv: .*; 06_ablations writes it"):
        stored.read("mine", "ablations/table2.csv")


def test_judges_have_names_and_sets_have_sources(run):
    (run / "benchmark").mkdir(parents=True)
    (run / "benchmark" / "judges.csv").write_text("judge,name\nsft,Ours (SFT)\nrule,the rule\n")
    assert stored.judge_names("mine") == {"sft": "Ours (SFT)", "rule": "the rule"}
    (run / "data").mkdir()
    pd.DataFrame({"source": ["a", "b", "a"]}).to_parquet(run / "data" / "unsafebench.parquet")
    pd.DataFrame({"source": ["drawn"]}).to_parquet(run / "data" / "general.parquet")
    sources = stored.sources("mine", ["UnsafeBench", "LlavaGuard", "counting"])
    assert sources == {"UnsafeBench": "a; b", "counting": "drawn"}


def pictures(*colours):
    return [Image.new("RGB", (4, 4), colour) for colour in colours]


def test_a_pair_is_the_first_of_its_category_with_its_counterpart():
    bench = Dataset.from_dict(
        {
            "category": ["hate", "hate", "drugs", "drugs", "hate", "hate"],
            "edit": ["remove", "remove", "replace", "replace", "replace", "replace"],
            "box": [[k, k, 4, 4] for k in range(6)],
            "image": pictures("red", "tan", "blue", "teal", "green", "gold"),
        }
    )
    (pair,) = examples.matched_pairs(bench, {"hate": "replace"})
    assert pair["unsafe"].getpixel((0, 0)) == pictures("green")[0].getpixel((0, 0))
    assert pair["safe"].getpixel((0, 0)) == pictures("gold")[0].getpixel((0, 0))
    assert (pair["box"], pair["title"]) == ([4, 4, 4, 4], "hate: replace")
    with pytest.raises(InputError, match="no pair of category 'drugs' has the edit 'remove'"):
        examples.matched_pairs(bench, {"drugs": "remove"})


def test_a_scene_has_the_verdict_and_the_rule_of_each_policy():
    scene = Scene("museum", 12, (Thing("swords", 0),))
    (example,), rows = examples.verdicts({"A sword": scene}, load_all())
    assert [verdict["policy"] for verdict in example["verdicts"]] == [f"L{k}" for k in range(1, 6)]
    assert rows["label"].tolist() == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    assert set(rows["picture"]) == {"A sword"}
    assert "Weapons are prohibited everywhere." in rows["rule"].tolist()


def test_recaptions_and_the_stages_that_they_open():
    captions = Dataset.from_dict(
        {
            "id": ["a", "b"],
            "image": pictures("red", "blue"),
            "caption": ["a dog", "an object"],
            "recaption": ["a dog", "a knife"],
        }
    )
    words = pd.DataFrame(
        {"id": ["b", "b", "a"], "prompt": ["minimal_edit", "minimal_edit", "rewrite"],
         "word": ["object", "knife", "dog"], "change": ["removed", "added", "kept"]}
    )  # fmt: skip
    (example,), texts = examples.recaptions(captions, words)
    assert example["before"] == "an object"
    assert [tuple(word) for word in example["after"]] == [
        ("object", "removed"), ("knife", "added"),
    ]  # fmt: skip
    assert texts.values.tolist() == [["an object", "a knife"]]
    logs = {"03_sft.recap": pd.DataFrame({"step": [5, 10]}), "04": pd.DataFrame({"step": [7.0]})}
    steps = examples.stages(captions, logs, load_all(["L1"]))
    assert [step["text"] for step in steps] == [
        "an object", "a knife", "on 2 recaptions, 10 steps",
        "reward: right under the policy, 7 steps", "one picture, any policy: L1",
    ]  # fmt: skip


def test_replies_are_about_one_unsafe_picture_under_two_policies():
    bench = Dataset.from_dict({"id": ["weapons-1", "weapons-2"], "image": pictures("red", "blue")})
    rows = [
        (id, policy, "base", "safe", "unsafe" if (id, policy) == ("weapons-2", "L4") else "safe")
        for id in ("weapons-1", "weapons-2")
        for policy in ("L2", "L3", "L4")
    ]
    answers = pd.DataFrame(rows, columns=["id", "policy", "judge", "verdict", "label"])
    (example,), rows = examples.replies(bench, answers.assign(reply="Answer: safe"))
    assert example["title"] == "weapons-2" and rows["policy"].tolist() == ["L2", "L4"]
    assert example["image"].getpixel((0, 0)) == pictures("blue")[0].getpixel((0, 0))
    with pytest.raises(InputError, match="Figure 7: no answers"):
        examples.replies(bench, answers[answers["policy"] == "L2"].assign(reply=""))
