"""Common parts of both training stages: configuration, start and resume, guard, saving.

A training has one folder, as ``sgvl.training.folders`` describes it. ``model/`` in it holds the
merged weights and the processor, ready for ``sgvl.models.loading.load``.
"""

import gc
import hashlib
import json
import warnings
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pandas as pd

from sgvl.common import files
from sgvl.common.errors import InputError, nearest, need_known, raise_any
from sgvl.common.progress import printer
from sgvl.common.types import type_problems
from sgvl.data import store
from sgvl.models import loading
from sgvl.policies.policy import FORMS, Policy
from sgvl.text import prompts
from sgvl.training import folders, rollouts

# Linear layers of the language model only: the vision tower has layers of the same names.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

# Fields that are not the user's to set. The ids of rows must reach the trainer, because its errors
# name them; ``grpo.shuffled`` has ordered the prompts already; and every rollout is stored.
FIXED = {
    "sft": {"remove_unused_columns": False},
    "grpo": {"shuffle_dataset": False, "log_completions": True, "num_completions_to_print": 0},
}

# Fields of TRL's configurations that shape a training most.
COMMON_FIELDS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm",
    "seed",
)  # fmt: skip
MAIN_FIELDS = {
    "sft": (*COMMON_FIELDS, "max_length"),
    "grpo": (
        *COMMON_FIELDS, "num_generations", "max_completion_length", "temperature", "top_p", "top_k",
        "beta", "epsilon", "loss_type", "scale_rewards",
    ),
}  # fmt: skip


# Values that TRL would refuse at the first step only, after the model is loaded.
CHOICES = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}


def main_fields(stage: str, settings: dict) -> pd.DataFrame:
    """Return the main fields of a stage's configuration: the value of each, and who sets it."""
    names, defaults = MAIN_FIELDS[stage], _config_class(stage).__dataclass_fields__
    values = [settings.get(name, defaults[name].default) for name in names]
    set_by = ["settings" if name in settings else "TRL's default" for name in names]
    return pd.DataFrame({"value": values, "set by": set_by}, index=list(names), dtype=object)


def _config_class(stage: str) -> type:
    import trl

    return {"sft": trl.SFTConfig, "grpo": trl.GRPOConfig}[stage]


def make_config(stage: str, settings: dict, folder: Path):
    """Make TRL's configuration of a stage from the ``settings`` of a parameter file.

    Without a GPU the training stays in float32, which makes it repeat bit by bit.

    Parameters
    ----------
    stage : "sft" or "grpo"
    settings : fields of ``trl.SFTConfig`` or ``trl.GRPOConfig``
    folder : of the training

    Returns
    -------
    trl.SFTConfig or trl.GRPOConfig

    Raises
    ------
    InputError
        For fields that the installed TRL does not know and values of another type, all of them at
        once, and for values that it refuses.
    """
    import torch

    check_fields(stage, settings)
    # TRL passes on a field under the name that it had before transformers renamed it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    fields = {"disable_tqdm": True, **cpu, **settings, **FIXED[stage]}
    try:
        return _config_class(stage)(output_dir=str(folders.workplace(folder)), **fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"settings: {error}") from None


def lora_config(lora: dict | None):
    """Return peft's ``LoraConfig`` for the linear layers of the language model, or None for None.

    Raises InputError for fields that peft does not know, and for values that it refuses.
    """
    if lora is None:
        return None
    from peft import LoraConfig

    raise_any(_field_problems("lora", LoraConfig, lora))
    try:
        return LoraConfig(**{"target_modules": LORA_TARGETS, "task_type": "CAUSAL_LM", **lora})
    except (TypeError, ValueError) as error:
        raise InputError(f"lora: {error}") from None


def check_fields(stage: str, settings: dict, lora: dict | None = None) -> None:
    """Check names and types of the fields of a stage's configuration and of peft's.

    Raises InputError with all problems.
    """
    problems = _field_problems("settings", _config_class(stage), settings)
    problems += rollouts.setting_problems(settings)
    problems += [
        f"settings: {name} {settings[name]!r}: {nearest(str(settings[name]), known)}"
        for name, known in CHOICES.items()
        if stage == "grpo" and name in settings and settings[name] not in known
    ]
    if lora:
        from peft import LoraConfig

        problems += _field_problems("lora", LoraConfig, lora)
    raise_any(problems)


def _field_problems(what: str, config: type, values: dict) -> list[str]:
    types = get_type_hints(config)
    unknown = [name for name in values if name not in config.__dataclass_fields__]
    problems = [f"{what}: {n!r}: {nearest(str(n), config.__dataclass_fields__)}" for n in unknown]
    return problems + type_problems(f"{what}:", types, values)


# For the metadata of notebooks.
check_sft, check_grpo = partial(check_fields, "sft"), partial(check_fields, "grpo")


