"""Both stages of training: rows, rewards, and trainings that are killed and continue."""

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from datasets import concatenate_datasets
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from sgvl.common.errors import InputError
from sgvl.common.paths import NANO_MODEL, PARAMS
from sgvl.data import store
from sgvl.judges.chat.judge import ChatJudge
from sgvl.models.loading import load as load_model
from sgvl.policies.policy import Policy, load
from sgvl.scores.rationale import Grounding
from sgvl.text import prompts
from sgvl.text.verdict import parse
from sgvl.training import folders, grpo, launch, reward, screening, sft, trainer
from sgvl.world import pairs, sets
from sgvl.world.scenes import describe

SFT = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "max_length": None,
}
GRPO = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 40,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "max_steps": 2,
    "beta": 0.01,
}
LORA = {"r": 4, "lora_alpha": 8}


def caption_rows():
    rows = sets.sft_images(seed=0, images=20)
    return sft.captions(
        rows.add_column("recaption", [describe(t) for t in rows["tags"]]), "recaption"
    )


# -- rewards ---------------------------------------------------------------------------------------

LONG = "The picture shows a knife on a table, and knives are weapons."
THINK = f"<think>{LONG}</think>"


@pytest.mark.parametrize(
    ("reply", "label", "expected"),
    [  # the released table, then its format reward
        (f"{THINK}<answer>no</answer>", "unsafe", 2.0 + 1),
        (f"{THINK}<answer>yes</answer>", "safe", 1.7 + 1),
        (f"{THINK}<answer>yes</answer>", "unsafe", 1.0 + 1),
        (f"{THINK}<answer>perhaps</answer>", "unsafe", 0.5 + 1),
        ("<answer>no</answer>", "unsafe", 1.5),
        ("<answer>yes</answer>", "safe", 1.2),
        ("<answer>yes</answer>", "unsafe", 0.5),
        ("<think>Hm.</think><answer>no</answer>", "unsafe", 1.5 + 1),
        ("no idea", "safe", 0.0),
        # A thought counts wherever it is, the first answer too; the form is to the letter.
        (f"So: {THINK}<answer>no</answer>", "unsafe", 2.0),
        (f"{THINK}<answer>no</answer><answer>yes</answer>", "unsafe", 2.0 + 1),
        (f"{THINK}<answer>no</answer>\n", "unsafe", 2.0),
        (f"{THINK}<answer>no.</answer>", "unsafe", 0.5 + 1),
        (f"{THINK.upper()}<ANSWER>NO</ANSWER>", "unsafe", 2.0),
    ],
)
def test_the_released_reward_is_the_authors_table(reply, label, expected):
    assert reward.rewards_of("released", [reply], label, "released_answer") == [
        pytest.approx(expected)
    ]


def test_the_released_reward_pays_form_before_truth_and_the_plain_one_does_not():
    wrong_in_form, right_without = f"{LONG} Answer: safe", "Answer: unsafe"
    released = reward.rewards_of("released", [wrong_in_form, right_without], "unsafe")
    plain = reward.rewards_of("plain", [wrong_in_form, right_without, "unsafe? safe?"], "unsafe")
    assert released[0] > released[1]
    assert plain == [reward.FORMAT_SHARE, 1.0, 0.0]


def test_the_reward_logs_what_a_mean_hides():
    columns, numbers = {}, {}
    (pay,) = reward.make_rewards("plain")
    rewards = pay(
        completions=[[{"content": "Answer: safe"}], [{"content": "?"}]],
        label=["safe", "unsafe"],
        id=["a", "b"],
        policy=["L1", "L2"],
        log_extra=columns.__setitem__,
        log_metric=numbers.__setitem__,
    )
    assert rewards == [1.0, 0.0]
    assert columns["verdict"] == ["safe", "unparseable"] and columns["sample"] == ["a", "b"]
    assert numbers == {"right": 0.5, "parseable": 0.5, "says_safe": 0.5}


def test_an_unknown_reward_or_parser_is_named():
    with pytest.raises(InputError, match="did you mean plain"):
        reward.make_rewards("plane")
    with pytest.raises(InputError, match="did you mean answer"):
        reward.make_rewards("plain", "answers")


