"""What the completions of a prompt share: the same rollouts, loss and gradients as TRL's."""

from types import SimpleNamespace

import pytest
import torch
from transformers import set_seed
from trl import GRPOTrainer, SFTTrainer
from trl.trainer import utils

from sgvl.common.kept import Kept
from sgvl.models import loading
from sgvl.policies import load
from sgvl.training import grpo, sft, sharing, trainer
from sgvl.training.reward import make_rewards
from sgvl.world import pairs, sets

SETTINGS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 60,
    "beta": 0.02,
    "max_steps": 1,
    "gradient_checkpointing": False,
}


def one_step(folder, shares: bool) -> dict:
    """Sample, score and differentiate a batch of two prompts, of different lengths."""
    rows = grpo.conditioned(sets.llavaguard(seed=0, images=2)).select([0, 3])
    start = trainer.prepare("grpo", rows, "nano", folder, SETTINGS)
    config = trainer.make_config("grpo", SETTINGS, folder)
    own = GRPOTrainer(**start, args=config, train_dataset=rows, reward_funcs=make_rewards())
    if shares:
        sharing.share(own)
    own.current_gradient_accumulation_steps = 1  # ``train`` sets it
    seen = []
    for network in (own.model, own.ref_model):
        network.model.visual.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    set_seed(5)
    batch = own._prepare_inputs([row for row in rows for _ in range(4)])
    state = torch.get_rng_state()
    batch["advantages"] = torch.linspace(-1, 1, 8)  # also where all rewards are equal
    with torch.no_grad():  # some distance from the reference model
        own.model.lm_head.weight *= 1.01
    loss = own._compute_loss(own.model, batch)
    loss.backward()
    slopes = {name: p.grad for name, p in own.model.named_parameters() if p.grad is not None}
    return {"batch": batch, "state": state, "loss": loss, "slopes": slopes, "patches": sum(seen)}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """One step as TRL makes it, and one that shares."""
    return [one_step(tmp_path_factory.mktemp("step"), shares) for shares in (False, True)]


def test_shared_prompts_give_the_replies_that_trl_samples(steps):
    alone, shared = (step["batch"] for step in steps)
    assert torch.equal(alone["completion_ids"], shared["completion_ids"])
    assert len({tuple(row) for row in alone["completion_ids"].tolist()}) > 2  # they are sampled
    assert torch.equal(steps[0]["state"], steps[1]["state"])


def test_shared_prompts_give_the_log_probabilities_and_gradients_of_trl(steps):
    alone, shared = steps
    mask = alone["batch"]["completion_mask"].bool()
    gap = alone["batch"]["ref_per_token_logps"] - shared["batch"]["ref_per_token_logps"]
    assert gap[mask].abs().max() < 2e-5
    assert shared["loss"].item() == pytest.approx(alone["loss"].item(), abs=1e-6)
    assert alone["slopes"].keys() == shared["slopes"].keys()
    for name, slope in alone["slopes"].items():
        distance = (slope - shared["slopes"][name]).norm() / slope.norm()
        assert distance < 1e-4, name


def test_each_picture_goes_through_the_tower_once(steps):
    alone, shared = (step["patches"] for step in steps)
    assert alone == 3 * 4 * shared  # to sample, for the reference and to update; of four replies


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_picture_is_seen_again_in_the_next_epoch(tmp_path, checkpointing):
    rows = sft.classify(pairs.safeeditbench(0, per_category=1, split="train"), load("L1"))
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "logging_steps": 1}
    settings["gradient_checkpointing"] = checkpointing
    sft.train(rows.select([0, 1]), "nano", tmp_path / "out", settings)
    first, second = trainer.read_log(tmp_path / "out")["loss"].dropna()
    assert second < first


def test_sft_scores_the_tokens_of_completions_alone(tmp_path, monkeypatch):
    rows = sft.classify(pairs.safeeditbench(0, per_category=1, split="train"), load("L1"))
    rows = rows.select([0, 1])
    settings = {"per_device_train_batch_size": 2, "gradient_checkpointing": False}
    head, scored = utils._ChunkedLogProbFunction, []

    def apply(hidden, *rest):
        scored.append(len(hidden))
        return head.apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=apply))
    start = trainer.prepare("sft", rows, "nano", tmp_path / "out", settings)
    config = trainer.make_config("sft", settings, tmp_path / "out")
    own = SFTTrainer(**start, args=config, train_dataset=rows)
    batch = own.data_collator([own.train_dataset[0], own.train_dataset[1]])
    losses, slopes = [], []
    for shares in (False, True):
        if shares:
            sharing.share(own)
        losses.append(own.compute_loss(own.model, dict(batch)))
        own.model.zero_grad()
        losses[-1].backward()
        slopes.append(
            {n: p.grad.clone() for n, p in own.model.named_parameters() if p.requires_grad}
        )
    labels = batch["labels"][:, 1:]
    assert scored == [labels.numel(), (labels != -100).sum()] and scored[1] < scored[0] / 2
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for name, slope in slopes[0].items():
        assert (slope - slopes[1][name]).norm() <= 1e-5 * slope.norm(), name


def test_pictures_of_the_same_patches_in_another_form_are_two():
    network = loading.load("nano")[0]
    pixels, forms = torch.rand(32, 1176).repeat(2, 1), torch.tensor([[1, 4, 8], [1, 8, 4]])
    with torch.no_grad():
        plain = network.model.get_image_features(pixels, forms).pooler_output
    sharing.see_once(network, Kept(10**6, lambda own: own.nbytes))
    for shown in (forms, forms):  # seen, and known
        own = network.model.get_image_features(pixels, shown).pooler_output
        assert all(map(torch.equal, own, plain)) and not torch.equal(*own)