def request(policy: Policy, form: str = "brief", prompt: str = "reason") -> str:
    """Return the text that asks for a verdict under a policy, as a judge of this prompt asks.

    Parameters
    ----------
    form : of the policy, one of ``FORMS``; a published policy, text alone, has no ``brief``
    prompt : a name in ``prompts.JUDGE``

    Raises
    ------
    InputError
        For an unknown form or prompt, and for a policy that has no such form.
    """
    return prompts.judge_prompt(policy.render(form), prompt, policy.steps)


def check_request(policy_form: str, prompt: str, system: str = "") -> None:
    """Check the form of policies and the prompts of training rows; empty ones are the usual ones.

    Raises InputError for an unknown one.
    """
    need_known("system", system, prompts.SYSTEM)
    need_known("policy_form", policy_form, FORMS)
    need_known("prompt", prompt, ["", *prompts.TRAINABLE])


def prepare(
    stage: str, rows, model: str, folder: Path, settings: dict, lora: dict | None = None,
    dtype: str = "float32", revision: str | None = None, max_pixels: int | None = None, **more,
) -> dict | None:  # fmt: skip
    """Claim ``folder`` for a training and load the model that it starts or continues from.

    Parameters
    ----------
    rows : datasets.Dataset
    model : "nano", a folder, or a hub id
    settings : fields of TRL's configuration, as ``make_config`` takes them
    lora : fields of peft's ``LoraConfig``; None trains all weights of the language model
    dtype : of the weights in training
    revision : branch, tag or commit of a hub model; None is main
    max_pixels : of a picture, as for the chat judge; saved with the model
    more : further facts that tell this training from others, such as the reward

    Returns
    -------
    dict or None
        ``model``, ``processing_class`` and ``peft_config`` for TRL's trainer. None if this very
        training is finished in ``folder``.
    """
    peft_config = lora_config(lora)
    facts = {"stage": stage, "settings": settings, "lora": lora, "dtype": dtype, **more}
    facts |= {"revision": revision} if revision else {}
    facts |= {"max_pixels": max_pixels} if max_pixels else {}
    weights = loading.digest(model, revision)
    place = folders.claim(folder, data=digest(rows), model=weights, **facts)
    if (place / "model").exists():
        return None
    network, processor = load_start(model, place, lora, dtype, revision)
    loading.limit_pixels(model, processor, max_pixels or None)
    return {"model": network, "processing_class": processor, "peft_config": peft_config}


def train_and_save(trl_trainer) -> None:
    """Run a TRL trainer from the newest checkpoint of its folder, if any, and save the model.

    Progress is printed once a minute; the trainer's log is stored with the model.
    """
    from sgvl.training import sharing  # imports torch

    place = Path(trl_trainer.args.output_dir)
    folder = place.with_name(place.name.removesuffix(folders.BESIDE))
    weigh_tokens_equally(trl_trainer)
    sharing.share(trl_trainer)
    stop_at_bad_loss(trl_trainer)
    rollouts.guard(trl_trainer)
    report_steps(trl_trainer)
    with files.writing(place):
        checkpoint = folders.newest_checkpoint(place)
        if checkpoint and folders.all_steps_done(checkpoint):
            # Killed before it saved the model. transformers may take a step more, but none in 0
            # epochs.
            trl_trainer.args.max_steps, trl_trainer.args.num_train_epochs = -1, 0
            trl_trainer.log_completions = False  # TRL would store those of the last step as none
        trl_trainer.train(resume_from_checkpoint=checkpoint)
        save_merged(trl_trainer, place)
        if trl_trainer.is_world_process_zero() and place != folder:
            folders.replace(folder, place)
    trl_trainer.accelerator.wait_for_everyone()