WEAPONS = {"prohibit": ["weapons"], "except": ["museum"], "text": "No weapons."}
POLICY = Policy(name="p", title="P", default="permitted", rules=[WEAPONS])
REASON = "knife: weapons prohibited except museum, at the park prohibited. Answer: unsafe"


@pytest.mark.parametrize(
    ("reply", "expected"),  # verdict; thing, quote, rule, status, entailed
    [
        (REASON, (1, 1, 1, 1, 1, 1)),
        (REASON.replace("museum", "home"), (1, 1, 0, 0, 1, 1)),
        (REASON.replace("Answer: unsafe", "Answer: safe"), (0.1, 1, 1, 1, 1, 0)),
        (REASON.replace("knife", "dog"), (1, 0, 1, 0, 0, 1)),
        ("Answer: unsafe", (1, 0, 0, 0, 0, 0)),
        ("", (0, 0, 0, 0, 0, 0)),
    ],
)
def test_the_grounded_reward_pays_for_each_part_of_the_reason_apart(reply, expected):
    rows = {"tags": [["knife", "park"]], "rules": [POLICY.model_dump_json(by_alias=True)]}
    rows |= {"label": ["unsafe"], "id": ["a"], "policy": ["p"]}
    parts = reward.make_rewards("grounded")
    assert tuple(part([[{"content": reply}]], **rows)[0] for part in parts) == expected
    assert [part.__name__ for part in parts[:3]] == [
        "verdict_reward",
        "thing_reward",
        "quote_reward",
    ]


# -- rows ------------------------------------------------------------------------------------------


def test_each_variant_teaches_what_it_says():
    bench = pairs.safeeditbench(seed=3, split="train").select(range(4))
    level = sft.classify(bench, load("L4"))
    assert [row["completion"][0]["content"] for row in level] == [
        "Answer: unsafe",
        "Answer: safe",
    ] * 2
    guard = sft.taxonomy(sets.llavaguard(seed=0, images=1))
    replies = [yaml.safe_load(row["completion"][0]["content"]) for row in guard]
    assert [reply["rating"] for reply in replies] == ["Safe", "Unsafe"]
    assert replies[0]["category"] == "NA: None applying" and replies[1]["category"].startswith("O1")
    with pytest.raises(InputError, match="did you mean recap"):
        sft.rows_of("recaps", PARAMS)
    with pytest.raises(InputError, match="did you mean rl"):
        grpo.rows_of("rll", PARAMS)


def captioned():
    """Eight pictures; a minimal edit changed the captions of the first four only."""
    rows = sets.sft_images(seed=0, images=8, harmful_share=0.0)
    texts = [describe(tags) for tags in rows["tags"]]
    rows = rows.add_column("caption", ["I see an object."] * 4 + texts[4:])
    after = {"minimal_edit": texts, "rewrite": [f"{text} Rewritten." for text in texts]}
    both = [
        rows.add_column("recaption", own).add_column("prompt", [prompt] * 8)
        for prompt, own in after.items()
    ]
    return concatenate_datasets(both)


def test_captions_are_taught_as_first_written_or_as_edited(tmp_path):
    store.save({"captions": captioned()}, tmp_path / "recaption")

    def taught(variant, **roles):
        rows = sft.rows_of(variant, tmp_path, **roles)
        return [row["completion"][0]["content"] for row in rows]

    first, edited = taught("no_recap"), taught("recap")
    assert first[:4] == ["I see an object."] * 4 and first[4:] == edited[4:]
    assert not set(edited) & {"I see an object."}
    assert taught("recap", recaption="rewrite") == [f"{text} Rewritten." for text in edited]
    with pytest.raises(InputError, match="no caption of the prompt 'rewrit'; did you mean rew"):
        taught("recap", recaption="rewrit")
    overview = sft.overview(sft.rows_of("no_recap", tmp_path))
    assert overview["completion"].tolist() == first[:3] and overview.index[0].startswith("sft-")
    assert set(overview["prompt"]) <= set(prompts.CAPTION)


def test_training_pairs_share_no_scene_with_the_benchmark():
    train, test = (pairs.safeeditbench(seed=0, split=s) for s in ("train", "test"))
    assert set(train["split"]) == {"train"}
    assert not {i.tobytes() for i in train["image"]} & {i.tobytes() for i in test["image"]}


