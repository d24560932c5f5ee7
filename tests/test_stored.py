"""What 07 reads and chooses: files with the notebook that writes them, and examples for figures."""

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import real_run
from datasets import Dataset
from PIL import Image

from sgvl.common import paths
from sgvl.common.errors import InputError
from sgvl.data.cases import cases_of
from sgvl.policies import load_all
from sgvl.report import examples, figures, stored


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run without parameter files."""
    for module in (paths, stored):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path / "runs" / "unheard_of"


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
    for profile, how in {
        "unheard_of": f"run notebook {unit.partition('.')[0]}",
        "nano": f"python -m sgvl.run nano --only {unit}",
    }.items():
        with pytest.raises(InputError) as caught:
            stored.read(profile, path)
        problem = f"runs/{profile}/{path}: no such file; {unit} writes it ({how})"
        assert str(caught.value) == problem


@pytest.mark.parametrize("text", ["", "a,b\n1,2,3,4\n1\n5,6,7,8,9\n"])
def test_a_broken_file_does_so_too(run, text):
    (run / "ablations").mkdir(parents=True)
    (run / "ablations" / "table2.csv").write_text(text)
    with pytest.raises(InputError, match="table2.csv: .*; 06_ablations writes it"):
        stored.read("unheard_of", "ablations/table2.csv")


def write(run, name, text):
    file = run / "benchmark" / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_judges_of_several_panels_have_names_models_and_reasons(run):
    write(run, "a/judges", "judge,name,model,asked_about\nsft,Ours (SFT),x/model,everything\n")
    write(run, "a/not_asked", "judge,name,reason\nfull,Ours (Full),no access\n")
    write(run, "b/judges", "judge,name,model,asked_about\nrule,the rule,,levels\n")
    write(run, "b/not_asked", "judge,name,reason\n")
    assert stored.judges("unheard_of", ["a", "b"]).to_numpy().tolist() == [
        ["sft", "Ours (SFT)", "x/model", ""],
        ["full", "Ours (Full)", "", "no access"],
        ["rule", "the rule", "", ""],
    ]
    write(run, "a/scores", "judge,value\nsft,1\nblind_macro,3\nblind_macro,4\n")
    write(run, "b/scores", "judge,value\nrule,2\nblind_macro,3\nblind_macro,4\n")
    scored = stored.read_panels("unheard_of", "scores", ["a", "b"])
    assert list(scored["judge"]) == ["sft", "blind_macro", "blind_macro"], "blind judges come once"
    write(run, "a/levels", "judge,id\nsft,007\n")
    write(run, "b/levels", "judge,id\nrule,8\n")
    assert list(stored.read_panels("unheard_of", "levels", ["a", "b"])["id"]) == ["007", "8"]
    write(run, "a/general", "judge,right\nsft,True\nsft,False\n")
    write(run, "b/general", "judge,right\n")
    assert stored.read_panels("unheard_of", "general", ["a", "b"])["right"].dtype == bool
    assert list(stored.read_panels("unheard_of", "general", ["b"])) == ["judge", "right"]
    with pytest.raises(InputError, match="own.csv: no such file; 05_benchmark.b writes it"):
        stored.read_panels("unheard_of", "own", ["b"])
    write(run, "b/judges", "judge,name,model,asked_about\n")
    assert list(stored.read_panels("unheard_of", "scores", ["b", "a"])["judge"][:1]) == ["sft"]


def test_sets_have_sources(run):
    (run / "data").mkdir(parents=True)
    sets = {"unsafebench": ["a", "b", "a"], "general": ["drawn"], "blink": ["owner/blink@1a"]}
    for name, sources in sets.items():
        pd.DataFrame({"source": sources}).to_parquet(run / "data" / f"{name}.parquet")
    names = ["UnsafeBench", "LlavaGuard", "counting", "MMMU", "BLINK", "blink"]
    assert stored.sources("unheard_of", names) == {
        "UnsafeBench": "a; b",
        "counting": "drawn",
        "BLINK": "owner/blink@1a",
        "blink": "owner/blink@1a",
    }


def pictures(*colours):
    return [Image.new("RGB", (4, 4), colour) for colour in colours]


def colour(image):
    return image.getpixel((0, 0))


def edge(image):
    """The largest step between neighbouring pixels: small in a blurred picture."""
    return np.abs(np.diff(np.asarray(image.convert("L"), int))).max()


def test_a_drawn_pair_is_the_first_of_its_category_with_its_counterpart():
    cases = [("hate", "replace"), *examples.EDITS.items(), ("hate", "distract_unsafe")]
    colours = [f"#{k:02x}0000" for k in range(2 * len(cases))]
    bench = Dataset.from_dict(
        {
            "category": [category for category, _ in cases for _ in range(2)],
            "edit": [edit for _, edit in cases for _ in range(2)],
            "box": [[k, k, 4, 4] for k in range(len(colours))],
            "image": pictures(*colours),
            "tags": [["park"]] * len(colours),
        }
    )
    pairs, chosen = examples.matched_pairs(bench)
    assert [pair["title"] for pair in pairs][-1] == "hate: distract, still unsafe"
    assert (colour(pairs[0]["unsafe"])[0], colour(pairs[0]["safe"])[0]) == (2, 3)
    assert pairs[0]["box"] == [2, 2, 4, 4]
    assert chosen.to_numpy().tolist() == [list(case) for case in examples.EDITS.items()]
    with pytest.raises(InputError, match="no pair of category 'hate' has the edit 'distract_unsa"):
        examples.matched_pairs(bench.select(range(8)))


def test_published_pairs_are_blurred_and_have_no_box():
    pairs, chosen = examples.matched_pairs(real_run.safeeditbench())
    assert list(chosen["pair"]) == ["gun", "hug", "scar"] and "box" not in pairs[0]
    (clear, *_), _ = examples.matched_pairs(real_run.safeeditbench(), blur=False)
    edges = [
        np.abs(np.diff(np.asarray(p["unsafe"].convert("L"), int))).max() for p in (pairs[0], clear)
    ]
    assert edges[0] < edges[1] / 3


def test_a_drawn_scene_has_the_verdict_and_the_rule_of_each_policy():
    drawn = Dataset.from_dict({"tags": [["park"]]})
    shown, rows = examples.verdicts(drawn, load_all())
    assert [verdict["policy"] for verdict in shown[0]["verdicts"]] == [f"L{k}" for k in range(1, 6)]
    sword = rows[rows["picture"] == "A sword in a museum"]
    assert sword["label"].tolist() == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    assert "Weapons are prohibited everywhere." in rows["rule"].tolist()


def test_published_pictures_have_their_stored_labels():
    bench = real_run.safeeditbench()
    levels = list({policy.name: policy for policy in cases_of(bench).policies}.values())
    shown, rows = examples.verdicts(bench, levels)
    assert [example["title"] for example in shown] == ["gun", "gun_edited"]
    assert rows["label"].tolist()[:5] == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    assert {verdict["note"] for verdict in shown[0]["verdicts"]} == {"label as published"}
    clear, _ = examples.verdicts(bench, levels, blur=False)
    assert edge(shown[0]["image"]) < edge(clear[0]["image"]) / 3


def test_recaptions_and_the_stages_that_they_open():
    captions = Dataset.from_dict(
        {
            "id": ["a", "b"],
            "image": pictures("red", "blue"),
            "caption": ["a dog", "an object"],
            "recaption": ["a dog", "a knife"],
            "tags": [["dog"], ["knife"]],
        }
    )
    words = pd.DataFrame(
        {"id": ["b", "b", "a"], "prompt": ["minimal_edit", "minimal_edit", "rewrite"],
         "word": ["object", "knife", "dog"], "change": ["removed", "added", "kept"]}
    )  # fmt: skip
    (example,), texts = examples.recaptions(captions, words)
    assert example["before"] == "an object" and colour(example["image"]) == (0, 0, 255)
    assert [tuple(word) for word in example["after"]] == [
        ("object", "removed"), ("knife", "added"),
    ]  # fmt: skip
    assert texts.values.tolist() == [["an object", "a knife"]]
    sft = pd.DataFrame({"step": [5, 10], "loss": [2.0, 0.5]})
    logs = {"03_sft.recap": sft, "04_grpo.full": pd.DataFrame({"step": [7.0]})}
    facts, parts = examples.method(captions, example, logs, {"verdicts": []})
    assert facts["sft"] == "SFT on 2 recaptions: 10 steps (03_sft.recap), loss 2.00 to 0.50"
    assert facts["grpo"].endswith("under the policy: 7 steps (04_grpo.full)")
    assert set(parts["part"]) == {"caption", "recaption", "sft", "grpo", "labels"}
    alone = {"03_sft.recap": sft, "04_grpo.rl": logs["04_grpo.full"]}
    case = {"image": Image.new("RGB", (8, 8)), "verdicts": []}
    for stages, begins in ((logs, "the weights of stage 1"), (alone, "the base model")):
        facts, _ = examples.method(captions, example, stages, case)
        assert f"begins with {begins}" in figures.pipeline(facts).get_label()


def answers_of(labels, judges=("base", "full")):
    """Both judges say safe of everything; the second is right about what is unsafe under L5."""
    return pd.DataFrame(
        {"id": id, "policy": policy, "judge": judge, "label": label, "reply": f"{judge}: safe"}
        | {"verdict": label if (judge, policy) == ("full", "L5") else "safe"}
        for (id, policy), label in labels.items()
        for judge in judges
    )


def test_the_drawn_case_is_a_weapon_in_a_museum_under_the_policy_that_excepts_it():
    tags = [["gun", "school"], ["gun", "museum"], ["axe", "park"]]
    ids = ["weapons-1", "weapons-2", "weapons-3"]
    bench = Dataset.from_dict({"id": ids, "image": pictures("red", "blue", "tan"), "tags": tags})
    excepted, everywhere = ["safe", "unsafe", "unsafe"], ["unsafe"] * 3
    labels = {
        (id, policy): label
        for id, own in zip(ids, (excepted, excepted, everywhere), strict=True)
        for policy, label in zip(("L2", "L3", "L5"), own, strict=True)
    }
    example, rows = examples.policy_case(bench, answers_of(labels))
    assert example["title"] == "weapons-2" and colour(example["image"]) == (0, 0, 255)
    assert rows["policy"].tolist() == ["L2", "L2", "L3", "L3"]
    # No weapon is excepted: of this one's policies, the judges disagree under L5.
    few = {key: label for key, label in labels.items() if key[0] == "weapons-3"}
    example, rows = examples.policy_case(bench, answers_of(few))
    assert example["title"] == "weapons-3" and rows["policy"].tolist() == ["L5", "L5"]
    with pytest.raises(InputError, match="no judge of `case_judges` was asked"):
        examples.policy_case(bench, answers_of(few).head(0))


def test_the_published_case_is_the_one_that_divides_the_judges():
    bench = real_run.safeeditbench()
    table = cases_of(bench).table
    labels = dict(zip(zip(table["id"], table["policy"], strict=True), table["label"], strict=True))
    example, rows = examples.policy_case(bench, answers_of(labels))
    assert rows["policy"].tolist() == ["L5", "L5"] and rows["verdict"].tolist() == [
        "safe",
        "unsafe",
    ]
    clear, _ = examples.policy_case(bench, answers_of(labels), blur=False)
    assert example["title"] == "gun" and edge(example["image"]) < edge(clear["image"]) / 3


def test_the_question_is_one_that_the_judge_answers_in_its_form_while_others_answer():
    rows = [
        ("blink-0", "guard", '{"rating": "Safe"}', False, True),
        ("blink-0", "base", "C", False, False),
        ("blink-1", "guard", '{"rating": "Unsafe"}', False, True),
        ("blink-1", "base", "B", True, False),
        ("mmmu-0", "guard", "A", False, False),
    ]
    answers = pd.DataFrame(rows, columns=["id", "judge", "given", "right", "unparseable"])
    sets = [real_run.questions("mmmu"), real_run.questions("blink")]
    (example,), shown = examples.choice_case(sets, answers, "guard")
    assert example["title"] == "What is it? A: cat; B: dog"
    assert shown[["judge", "verdict", "label", "reply"]].to_numpy().tolist() == [
        ["guard", "unparseable", "B", '{"rating": "Unsafe"}'],
        ["base", "right", "B", "B"],
    ]
    assert examples.choice_case(sets, answers, "nobody")[0] == []
    figure = figures.show_replies([example])
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert "RIGHT" in texts and "UNPARSEABLE" in texts and "it is B" in texts
