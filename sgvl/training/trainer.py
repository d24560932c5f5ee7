"""What both training stages share: a model to start from, a checkpoint to go on from, the result.

A training run has one folder. ``identity.json`` says what is trained on what and how; checkpoints
of another identity are not gone on from. ``model/`` appears last, whole, and then the run is done:
merged weights and the processor, ready for ``sgvl.models.loading.load``.
"""

import hashlib
import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd

from sgvl.common.errors import InputError, nearest
from sgvl.common.progress import printer
from sgvl.data import store
from sgvl.models import loading

# Linear layers of the language model only: the same names also stand in the vision tower.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def make_config(kind: str, settings: dict, output: Path):
    """TRL's ``SFTConfig`` or ``GRPOConfig`` (``kind`` "sft" or "grpo") from a parameter file.

    On a machine without a GPU the run stays in float32, which makes it repeat bit by bit. Raises
    InputError that names every setting that the installed TRL does not know, or refuses.
    """
    import torch
    import trl

    # TRL sets a setting by the name it had before transformers renamed it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    cls = {"sft": trl.SFTConfig, "grpo": trl.GRPOConfig}[kind]
    unknown = [name for name in settings if name not in cls.__dataclass_fields__]
    if unknown:
        known = cls.__dataclass_fields__
        raise InputError([f"settings: {name!r}: {nearest(name, known)}" for name in unknown])
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    try:
        return cls(output_dir=str(output), **{"disable_tqdm": True, **cpu, **settings})
    except (ValueError, TypeError) as error:
        raise InputError(f"settings: {error}") from None


def lora_config(lora: dict | None):
    """peft's ``LoraConfig`` on the language model's linear layers; None trains every weight."""
    if lora is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**{"target_modules": LORA_TARGETS, "task_type": "CAUSAL_LM", **lora})
    except TypeError as error:
        raise InputError(f"lora: {error}") from None


def train_or_resume(
    trainer_class, config, rows, model: str, folder: Path, facts: dict, lora: dict | None,
    dtype: str, **more,
) -> pd.DataFrame:  # fmt: skip
    """Train once, whatever the stage, and return the log: go on from this run's newest checkpoint,
    or only read back what is finished. ``facts`` are what its identity has beside data and model;
    ``more`` goes to the trainer."""
    claim_folder(
        folder, data=digest(rows), model=loading.digest(model), lora=lora, dtype=dtype, **facts
    )
    if not (folder / "model").exists():
        network, processor, checkpoint = load_start(model, folder, lora, dtype)
        trainer = watched(trainer_class)(
            network,
            args=config,
            train_dataset=rows,
            processing_class=processor,
            peft_config=lora_config(lora),
            **more,
        )
        report_steps(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
        save_merged(trainer, processor, folder)
    return read_log(folder)


def watched(trainer: type) -> type:
    """The trainer's class, stopping at a loss that is not a number: nothing after it can be mended.

    The error names the step and the samples of the batch that brought it about.
    """
    import torch

    class Watched(trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if hasattr(trainer, "_generate_and_score_completions"):
                return  # GRPO makes its batches there, not in the collator
            self._set_signature_columns_if_needed()
            self._signature_columns.append("id")  # or the trainer drops it before the collator
            collate = self.data_collator
            self.data_collator = lambda rows: {**collate(rows), "id": [row["id"] for row in rows]}

        def _generate_and_score_completions(self, rows):
            batch = super()._generate_and_score_completions(rows)
            return {**batch, "id": [row["id"] for row in rows]}

        def compute_loss(self, model, inputs, *args, **kwargs):
            ids = inputs.pop("id")
            found = super().compute_loss(model, inputs, *args, **kwargs)
            loss = found[0] if isinstance(found, tuple) else found
            if not torch.isfinite(loss):
                samples = ", ".join(dict.fromkeys(ids))
                raise FloatingPointError(
                    f"loss {loss.item()} at step {self.state.global_step + 1}, in {samples}"
                )
            return found

    return Watched


def report_steps(trainer) -> None:
    """Say each minute how many steps are done, in place of every line of the log, which is kept."""
    from transformers import PrinterCallback, TrainerCallback

    class Steps(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.before, self.say = state.global_step, printer(every=60)

        def on_step_end(self, args, state, control, **_):
            if state.is_world_process_zero:
                self.say(state.global_step - self.before, state.max_steps - self.before)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Steps)


def claim_folder(folder: Path, **facts) -> None:
    """Make ``folder`` the run of these facts: what another run left in it is removed."""
    from accelerate import PartialState

    text = json.dumps(facts, sort_keys=True, indent=1, default=str)
    file = folder / "identity.json"
    with PartialState().main_process_first():
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            return
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")


def digest(rows) -> str:
    """sha256 of the texts and pictures of training rows (a ``datasets.Dataset``), in order."""
    found = hashlib.sha256()
    for row in store.without_decoding(rows) if "image" in rows.features else rows:
        picture = row.pop("image", None) or {}
        found.update(json.dumps(row, sort_keys=True, default=str).encode())
        found.update(picture.get("bytes") or str(picture.get("path")).encode())
    return found.hexdigest()


def load_start(model: str, folder: Path, lora: dict | None, dtype: str = "float32"):
    """Network, processor, and the newest checkpoint of this run or None.

    All weights of a checkpoint are loaded here, not by the trainer: it looks for them under names
    that Qwen2.5-VL's files do not have, and would go on from the first weights without a word.
    The vision tower is frozen, as in the released recipe.
    """
    checkpoint = newest_checkpoint(folder)
    source = checkpoint if checkpoint and lora is None else model
    network, processor = loading.load(source, dtype=dtype)
    network.train()
    # The reference of GRPO is loaded by this name, also when the weights are a checkpoint's.
    network.config._name_or_path = loading.resolve(model)
    network.model.visual.requires_grad_(False)
    return network, processor, checkpoint


def newest_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole. A kill while one is saved leaves a part of it, which the
    trainer would take for the newest; its own state is what it saves last."""
    whole = []
    for file in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            whole.append((json.loads(file.read_text(encoding="utf-8"))["global_step"], file.parent))
    return str(max(whole)[1]) if whole else None


def save_merged(trainer, processor, folder: Path) -> None:
    """Save the trained weights, adapters merged, with their processor, by rename."""
    fresh = folder / "model.new"
    network = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(network, "merge_and_unload"):
        trainer.save_model(str(fresh))  # gathers the shards of ZeRO-3
    elif trainer.is_world_process_zero():
        network.merge_and_unload().save_pretrained(fresh)
    if trainer.is_world_process_zero():
        processor.save_pretrained(fresh)
        trainer.state.save_to_json(str(fresh / "trainer_state.json"))
        fresh.rename(folder / "model")
    trainer.accelerator.wait_for_everyone()


def read_log(folder: Path) -> pd.DataFrame:
    """The trainer's log of a finished run, one row a logging step."""
    state = json.loads((folder / "model" / "trainer_state.json").read_text(encoding="utf-8"))
    log = pd.DataFrame(state["log_history"])
    return log[log["step"].diff().fillna(1) > 0]  # the last row sums up