def test_opposite_labels_follow_each_other():
    rows = grpo.shuffled(grpo.conditioned(sets.llavaguard(seed=0, images=9)), seed=1)
    labels, ids = rows["label"], [name.rpartition("-")[0] for name in rows["id"]]
    assert all(labels[i] != labels[i + 1] for i in range(0, len(rows), 2))
    assert all(ids[i] == ids[i + 1] for i in range(0, len(rows), 2))
    assert ids != sorted(ids)


def test_prompts_are_screened_by_what_the_model_says_and_the_list_is_read_again(
    tmp_path, monkeypatch
):
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=3))
    cold = {"temperature": 1e-3, "max_completion_length": 100}  # as good as greedy
    folder = tmp_path / "grpo.screen"  # not made yet, as before the first run of 04
    kept, listed = screening.screened(rows, [0.1, 1.0], folder, "nano", cold)
    judge = ChatJudge(with_p_unsafe=False)
    texts = [row["prompt"][0]["content"] for row in rows]
    batches = judge.reader.replies(list(rows["image"]), texts, 100)
    said = [parse(reply.text).verdict == "unsafe" for batch in batches for reply in batch]
    assert listed["p_unsafe"].tolist() == said and 0 < sum(said) < len(said)
    assert listed["id"].tolist() == list(rows["id"])
    assert list(kept["id"]) == [row["id"] for row, unsafe in zip(rows, said, strict=True) if unsafe]

    monkeypatch.setattr(screening, "p_unsafe", None)  # a resume asks nothing
    again, _ = screening.screened(rows, [0.0, 0.1], folder, "nano", cold)
    assert {*again["id"], *kept["id"]} == set(rows["id"])
    with pytest.raises(InputError, match=r"none of 6 prompts has P\(unsafe\) in \[0.2, 0.3\]"):
        screening.screened(rows, [0.2, 0.3], folder, "nano", cold)
    assert screening.screened(rows, [], folder, "nano", cold)[0] is rows


def test_the_loss_covers_the_answer_alone(tmp_path):
    from trl import SFTTrainer

    network, processor = load_model("nano")
    rows = caption_rows().select(range(3))
    sft_trainer = SFTTrainer(
        network,
        trainer.make_config("sft", SFT, tmp_path),
        train_dataset=rows,
        processing_class=processor,
    )
    batch = sft_trainer.data_collator([dict(row) for row in rows])
    for ids, row in zip(batch["labels"], rows, strict=True):
        learnt = processor.tokenizer.decode(ids[ids != -100])
        assert learnt.strip() == row["completion"][0]["content"] + "<|im_end|>"


# -- settings --------------------------------------------------------------------------------------


def test_a_setting_that_trl_does_not_know_is_named_before_anything_loads(tmp_path):
    with pytest.raises(InputError, match="did you mean learning_rate"):
        sft.train(caption_rows(), "nano", tmp_path, {"learning_rat": 1e-3})
    with pytest.raises(InputError, match="settings: "):
        grpo.train(caption_rows(), "nano", tmp_path, GRPO | {"num_generations": 3})
    with pytest.raises(InputError, match="lora: "):
        trainer.lora_config({"rank": 3})


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ({"settings": {"learning_rate": "1e-5"}}, "learning_rate: got the text .* write 1.0e-05"),
        ({"settings": {"learning_rate": math.inf}}, "learning_rate: got inf, expected finite"),
        ({"settings": {"weight_decay": math.nan}}, "weight_decay: got nan, expected finite"),
        ({"settings": {"max_steps": "ten", "logging_step": 1}}, "logging_steps(.|\n)*got 'ten'"),
        ({"settings": {"lr_scheduler_type": "cosinus"}}, "settings: .*cosinus"),
        ({"lora": {"rank": 3}}, "lora: 'rank'"),
        ({"lora": {"r": "8", "lora_dropout": math.nan}}, "r: got the text(.|\n)*finite"),
    ],
)
def test_a_slip_over_a_finished_training_is_named_and_leaves_it(slip, message, tmp_path):
    identity = tmp_path / "identity.json"
    identity.write_text("of a finished training")
    (tmp_path / "model").mkdir()
    job = {"settings": SFT | slip.pop("settings", {}), **slip}
    with pytest.raises(InputError, match=message):
        sft.train(caption_rows().select(range(4)), "nano", tmp_path, **job)
    assert identity.read_text() == "of a finished training" and (tmp_path / "model").exists()
    assert not tmp_path.with_name(tmp_path.name + ".replacement").exists()


