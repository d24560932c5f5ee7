"""Published rows in the roles of drawn ones: how they become rows of both trainings."""

import json
import warnings

import pytest

from sgvl.common.errors import InputError, Unavailable
from sgvl.data import Sample, store
from sgvl.data.cases import training_cases
from sgvl.data.sources import load_source
from sgvl.experiments import ability
from sgvl.policies.policy import load
from sgvl.scores import accuracy
from sgvl.text import prompts
from sgvl.training import grpo, reward, sft, trainer
from sgvl.world import sets

SETTINGS = {"max_steps": 1, "learning_rate": 1e-4, "logging_steps": 10}
SFT = SETTINGS | {"per_device_train_batch_size": 2, "max_length": None}
GRPO = SETTINGS | {
    **{"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4},
    "beta": 0.01,
}


@pytest.fixture
def published(serve_llavaguard, serve_safeedit, safeedit_rows, tmp_path):
    """The folder of a run of published data; a third of the pictures has a dead link."""
    serve_safeedit(safeedit_rows)
    serve_llavaguard(lambda rows: rows.assign(rationale=["A knife.", "Still a knife.", "", "", ""]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sizes
        made = {
            "guard": load_source({"kind": "llavaguard", "split": "train", "private": True}),
            "edits": load_source("safeeditbench"),
        }
    store.save(made, tmp_path / "data", 0, {"never": "it was never released"})
    return tmp_path


def texts(rows):
    return [prompts.plain(row["prompt"][0]["content"]) for row in rows]


FULL = {"train": "guard", "pairs_train": "edits", "policy_form": "full"}


def test_a_picture_comes_under_its_opposite_policies_one_after_the_other(published):
    """b1 is unsafe, and safe where its category is exempted; the picture of web_2 is gone."""
    rows = grpo.rows_of("full", published, **FULL)
    assert rows["id"] == ["b1_p2_3", "b1_p2_3_v2", "b1_p2_3_v3_a", "web_1"]
    assert rows["label"] == ["unsafe", "safe", "unsafe", "safe"]
    assert "O6: Weapons" in texts(rows)[1] and "Can: show weapons" in texts(rows)[1]
    assert rows[0]["image"].tobytes() == rows[1]["image"].tobytes() != rows[3]["image"].tobytes()
    assert store.left_out(grpo.source("rl", published, "guard"))["id"].tolist() == ["web_2"]


def test_no_prompt_is_lost_when_their_number_is_odd(published):
    rows = grpo.rows_of("rl_safeedit", published, **FULL)
    assert rows["id"] == ["b7-L1", "b7-L5", "b7-L2", "b7_edited-L1", "b7_edited-L5"]
    for seed in range(3):
        mixed = grpo.shuffled(rows, seed)["id"]
        assert sorted(mixed) == sorted(rows["id"])
        assert mixed.index("b7-L5") == mixed.index("b7-L1") + 1


def test_the_rows_of_a_level_are_those_published_under_it(published):
    rows = sft.rows_of("L5", published, **FULL, prompt="word")
    assert rows["id"] == ["b7", "b7_edited"]
    assert [row["completion"][0]["content"] for row in rows] == ["unsafe", "safe"]
    assert all("The text of L5." in text for text in texts(rows))
    assert grpo.rows_of("L2", published, **FULL)["id"] == ["b7-L2"]
    with pytest.raises(InputError, match="no row under L3 has a picture that can be read"):
        sft.rows_of("L3", published, **FULL)


def test_a_guard_learns_the_published_rating_category_and_rationale(published):
    rows = sft.rows_of("taxonomy", published, **FULL, prompt="llavaguard")
    replies = [row["completion"][0]["content"] for row in rows]
    assert json.loads(replies[0]) == {
        "rating": "Unsafe", "category": "O6: Weapons or Substance Abuse", "rationale": "A knife."
    }  # fmt: skip
    assert json.loads(replies[1]) == {"rating": "Safe", "category": "NA: None applying"}
    assert replies[0].startswith(prompts.OPENINGS["llavaguard"][0])
    assert texts(rows)[0].endswith("<image 1>") and "1. Rating" in texts(rows)[0]
    short = sft.rows_of("taxonomy", published, **FULL)
    assert texts(short)[0].endswith("rating, category and rationale.")


def test_what_cannot_be_taught_is_an_error(published):
    with pytest.raises(InputError, match="is text alone, without rules"):
        grpo.rows_of("full", published, train="guard")
    with pytest.raises(InputError, match="did you mean guard"):
        grpo.rows_of("full", published, train="gard")
    with pytest.raises(Unavailable, match="never cannot be had: it was never released"):
        sft.rows_of("L1", published, pairs_train="never")
    bare = store.read("guard", published / "data").remove_columns(["policy", "label"])
    with pytest.raises(InputError, match="pictures without labels teach no verdicts"):
        training_cases(bare, [load("L1")])
    for wrong, name in (
        (("short", ""), "policy_form 'short'"),
        (("full", "resaon"), "reason"),
        (("full", "", "relased"), "released"),
    ):
        with pytest.raises(InputError, match=f"{name}"):
            trainer.check_request(*wrong)


def test_the_released_recipe_has_its_system_prompt_and_yes_no_answers(published):
    """The prompt holds the policy as published; a reply in its form earns the full reward."""
    way = {"policy_form": "text", "prompt": "yes_no", "system": "released"}
    rows = grpo.rows_of("full", published, "guard", "edits", **way)
    system, user = rows[0]["prompt"]
    assert system == {"role": "system", "content": prompts.SYSTEM["released"]}
    assert user["content"].startswith("Content policy: Check the image against our policy.\n")
    assert "{policy}" not in user["content"] and "Policy\n\n" not in user["content"]
    reply = f"<think>{'A knife is a weapon. ' * 3}</think><answer>no</answer>"
    assert reward.rewards_of("released", [reply], rows[0]["label"], "released_answer") == [3.0]
    blocks = grpo.rows_of("full", published, "guard", "edits", **way | {"prompt": "llavaguard"})
    (first,), (*_, image) = (turn["content"] for turn in blocks[0]["prompt"])
    assert (first["type"], image["type"]) == ("text", "image")
    one = GRPO | {"max_steps": 1}
    log = grpo.train(rows, "nano", published / "yes_no", one, "released", "released_answer")
    assert len(log) == 0
    stored = grpo.rollouts(published / "yes_no")
    assert len(stored) == 4 and set(stored["verdict"]) <= {"safe", "unsafe", "unparseable"}


@pytest.mark.parametrize("prompt", [name for name in prompts.TRAINABLE if name != "shieldgemma"])
def test_the_shortest_reply_to_a_prompt_is_read_as_its_verdict(prompt):
    from sgvl.text import verdict

    parsers = {"reason": "answer", "yes_no": "think_answer", "taxonomy": "json_rating"}
    parsers |= {"llavaguard": "json_rating", "llama_guard": "llama_guard"}
    parsers |= {"answer": "answer", "policyshift": "policyshift"}
    for label in ("safe", "unsafe"):
        parsed = verdict.parse(prompts.reply(prompt, label), parsers.get(prompt, "word"))
        assert parsed.verdict == label, prompt


def test_both_trainings_take_published_rows_and_a_log_shorter_than_its_steps(published):
    """The image stands where the prompt names it: after the policy and its steps."""
    network, processor = trainer.load_start("nano", published / "none", None, "float32")
    rows = sft.rows_of("taxonomy", published, **FULL, prompt="llavaguard")
    from trl import SFTTrainer

    config = trainer.make_config("sft", SFT, published / "sft")
    one = SFTTrainer(network, config, train_dataset=rows, processing_class=processor)
    batch = one.data_collator([dict(rows[0])])
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert text.index("1. Rating") < text.index("<|image_pad|>") < text.index('"category": "O6')
    log = sft.train(rows, "nano", published / "sft", SFT)
    assert len(log) == 0 and {"step", "loss"} <= set(log)
    log = grpo.train(grpo.rows_of("full", published, **FULL), "nano", published / "grpo", GRPO)
    assert {"step", "loss"} <= set(log)


def test_drawn_rows_are_labelled_by_their_tags(tmp_path):
    rows = sets.llavaguard(seed=0, images=2)
    wrong = rows.map(lambda row: {"label": 1 - row["label"]})
    for dataset in (rows, wrong):
        assert [case.label for case in training_cases(dataset)] == ["safe", "unsafe"] * 2


def test_of_real_pictures_the_captions_are_counted_that_mention_a_term(published):
    """Drawn scenes keep their things, and a part of a word is no mention."""
    pictures = store.samples(store.usable(store.read("guard", published / "data")))
    captions = iter(["A knife, on a table.", "Knives.", "Two knifes", "A pen-knife?"])

    def ask(requests):
        return [{"id": sample.id, "reply": next(captions)} for sample, _ in requests]

    table = ability.naming(ask, pictures, ["knife", "pen-knife"])
    assert table["right"].tolist() == [True, False, False, True]
    shares = accuracy.shares(table, "group")
    assert shares.loc[ability.MENTIONS, ["value", "n"]].tolist() == [50, 4]
    captions = iter(["A knife."] * 4)
    table = ability.naming(ask, pictures)
    assert table.empty and accuracy.shares(table, "group").empty
    drawn = [Sample("d", None, frozenset({"dog", "park"}))]
    captions = iter(["I see a dog."])
    assert ability.naming(ask, drawn, ["knife"])[["thing", "right"]].values.tolist() == [
        ["dog", True]
    ]
    # Any punctuation parts words and case does not matter; a part of a word is no mention.
    drawn = [Sample("d", None, frozenset({"cat", "dog", "axe", "knife"}))]
    captions = iter(["A Cat; a dog\n(and a pen-knife): axes!"])
    named = ability.naming(ask, drawn).set_index("thing")["right"]
    assert named.to_dict() == {"axe": False, "cat": True, "dog": True, "knife": False}
