"""Training in one process, or in several that a launcher starts outside the notebook.

A kernel that has used CUDA cannot fork itself into the processes of a job, and DeepSpeed has to
start its own. So rows and arguments are written to files, a launcher is called, and its log is
kept.
"""

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pandas as pd
from datasets import Dataset

from sgvl.common import files, process_group
from sgvl.common.errors import InputError, nearest
from sgvl.data import arrow
from sgvl.training import grpo, sft, trainer

STAGES = {"sft": sft.train, "grpo": grpo.train}

PROGRESS = re.compile(rb"\d+ of \d+, \d+ s, about ")  # as ``common.progress`` prints it
# The last error of a log, without the one in which a launcher reports that a process failed.
ERROR = re.compile(
    r"^(?:\[rank\d+\]: )?(?!torch|subprocess)([\w.]+(?:Error|Fault): .+)$", re.MULTILINE
)


def train(
    stage: str, rows: Dataset, processes: int = 1, layout: str = "ddp", **job
) -> pd.DataFrame:
    """Train a stage in one process or in several, and return the log.

    Parameters
    ----------
    stage : "sft" or "grpo"
    layout : "ddp" for torch's launcher, which works on CPUs too, or the name of an accelerate
        configuration that TRL ships, such as "zero3"
    job : the arguments of ``sft.train`` or ``grpo.train`` beside the rows

    Raises
    ------
    InputError
        For an unknown layout.
    RuntimeError
        If a process fails, with the last error in the log.
    """
    if processes == 1:
        return STAGES[stage](rows, **job)
    launcher = command(processes, layout, job["settings"])
    folder = Path(job["folder"])
    job_folder = folder.with_name(f"{folder.name}.job")
    job_folder.mkdir(parents=True, exist_ok=True)
    with files.replaced(job_folder / "rows.parquet") as part:
        arrow.fold(rows).to_parquet(part)
    arguments = json.dumps({"stage": stage, **job, "folder": str(folder)})
    files.write(job_folder / "job.json", arguments)
    log = job_folder / "log.txt"
    before = log.stat().st_size if log.exists() else 0  # earlier runs wrote that
    with files.writing(log):
        run = [sys.executable, *launcher, "-m", "sgvl.training.launch", str(job_folder)]
        code = _run(run, log)
        if code:
            errors = ERROR.findall(log.read_bytes()[before:].decode("utf-8", "replace"))
            reason = errors[-1] if errors else "no error was logged"
            raise RuntimeError(f"{stage} ended with exit code {code}: {reason}; see {log}")
    return trainer.read_log(folder)


def _run(command: list[str], file: Path) -> int:
    """Run a command to its end, and return its exit code; its group ends with this process.

    What it prints goes to ``file``, and its lines of progress are printed here, too.
    """
    job = process_group.start(command, subprocess.PIPE)
    try:
        with file.open("ab") as log:
            for line in job.stdout:
                log.write(line)
                log.flush()
                if PROGRESS.match(line):
                    print(line.decode(), end="", flush=True)
        return job.wait()
    finally:
        process_group.end(job)


def command(processes: int, layout: str, settings: dict) -> list[str]:
    """Return the arguments that make python call the launcher of a layout, up to the module.

    Every configuration of TRL says bf16, which would hold against ``bf16: false`` in the settings.
    """
    if layout == "ddp":
        return ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    import torch

    half = settings.get("bf16", True) and torch.cuda.is_available()  # as ``trainer.make_config``
    precision = "bf16" if half else "no"
    shipped = resources.files("trl.accelerate_configs").iterdir()
    configs = {Path(str(file)).stem: str(file) for file in shipped}
    layouts = [name for name, file in configs.items() if file.endswith(".yaml")]
    if layout not in layouts:
        raise InputError(f"layout {layout!r}: {nearest(layout, ['ddp', *sorted(layouts)])}")
    return ["-m", "accelerate.commands.launch", "--config_file", configs[layout],
            "--num_processes", str(processes), "--mixed_precision", precision]  # fmt: skip


def train_rank(job_folder: Path) -> None:
    """Train as one process of the job that ``train`` has written to ``job_folder``."""
    job = json.loads((job_folder / "job.json").read_text(encoding="utf-8"))
    file = job_folder / "rows.parquet"
    rows = arrow.open_parquet(file, files.sha256(file))
    STAGES[job.pop("stage")](rows, **job | {"folder": Path(job["folder"])})


if __name__ == "__main__":
    train_rank(Path(sys.argv[1]))