def test_fields_that_only_log_are_trls_and_none_shapes_a_training():
    fields = set()
    for stage in ("sft", "grpo"):
        fields |= set(trainer._config_class(stage).__dataclass_fields__)
        assert not folders.ONLY_LOGS & set(trainer.MAIN_FIELDS[stage])
    assert fields >= folders.ONLY_LOGS


@pytest.mark.parametrize("killed_after", ["model saved", "first rename", "second rename"])
def test_a_training_killed_while_it_takes_a_finished_ones_place_is_the_one_reported(
    killed_after, tmp_path
):
    folder = tmp_path / "stage"
    (folders.claim(folder, rate=1) / "model").mkdir()
    beside = folders.claim(folder, rate=2)
    (beside / "model").mkdir()
    if killed_after != "model saved":
        folder.rename(tmp_path / "stage.old")
    if killed_after == "second rename":
        beside.rename(folder)
    assert folders.claim(folder, rate=2) == folder
    assert (folder / "model").exists() and '"rate": 2' in (folder / "identity.json").read_text()
    assert not beside.exists()


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_main_fields_say_who_sets_them(stage):
    fields = trainer.main_fields(stage, {"learning_rate": 1e-3})
    assert fields.loc["learning_rate"].tolist() == [1e-3, "settings"]
    assert fields.loc["max_grad_norm"].tolist() == [1.0, "TRL's default"]


RECIPES = sorted(PARAMS.glob("*/0[34]_*.yaml"))


def test_full_is_not_trained_from_the_base():
    grpo.check_start("rl", "nano")
    grpo.check_start("full", "runs/mine/training/03_sft.recap/model")
    with pytest.raises(InputError, match="runs/<profile>/training/03_sft.recap/model"):
        grpo.check_start("full", "nano")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_parameter_file_is_a_recipe_that_trl_takes(file, tmp_path, monkeypatch):
    parameters = yaml.safe_load(file.read_text())
    processes = parameters.get("processes", 1)  # batches are counted over all of them
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: processes))
    kind = "sft" if file.name.startswith("03") else "grpo"
    config = trainer.make_config(kind, parameters["settings"], tmp_path)
    for name, value in parameters["settings"].items():
        assert getattr(config, name) == value, name
    trainer.lora_config(parameters.get("lora") or None)
    variants = {"sft": sft.VARIANTS, "grpo": grpo.VARIANTS}[kind]
    assert parameters["variant"] in variants
    assert file.stem.endswith("." + parameters["variant"])


# -- runs ------------------------------------------------------------------------------------------

OLD, NEW = "a" * 40, "b" * 40  # commits


