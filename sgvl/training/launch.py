"""Training in one process or in several, one a GPU; several are started outside the notebook.

A kernel that has touched CUDA cannot fork itself into ranks, and DeepSpeed wants to start its own.
So the rows and the job are written down, a launcher is called, and its log is kept.
"""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, nearest
from sgvl.training import grpo, sft, trainer

STAGES = {"sft": sft.train, "grpo": grpo.train}


def train(stage: str, rows: Dataset, processes: int = 1, layout: str = "ddp", **job):
    """Train a stage (``"sft"`` or ``"grpo"``) and return its log; ``job`` are its arguments.

    ``layout`` is ``"ddp"`` (torch's own launcher, also on CPUs) or one of the accelerate
    configurations that TRL ships, such as ``"zero3"``. Raises RuntimeError with the last error of
    the log if a process fails.
    """
    if processes == 1:
        return STAGES[stage](rows, **job)
    starter = command(processes, layout)
    folder = Path(job["folder"])
    place = folder.with_name(f"{folder.name}.job")
    place.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(place / "rows.parquet")
    written = json.dumps({"stage": stage, **job, "folder": str(folder)})
    (place / "job.json").write_text(written, encoding="utf-8")
    with open(place / "log.txt", "a", encoding="utf-8") as log:
        run = [sys.executable, *starter, "-m", "sgvl.training.launch", str(place)]
        code = subprocess.run(run, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        said = (place / "log.txt").read_text(encoding="utf-8")
        errors = re.findall(r"^(?:\[rank\d+\]: )?([\w.]+Error: .*)$", said, re.MULTILINE)
        reason = errors[-1] if errors else "no error was logged"
        raise RuntimeError(f"{stage} ended with exit code {code}: {reason}; see {place}/log.txt")
    return trainer.read_log(folder)


def command(processes: int, layout: str) -> list[str]:
    """The launcher's arguments to python, up to the module that it starts."""
    if layout == "ddp":
        return ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    configs = {Path(str(f)).stem: str(f) for f in files("trl.accelerate_configs").iterdir()}
    layouts = [name for name, file in configs.items() if file.endswith(".yaml")]
    if layout not in layouts:
        raise InputError(f"layout {layout!r}: {nearest(layout, ['ddp', *sorted(layouts)])}")
    return ["-m", "accelerate.commands.launch", "--config_file", configs[layout],
            "--num_processes", str(processes)]  # fmt: skip


def rank(place: Path) -> pd.DataFrame:
    """One process of a job that ``train`` has written down."""
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    rows = Dataset.from_parquet(str(place / "rows.parquet"))
    return STAGES[job.pop("stage")](rows, **job | {"folder": Path(job["folder"])})


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