def free_memory() -> None:
    """Return the memory of models that nothing refers to any more, on a GPU as well."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def weigh_tokens_equally(trl_trainer) -> None:
    """Make an SFT trainer divide by the tokens of a whole batch, over all its parts and processes.

    Qwen2.5-VL declares that its own loss takes no such count, and the trainer would average the
    means of the parts: a token of a short answer would weigh more than one of a long caption, and
    more so the smaller the parts. The loss here is TRL's own, which takes the count.
    """
    from trl import SFTTrainer

    if isinstance(trl_trainer, SFTTrainer):
        trl_trainer.model_accepts_loss_kwargs = True


def stop_at_bad_loss(trl_trainer) -> None:
    """Make a TRL trainer raise FloatingPointError at the first loss that is not finite.

    The error names the step and the samples of its batch. A ``TrainerCallback`` cannot do this: it
    gets neither the batch nor the loss of a step, and the log has the mean of earlier losses in the
    place of a NaN.
    """
    import torch

    collate, take_step = trl_trainer.data_collator, trl_trainer.training_step

    def collate_with_ids(rows: list[dict]):
        batch = collate(rows)
        return batch if batch is rows else {**batch, "id": [row["id"] for row in rows]}

    def checked_step(model, inputs, *more):
        # GRPO takes a list of rows and collates them after it has sampled completions.
        rows = isinstance(inputs, list)
        ids = [row["id"] for row in inputs] if rows else inputs.pop("id")
        loss = take_step(model, inputs, *more)
        if not torch.isfinite(loss):
            step, samples = trl_trainer.state.global_step + 1, ", ".join(dict.fromkeys(ids))
            raise FloatingPointError(f"loss {loss.item()} at step {step}, in {samples}")
        return loss

    trl_trainer.data_collator, trl_trainer.training_step = collate_with_ids, checked_step


def report_steps(trl_trainer) -> None:
    """Print once a minute how many steps are done, instead of each row of the log."""
    from transformers import PrinterCallback, TrainerCallback

    class Steps(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.before, self.say = state.global_step, printer(every=60)

        def on_step_end(self, args, state, control, **_):
            if state.is_world_process_zero:
                self.say(state.global_step - self.before, state.max_steps - self.before)

    trl_trainer.remove_callback(PrinterCallback)
    trl_trainer.add_callback(Steps)


def digest(rows) -> str:
    """Return the sha256 of the texts and images of training rows, in their order."""
    sha = hashlib.sha256()
    for row in store.without_decoding(rows) if "image" in rows.features else rows:
        image = row.pop("image", None) or {}
        sha.update(json.dumps(row, sort_keys=True, default=str).encode())
        sha.update(image.get("bytes") or str(image.get("path")).encode())
    return sha.hexdigest()


def load_start(
    model: str, folder: Path, lora: dict | None, dtype: str, revision: str | None = None
):
    """Load the network and the processor that a training starts or continues from.

    Without LoRA the weights of the newest checkpoint are loaded here: the trainer looks for them
    under names that the files of Qwen2.5-VL do not have, and would continue from the first weights
    without a warning. The processor is never a checkpoint's, which would be saved with other bytes:
    transformers stores what stage 2 has set in it. The vision tower is frozen, as in the released
    recipe.
    """
    checkpoint = folders.newest_checkpoint(folder) if lora is None else None
    pinned = None if checkpoint else revision  # a folder has none
    network, processor = loading.load(checkpoint or model, pinned, dtype)
    if checkpoint:
        commit = loading.pin(model, revision)
        processor = loading.load_processor(loading.resolve(model), commit, network.config)
    network.train()
    # GRPO loads its reference model from here: not from a checkpoint, nor from another commit.
    network.config._name_or_path = loading.snapshot(model, revision)
    network.model.visual.requires_grad_(False)
    return network, processor


def save_merged(trl_trainer, folder: Path) -> None:
    """Save weights (adapters merged), processor and log as ``folder``/model, by rename.

    The pickles of arguments that the trainer writes beside weights are removed: nothing reads them.
    """
    fresh = folder / "model.new"
    network = trl_trainer.accelerator.unwrap_model(trl_trainer.model)
    if not hasattr(network, "merge_and_unload"):
        trl_trainer.save_model(str(fresh))  # gathers the shards of ZeRO-3
    elif trl_trainer.is_world_process_zero():
        network.merge_and_unload().save_pretrained(fresh)
    if trl_trainer.is_world_process_zero():
        _forget_last_batch(trl_trainer.processing_class)
        trl_trainer.processing_class.save_pretrained(fresh)
        trl_trainer.state.save_to_json(str(fresh / "trainer_state.json"))
        _check_finite(fresh)
        for pickle in folder.rglob("training_args.bin"):
            pickle.unlink()
        fresh.rename(folder / "model")
    trl_trainer.accelerator.wait_for_everyone()


def _forget_last_batch(processor) -> None:
    """Drop how the last batch was padded and cut, which a fast tokenizer would save.

    A training that was killed after its last step goes on without a batch.
    """
    fast = getattr(processor.tokenizer, "backend_tokenizer", None)
    if fast is not None:
        fast.no_padding()
        fast.no_truncation()


def _check_finite(model: Path) -> None:
    """Raise FloatingPointError for saved weights that are nan or infinite."""
    from safetensors import safe_open

    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:  # one at a time in memory
            names = [
                name
                for name in sorted(weights.keys())
                if loading.not_finite({name: weights.get_tensor(name)})
            ]
        if names:
            raise FloatingPointError(
                f"after the last update {len(names)} weights are nan or infinite, the first "
                f"{names[0]}; lower learning_rate, and remove {model.parent}"
            )


def read_log(folder: Path) -> pd.DataFrame:
    """Return the log of a finished training, one row per logging step."""
    state = json.loads((folder / "model" / "trainer_state.json").read_text(encoding="utf-8"))
    log = pd.DataFrame(state["log_history"], columns=_columns(state["log_history"]))
    # The last row is a summary of the training; it is kept where the last steps were not logged.
    return log[log["train_runtime"].isna() | (log["step"].diff() > 0)]


def _columns(history: list[dict]) -> list[str]:
    """Return the columns of a log; a training shorter than ``logging_steps`` has only a summary."""
    names = dict.fromkeys(name for row in history for name in row)
    return list(names | dict.fromkeys(("step", "loss", "train_runtime")))