@pytest.fixture
def two_commits(tmp_path, monkeypatch):
    """A hub model in the cache: nano as the tag v1 names it, and with other weights on main."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub" / "models--own--tiny"
    for commit in (OLD, NEW):
        shutil.copytree(NANO_MODEL, home / "snapshots" / commit)
    weights = load_file(NANO_MODEL / "model.safetensors")
    weights = {name: tensor * 1.5 for name, tensor in weights.items()}
    save_file(weights, home / "snapshots" / NEW / "model.safetensors", {"format": "pt"})
    (home / "refs").mkdir()
    for ref, commit in {"v1": OLD, "main": NEW}.items():
        (home / "refs" / ref).write_text(commit)


def test_a_revision_pins_the_base_model_and_the_reference_of_stage_two(two_commits, tmp_path):
    from trl import GRPOTrainer

    job = (
        "grpo",
        grpo.conditioned(sets.llavaguard(seed=0, images=1)),
        "own/tiny",
        tmp_path / "old",
        GRPO,
    )
    start = trainer.prepare(*job, revision="v1")
    config = trainer.make_config("grpo", GRPO, tmp_path / "old")
    trl_trainer = GRPOTrainer(
        **start, args=config, train_dataset=job[1], reward_funcs=reward.make_rewards()
    )
    name, weight = next(iter(load_model("nano").model.state_dict().items()))
    for network in (start["model"], trl_trainer.ref_model):
        assert network.state_dict()[name].equal(weight)
    facts = json.loads((tmp_path / "old" / "identity.json").read_text())
    assert (facts["revision"], facts["model"]) == ("v1", OLD)
    trainer.prepare(*job[:3], tmp_path / "main", GRPO)
    facts = json.loads((tmp_path / "main" / "identity.json").read_text())
    assert "revision" not in facts and facts["model"] == NEW
    with pytest.raises(InputError, match="'nano' is a folder, which has no revision 'v1'"):
        trainer.prepare("sft", job[1], "nano", tmp_path / "nano", SFT, revision="v1")


CHILD = """
import os, signal, sys, time
from pathlib import Path
from sgvl.training import sft
from test_training import LORA, SFT, caption_rows
for kind in ("full", "lora"):
    folder, lora = Path(sys.argv[1], kind), LORA if kind == "lora" else None
    if (pid := os.fork()) == 0:
        sft.train(caption_rows(), "nano", folder, SFT, lora)
        os._exit(1)
    saved = folder / "checkpoint-2" / "trainer_state.json"
    while not saved.exists() and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Trainings that were killed after their second step, of two processes with one import."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", CHILD, folder]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)
    return folder


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(lora, killed, tmp_path):
    rows = caption_rows()
    whole = sft.train(rows, "nano", tmp_path / "whole", SFT, lora)
    assert whole["loss"].notna().all() and len(whole) == 5
    (killed / ("lora" if lora else "full")).rename(tmp_path / "killed")
    assert not (tmp_path / "killed" / "model").exists()
    assert (tmp_path / "killed" / "checkpoint-2").exists()
    again = sft.train(rows, "nano", tmp_path / "killed", SFT, lora)
    files = {path.name for path in tmp_path.rglob("*")}
    assert "optimizer.pt" in files and "training_args.bin" not in files, "no pickle of arguments"
    first, second = (tmp_path / name / "model" for name in ("whole", "killed"))
    name = "model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert again["loss"].tolist() == whole["loss"].tolist()


def test_a_training_killed_after_its_last_step_takes_none_and_saves_the_same_files(tmp_path):
    """The step is not the last of an epoch, so transformers would train on."""
    settings = SFT | {"max_steps": 1, "save_steps": 1, "lr_scheduler_type": "constant"}

    def saved():
        log = sft.train(caption_rows(), "nano", tmp_path, settings)
        files = [file for file in (tmp_path / "model").iterdir() if file.stem != "trainer_state"]
        return log["loss"].tolist(), {file.name: file.read_bytes() for file in files}

    log, files = saved()
    shutil.rmtree(tmp_path / "model")
    again, same = saved()
    assert [name for name in files | same if files.get(name) != same.get(name)] == []
    assert again == log and list(folders.checkpoints(tmp_path)) == [1]


