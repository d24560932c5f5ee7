"""Rollouts by an engine beside the trainer: what it has seen is compared with what is scored.

vLLM does not run here. The engine of these tests has its interface in TRL and is the trained model
itself, by transformers' generate, from the token ids and pictures that TRL sends to vLLM.
"""

import pytest
import torch
from PIL import Image
from trl import GRPOTrainer

from sgvl.common.errors import InputError
from sgvl.training import grpo, rollouts, trainer
from sgvl.training.reward import make_rewards
from sgvl.world import sets

SETTINGS = {
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_completion_length": 24,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "max_steps": 2,
    "beta": 0.0,
    "save_strategy": "no",
}


class Engine:
    """``seen`` changes the prompts that it says it saw, ``shown`` the pictures that it looks at."""

    def __init__(self, trl_trainer, seen=lambda ids: ids, shown=lambda image: image):
        self.trainer, self.seen, self.shown = trl_trainer, seen, shown

    def sync_weights(self):
        pass  # it is the model

    def generate(self, prompts, images, num_generations, profiler):
        processor = self.trainer.processing_class
        texts, logprobs = [], []
        self.trainer.model.eval()
        for ids, (image,) in zip(prompts, images, strict=True):
            input_ids = torch.tensor([ids])
            is_image = (input_ids == processor.image_token_id).int()
            pixels = processor.image_processor(images=[self.shown(image)], return_tensors="pt")
            made = self.trainer.model.generate(
                input_ids=input_ids, mm_token_type_ids=is_image, **pixels,
                max_new_tokens=SETTINGS["max_completion_length"], do_sample=True,
                top_k=0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            texts.append(made.sequences[0, len(ids) :].tolist())
            rows = torch.cat(made.logits).log_softmax(-1)
            logprobs.append([[float(row[k])] for row, k in zip(rows, texts[-1], strict=True)])
        self.trainer.model.train()
        return [self.seen(ids) for ids in prompts], texts, logprobs, None


def train(folder, **engine):
    rows = grpo.conditioned(sets.llavaguard(0, images=4))
    config = trainer.make_config("grpo", SETTINGS, folder)
    start = trainer.prepare("grpo", rows, "nano", folder, SETTINGS)
    reward = make_rewards("plain", "answer")
    made = GRPOTrainer(**start, args=config, train_dataset=rows, reward_funcs=reward)
    made.use_vllm, made.vllm_generation, made._last_loaded_step = True, Engine(made, **engine), -1
    trainer.train_and_save(made)
    return trainer.read_log(folder)


def test_an_engine_that_sees_the_same_prompt_trains(tmp_path):
    log = train(tmp_path)
    assert len(log) == 2 and log[rollouts.DISTANCE].max() < 1e-3


def test_an_engine_that_expands_a_picture_once_more_is_stopped_at_its_first_batch(tmp_path):
    """N tokens of a picture become 2N - 1, as in TRL's issue 6294."""

    def expanded(ids):
        token = max(set(ids), key=ids.count)  # that of a picture
        first = ids.index(token)
        return ids[:first] + [token] * (ids.count(token) - 1) + ids[first:]

    with pytest.raises(rollouts.OtherPromptError, match="prompt 0 of the batch: vLLM saw"):
        train(tmp_path, seen=expanded)
    assert not (tmp_path / "model").exists()


def test_an_engine_that_looks_at_something_else_is_stopped_by_its_log_probabilities(tmp_path):
    with pytest.raises(
        rollouts.OtherPromptError, match="log-probabilities of vLLM and of the update"
    ):
        train(tmp_path, shown=lambda image: Image.new("RGB", image.size))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_vllm": True}, "use_vllm: vllm is not installed; pip install"),
        ({"use_vllm": True, "vllm_mode": "colocated"}, "'colocated'; did you mean colocate?"),
        ({"use_vllm": True, "vllm_server_port": "8000"}, "vllm_server_port: got the text '8000'"),
    ],
)
def test_settings_of_vllm_are_checked_before_anything_loads(settings, said):
    with pytest.raises(InputError, match=said):
        trainer.check_grpo(SETTINGS | settings)
    trainer.check_grpo({"vllm_mode": "server", "vllm_server_base_url": "http://localhost:8002"})
