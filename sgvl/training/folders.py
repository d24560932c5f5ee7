"""The folder of a training: who may work in it, what is finished, and which checkpoints are whole.

``identity.json`` in it holds the facts of the training: data, model, and settings; files that a
training of other facts left there are removed. ``model/`` is written last, by rename: a training
whose folder has it is finished. A training of other facts than a finished one works beside it, in
``<folder>.replacement``, and takes its place when it is finished itself.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from sgvl.common import files

BESIDE = ".replacement"  # after a folder's name: a training that will replace a finished one

# Fields of settings that change no weight: what is logged, shown and kept.
ONLY_LOGS = {
    "disable_tqdm", "log_completions", "log_completions_hub_repo", "log_level",
    "log_level_replica", "log_multimodal", "log_on_each_node", "log_unique_prompts",
    "logging_first_step", "logging_nan_inf_filter", "logging_steps", "logging_strategy",
    "num_completions_to_print", "report_to", "run_name", "save_on_each_node", "save_steps",
    "save_strategy", "save_total_limit", "skip_memory_metrics", "trackio_bucket_id",
    "trackio_space_id", "trackio_static_space_id",
}  # fmt: skip


def claim(folder: Path, **facts) -> Path:
    """Return the folder in which a training of these facts works, is finished or continues.

    Another training is removed from it, unless it is finished. ``facts`` are in its identity.json;
    settings that only log are stored there and not compared.
    """
    from accelerate import PartialState

    text = json.dumps(facts, sort_keys=True, indent=1, default=str)
    with PartialState().main_process_first():
        place = workplace(folder)
        place = folder if _is_of(folder, text) else place
        if not _is_of(place, text):
            if place.exists():
                shutil.rmtree(place)
            place.mkdir(parents=True)
            files.write(place / "identity.json", text)
        elif place != folder and (place / "model").exists():  # killed before ``replace``
            replace(folder, place)
            place = folder
    return place


def workplace(folder: Path) -> Path:
    """Return where a training of ``folder`` works: beside it, if a finished one is in it."""
    beside = folder.with_name(folder.name + BESIDE)
    if not folder.exists() and (beside / "model").exists():
        with suppress(FileNotFoundError):  # of several processes, one renames it
            beside.rename(folder)  # killed in ``replace``
    return beside if (folder / "model").exists() else folder


def _is_of(folder: Path, identity: str) -> bool:
    file = folder / "identity.json"
    return file.is_file() and _deciding(file.read_text(encoding="utf-8")) == _deciding(identity)


def _deciding(identity: str) -> dict | None:
    """Return the facts of an identity.json that decide the weights; None if it is damaged."""
    with suppress(ValueError, TypeError, AttributeError):
        facts = json.loads(identity)
        settings = facts.get("settings", {}).items()
        return facts | {"settings": {name: v for name, v in settings if name not in ONLY_LOGS}}
    return None


def replace(folder: Path, new: Path) -> None:
    """Put a finished training into the place of an earlier one."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> str | None:
    """Return the path of the newest complete checkpoint in ``folder``, None if there is none."""
    complete = checkpoints(folder)
    return str(complete[max(complete)]) if complete else None


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the complete checkpoints in ``folder`` by their step, in order.

    A process killed while it saves leaves an incomplete one, which the trainer would take for the
    newest. The state of the trainer is the file that it writes last.
    """
    complete = {}
    for file in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            complete[_state(file.parent)["global_step"]] = file.parent
    return dict(sorted(complete.items()))


def all_steps_done(checkpoint: str | Path) -> bool:
    """Check whether a checkpoint was saved after the last step of its training."""
    state = _state(checkpoint)
    return state["global_step"] >= state["max_steps"]


def _state(checkpoint: str | Path) -> dict:
    file = Path(checkpoint) / "trainer_state.json"
    return json.loads(file.read_text(encoding="utf-8"))