def test_a_limit_of_pixels_is_saved_with_the_model_and_known_only_if_set(tmp_path):
    rows = caption_rows().select(range(2))
    for limit in (None, 6272):
        start = trainer.prepare("sft", rows, "nano", tmp_path, SFT, max_pixels=limit)
        facts = json.loads((tmp_path / "identity.json").read_text())
        assert facts.get("max_pixels", "none") == (limit or "none")
        start["processing_class"].save_pretrained(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
        assert saved["image_processor"]["size"]["longest_edge"] == (limit or 12544)


def test_a_finished_run_is_read_back_and_another_recipe_starts_anew(tmp_path, capsys):
    rows = caption_rows().select(range(4))
    sft.train(rows, "nano", tmp_path, SFT)
    output = capsys.readouterr().out
    assert output.startswith("1 of 1, ") and output.count("\n") == 1, "not each line of the log"
    first = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    sft.train(rows, "nano", tmp_path, SFT)
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == first
    # What only logs or keeps is no part of it: the model and its identity stay as they were.
    identity = (tmp_path / "identity.json").read_bytes()
    bare = {name: v for name, v in SFT.items() if name not in ("logging_steps", "save_steps")}
    sft.train(rows, "nano", tmp_path, bare | {"report_to": "none", "save_total_limit": 1})
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == first
    assert (tmp_path / "identity.json").read_bytes() == identity
    sft.train(rows, "nano", tmp_path, SFT | {"learning_rate": 1e-4})
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns > first


def test_a_finished_training_is_replaced_only_by_a_finished_one(tmp_path):
    rows, folder = caption_rows(), tmp_path / "run"
    new = tmp_path / "run.replacement"

    def stop(*_):
        raise KeyboardInterrupt

    def weights():
        return (folder / "model" / "model.safetensors").read_bytes()

    few = rows.select(range(4))
    sft.train(few, "nano", folder, SFT)
    first = weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "save_merged", stop)
        with pytest.raises(KeyboardInterrupt):
            sft.train(rows, "nano", folder, SFT)
    assert weights() == first and (new / "checkpoint-5").exists()
    assert len(sft.train(few, "nano", folder, SFT)) == 1, "the finished one is still read back"
    resumed = sft.train(rows, "nano", folder, SFT)
    assert len(resumed) == 5 and weights() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    anew = sft.train(rows, "nano", tmp_path / "anew", SFT)
    assert weights() == (tmp_path / "anew" / "model" / "model.safetensors").read_bytes()
    assert resumed["loss"].tolist() == anew["loss"].tolist()
    folder.rename(new)  # as a kill between the two renames leaves it
    identity = (new / "identity.json").read_bytes()
    sft.train(rows, "nano", folder, SFT)
    assert (folder / "identity.json").read_bytes() == identity and not new.exists()


def test_rollouts_can_be_read_back_with_rewards_and_advantages(tmp_path):
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=2))
    log = grpo.train(rows, "nano", tmp_path, GRPO)
    assert {"reward", "right", "parseable", "says_safe", "kl"} <= set(log)
    rollouts = grpo.rollouts(tmp_path)
    assert len(rollouts) == 2 * 8 and set(rollouts["label"]) == {"safe", "unsafe"}
    for (_, sample), group in rollouts.groupby(["step", "sample"]):
        assert len(group) == 4, sample
        expected = (group["reward"] - group["reward"].mean()) / (group["reward"].std() + 1e-4)
        assert group["advantage"].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    scored = [
        reward.rewards_of("plain", [row["reply"]], row["label"])[0]
        for _, row in rollouts.iterrows()
    ]
    assert rollouts["reward"].tolist() == pytest.approx(scored)
    frozen = [load_model(m)[0].model.visual for m in ("nano", str(tmp_path / "model"))]
    for before, after in zip(*(tower.parameters() for tower in frozen), strict=True):
        assert (before == after).all()
    shutil.rmtree(tmp_path / "model")  # as if killed after the last step
    assert max(folders.checkpoints(tmp_path)) == 2
    grpo.train(rows, "nano", tmp_path, GRPO)
    assert grpo.rollouts(tmp_path).equals(rollouts)
    grpo.train(rows, "nano", tmp_path, GRPO | {"max_steps": 1, "beta": 0.0})
    assert set(grpo.rollouts(tmp_path)["step"]) == {1}, "those of the replaced training are gone"


def test_epochs_that_are_done_keep_the_rollouts_of_their_last_step(tmp_path):
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=2)).select(range(2))
    settings = {k: v for k, v in GRPO.items() if k != "max_steps"} | {"num_train_epochs": 1}
    grpo.train(rows, "nano", tmp_path, settings)
    rollouts = grpo.rollouts(tmp_path)
    shutil.rmtree(tmp_path / "model")  # as if killed after the last step
    assert len(rollouts) and folders.all_steps_done(folders.newest_checkpoint(tmp_path))
    grpo.train(rows, "nano", tmp_path, settings)
    assert grpo.rollouts(tmp_path).equals(rollouts)


def test_each_part_of_the_grounded_reward_is_normalised_apart(tmp_path):
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=2), exact=True)
    settings = GRPO | {"multi_objective_aggregation": "normalize_then_sum", "max_steps": 1}
    settings |= {"max_completion_length": 60, "temperature": 1.3}
    grpo.train(rows, "nano", tmp_path, settings, "grounded")
    rollouts = grpo.rollouts(tmp_path)
    parts = [f"{part}_reward" for part in ("verdict", *Grounding._fields)]
    assert rollouts["reward"].tolist() == pytest.approx(rollouts[parts].sum(axis=1).tolist())
    grouped = rollouts.groupby("sample")[parts]
    apart = (rollouts[parts] - grouped.transform("mean")) / (grouped.transform("std") + 1e-4)
    total = apart.sum(axis=1)
    expected = (total - total.mean()) / (total.std() + 1e-4)  # over the batch
    assert rollouts["advantage"].abs().max() > 0
    assert rollouts["advantage"].tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_reason_is_paid_for_only_where_the_exact_one_is_known():
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=1), exact=True)
    grpo.need_exact(rows, "grounded")
    for missing in ("tags", "rules"):
        with pytest.raises(InputError, match=f"reward grounded: the prompts have no {missing}"):
            grpo.need_exact(rows.remove_columns(missing), "grounded")
    text = Policy(name="t", title="T", text="Be nice.").model_dump_json()
    alone = rows.remove_columns("rules").add_column("rules", [text] * len(rows))
    with pytest.raises(InputError, match="is text alone"):
        grpo.need_exact(alone, "grounded")
    grpo.need_exact(rows.remove_columns(["tags", "rules"]), "plain")


def test_dead_groups_are_counted():
    table = pd.DataFrame(
        {"step": 1, "sample": ["a", "a", "b", "b"], "reward": [0.1, 0.1, 1.0, 0.1]}
    )
    assert grpo.groups(table)["dead"].tolist() == [True, False]
    table = table.assign(
        thing_reward=[1, 0, 1, 1], verdict_reward=[0, 1, 1, 1], reward=[1, 1, 2, 2]
    )
    assert grpo.groups(table)["dead"].tolist() == [False, True], "a sum hides parts that differ"


def test_a_reward_that_is_no_number_stops_the_run_and_names_step_and_sample(tmp_path, monkeypatch):
    monkeypatch.setitem(reward.REWARDS, "plain", lambda reply, verdict, label: math.nan)
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=2))
    with pytest.raises(FloatingPointError, match="reward nan at step 0, sample llavaguard-train"):
        grpo.train(rows, "nano", tmp_path, GRPO)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_sample(tmp_path):
    rows = caption_rows()
    settings = SFT | {"learning_rate": 1e38, "max_grad_norm": 0.0}
    with pytest.raises(FloatingPointError, match=r"loss nan at step (\d+), in (.*)") as raised:
        sft.train(rows, "nano", tmp_path, settings)
    named = str(raised.value).rpartition(" in ")[2].split(", ")
    assert len(named) == SFT["per_device_train_batch_size"] and set(named) <= set(rows["id"])
    assert not (tmp_path / "model").exists()


def test_weights_that_are_no_numbers_are_no_finished_training(tmp_path):
    settings = SFT | {"learning_rate": 1e39, "max_steps": 1}  # infinity in float32
    with pytest.raises(FloatingPointError, match="after the last update .* lower learning_rate"):
        sft.train(caption_rows(), "nano", tmp_path, settings)
    assert not (tmp_path / "model").exists()


def test_so_does_one_of_stage_two(tmp_path):
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=1))
    with pytest.raises(FloatingPointError) as raised:  # infinity in float32, times zero
        grpo.train(rows, "nano", tmp_path, GRPO | {"beta": 1e39})
    assert str(raised.value) == f"loss nan at step 1, in {', '.join(rows['id'])}"


def long_and_short_rows():
    """Captions of 27 to 65 letters, and as many replies of one word to the same pictures."""
    long = caption_rows().select_columns(["image", "prompt", "completion", "id"]).select(range(8))
    words = (sft.training_row("Is it safe?", "safe", id_) for id_ in long["id"])
    return concatenate_datasets([long, store.beside_pictures(long, words)]).shuffle(seed=0)


ONE_STEP = SFT | {"max_steps": 1, "save_strategy": "no", "max_grad_norm": 1e9}


@pytest.mark.parametrize("parts", [1, 8])
def test_a_token_weighs_the_same_however_a_batch_is_divided(parts, tmp_path):
    """Means of parts would give a loss of 7.6 in the place of 4.4 where each row is a part."""
    rows, losses = long_and_short_rows(), []
    for folder, size in {"parts": parts, "whole": 16}.items():
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 16 // size}
        log = sft.train(rows, "nano", tmp_path / folder, ONE_STEP | batch)
        losses.append(log.iloc[0][["loss", "grad_norm"]].astype(float).tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


TWO = SFT | {"per_device_train_batch_size": 2}  # in each of two processes


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "multi_gpu"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(layout, tmp_path):
    """Two ranks over gloo: the steps, losses and gradients of one process, but for rounding.

    ``multi_gpu`` is TRL's configuration for ``accelerate launch``, which asks for bf16.
    """
    rows = long_and_short_rows()
    one = sft.train(rows, "nano", tmp_path / "one", SFT)
    two = launch.train("sft", rows, 2, layout, model="nano", folder=tmp_path / "two", settings=TWO)
    assert len(one) == len(two) == 4
    for column in ("loss", "grad_norm"):
        assert two[column].tolist() == pytest.approx(one[column].tolist(), rel=1e-4), column


def ranks_of(folder: Path) -> list[psutil.Process]:
    """The processes that train a job, each started by the launcher."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        launches = {"torch.distributed.run", "accelerate.commands.launch"} & set(line)
        if f"{folder}.job" in line and not launches:
            found.append(process)
    return found


JOB = """
import sys
from pathlib import Path
from sgvl.training import launch
from test_training import TWO, long_and_short_rows
job = {"model": "nano", "folder": Path(sys.argv[1]), "settings": TWO | {"save_steps": 1}}
launch.train("sft", long_and_short_rows(), 2, "multi_gpu", **job)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["a rank", "the notebook"])
def test_a_job_ends_whole_and_goes_on_to_the_same_weights(killed, tmp_path):
    rows, settings = long_and_short_rows(), TWO | {"save_steps": 1}
    job = {"model": "nano", "settings": settings}
    launch.train("sft", rows, 2, "multi_gpu", folder=tmp_path / "whole", **job)
    folder = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", JOB, folder], cwd=Path(__file__).parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    saved = folder / "checkpoint-1" / "trainer_state.json"
    while not saved.exists() and child.poll() is None:
        time.sleep(0.002)
    ranks = ranks_of(folder)
    assert len(ranks) >= 2
    (ranks[-1] if killed == "a rank" else child).kill()
    out, err = child.communicate(timeout=120)
    if killed == "a rank":
        assert child.returncode == 1 and "RuntimeError: sft ended with exit code" in err
    gone, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive, "the launcher and the other rank have ended, too"
    assert not (folder / "model").exists()
    launch.train("sft", rows, 2, "multi_gpu", folder=folder, **job)
    name = "model/model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_processes_train_as_one_job(stage, tmp_path):
    """Two processes on two cores: half of the steps, the same form of log, one saved model."""
    rows = caption_rows() if stage == "sft" else grpo.conditioned(sets.llavaguard(0, images=4))
    settings = SFT if stage == "sft" else GRPO | {"per_device_train_batch_size": 4}
    job = {"model": "nano", "folder": tmp_path / "run", "settings": settings}
    log = launch.train(stage, rows, processes=2, **job)
    assert len(log) == (3 if stage == "sft" else 2) and log["loss"].notna().all()
    assert load_model(str(tmp_path / "run" / "model")).processor.tokenizer.padding_side == "left"


@pytest.mark.slow
def test_a_process_that_fails_shows_its_error(tmp_path):
    job = {"model": "nano", "folder": tmp_path / "run", "settings": {"learning_rat": 1.0}}
    with pytest.raises(RuntimeError, match="did you mean learning_rate"):
        launch.train("sft", caption_rows(), processes=2, **job)


def test_an_unknown_layout_is_named():
    with pytest.raises(InputError, match="did you mean zero3"):
        launch.command(2, "zero4", {})
