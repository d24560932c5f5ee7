"""Work that is killed at random and goes on, compared with the same work undisturbed.

    python tests/faults/killing.py sft /tmp/kills --kills 20 --seed 1

kills 20 times, prints the counts and ends with exit code 1 if a file differs. A round is an empty
folder, one to three kills of the work in it, each after a random part of the time that the whole
takes or a few milliseconds after the next change of its files, and then the work to its end. All
rounds have one path, which is in the identity of a judge whose model lies there.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.common.files import sha256

TESTS = Path(__file__).parents[1]
SETTINGS = {
    "per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_steps": 4, "save_steps": 1,
    "logging_steps": 1, "save_total_limit": 2, "report_to": "none",
}  # fmt: skip


class Work(NamedTuple):
    """Something to kill."""

    start: Callable[[Path], int]  # in a folder; returns the id of the process that leads a session
    results: Callable[[Path], dict[str, object]]  # what must be equal at the end, by name
    counts: Callable[[Path], Counter] = lambda folder: Counter()  # requests so far, say


def forked(work: Callable[[Path], object]) -> Callable[[Path], int]:
    """Start work in a copy of this process, which has imported everything."""

    def start(folder: Path) -> int:
        child = os.fork()
        if child:
            return child
        os.setsid()
        code = 1
        try:
            os.dup2(os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            work(folder)
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    return start


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the digest of every file that a pattern matches."""
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return {str(file.relative_to(folder)): sha256(file) for file in files if file.is_file()}


def timeless(table: pd.DataFrame) -> str:
    """Return a training's log, or the table of judges, without times and what starts anew."""
    # Answers whose asking was timed are counted, too; TRL counts tokens from the last start on.
    timed = ("time", "second", "requests", "num_tokens")
    return table[[name for name in table if not any(part in name for part in timed)]].to_csv()


class Near(list):
    """Probabilities that are equal to others if they are so in four digits."""

    def __eq__(self, others):
        same_length = len(self) == len(others)
        return same_length and np.allclose(self, others, rtol=1e-4, atol=0, equal_nan=True)


def answers_of(file: Path) -> pd.DataFrame:
    """Return the rows of a table or of a file of answers; none of any other file."""
    if file.suffix == ".csv":
        return pd.read_csv(file)
    return pd.read_json(file, lines=True) if file.parent.name == "answers" else pd.DataFrame()


# -- a training ------------------------------------------------------------------------------------


def training(stage: str) -> Work:
    from sgvl.training import grpo, sft, trainer
    from sgvl.world import sets
    from sgvl.world.scenes import describe

    if stage == "sft":
        rows = sets.sft_images(seed=0, images=8)
        rows = rows.add_column("recaption", [describe(tags) for tags in rows["tags"]])
        rows, settings = sft.captions(rows, "recaption"), SETTINGS | {"max_length": None}
        work = lambda folder: sft.train(rows, "nano", folder / "work", settings)  # noqa: E731
    else:
        rows = grpo.conditioned(sets.llavaguard(seed=0, images=4))
        sampling = {"num_generations": 4, "max_completion_length": 20, "beta": 0.01}
        settings = SETTINGS | sampling
        work = lambda folder: grpo.train(rows, "nano", folder / "work", settings)  # noqa: E731

    def results(folder: Path) -> dict[str, object]:
        folder = folder / "work"
        found = digests(folder, "model/*.safetensors", "model/*.json", "identity.json")
        found.pop("model/trainer_state.json")  # holds times
        found["log"] = timeless(trainer.read_log(folder))
        if stage == "grpo":
            found["rollouts"] = grpo.rollouts(folder).to_csv()
        return found

    return Work(forked(work), results)


# -- captions and recaptions -----------------------------------------------------------------------


def recaptioning() -> Work:
    from sgvl import recaption
    from sgvl.data import store
    from sgvl.world import sets

    pictures = sets.sft_images(seed=0, images=24)

    def work(folder: Path) -> None:
        items = recaption.items(pictures)
        first = {"kind": "chat", "model": "nano", "max_tokens": 20, "batch_size": 4}
        step1 = recaption.make_captioner({**first, "prompt": "caption"})
        captions = recaption.caption_all(step1, items, folder / "caption.jsonl")
        items, answers = recaption.with_captions(items, captions), []
        for kind in ({"kind": "exact", "prompt": "minimal_edit"}, {**first, "prompt": "rewrite"}):
            step2 = recaption.make_captioner(kind)
            path = folder / f"{step2.prompt}.jsonl"
            answers.append((step2, recaption.caption_all(step2, items, path)))
        store.save({"captions": recaption.to_dataset(pictures, items, answers)}, folder, seed=0)

    return Work(forked(work), lambda folder: digests(folder, "*.jsonl", "*.parquet", "*.json"))


# -- assessing and editing -------------------------------------------------------------------------


def editing() -> Work:
    from sgvl import editing, recaption
    from sgvl.data import store
    from sgvl.world import sets

    rows = {"llavaguard": sets.llavaguard(seed=0, images=24)}
    pictures, items, _ = recaption.distinct(rows)
    pictures = editing.with_origin(pictures, rows)

    def work(folder: Path) -> None:
        assess, _ = editing.make_assessors({"kind": "rationale", "batch_size": 4})
        editor = editing.make_editor("local")
        assessed = editing.assess_all(assess, items, folder / "assess.jsonl")
        todo = editing.with_instructions(items, assessed)
        edits = editing.edit_all(editor, todo, folder)
        pairs = editing.make_pairs(todo, edits, editing.make_bounds({}))
        made = editing.to_dataset(pictures, pairs, editor.name, assess.name)
        store.save({"made": made}, folder, seed=0)

    patterns = "*.jsonl", "edits/*", "*.parquet", "*.json"
    return Work(forked(work), lambda folder: digests(folder, *patterns))


# -- pictures from the web -------------------------------------------------------------------------

HOSTS, EACH = 4, 12


class Handler(BaseHTTPRequestHandler):
    """Serves pictures, and in between what is missing or no picture; notes each request."""

    def do_GET(self):
        import io

        from PIL import Image

        folder, number = self.path.strip("/").rsplit("/", 1)
        with open(f"/{folder}/requests.txt", "a") as notes:
            notes.write(f"{self.server.server_port}/{number}\n")
        time.sleep(0.01)
        picture = io.BytesIO()
        Image.effect_mandelbrot((200, 200), (-2, -1, 1, 1), 2 + int(number)).save(picture, "PNG")
        content = b"<html>" if int(number) % 5 == 4 else picture.getvalue()
        self.send_response(404 if int(number) % 5 == 3 else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def fetching() -> Work:
    from sgvl.data.sources import fetch

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(HOSTS)]
    for server in servers:  # each in a process of its own, which ends with this one
        parent = os.getpid()
        if not os.fork():
            import threading

            threading.Thread(target=server.serve_forever, daemon=True).start()
            while os.getppid() == parent:
                time.sleep(0.2)
            os._exit(0)
    hosts = [f"http://127.0.0.1:{server.server_port}" for server in servers]

    def work(folder: Path) -> None:
        urls = [f"{host}{folder}/{number}" for number in range(EACH) for host in hosts]
        fetched = fetch.fetch_all(urls, folder / "work", pause=0.01, private=True)
        statuses = {f"{url[-2:]}": result.status for url, result in fetched.items()}
        (folder / "statuses.json").write_text(json.dumps(statuses))

    def results(folder: Path) -> dict[str, object]:
        # The name of a file is the digest of a URL that holds the folder, so contents are compared.
        files = [file for file in (folder / "work").iterdir() if file.suffix != ".json"]
        contents = sorted(map(sha256, files))
        return {"pictures": contents, "statuses": (folder / "statuses.json").read_text()}

    def counts(folder: Path) -> Counter:
        notes = folder / "requests.txt"
        lines = notes.read_text().split() if notes.exists() else []
        return Counter(requests=len(lines), repeated=len(lines) - len(set(lines)))

    return Work(forked(work), results, counts)


# -- the whole series ------------------------------------------------------------------------------

JUDGES = """\
judges:
  - {kind: always_unsafe}
  - {kind: chat, id: base, model: nano}
  - {kind: chat, id: sft, model: runs/tiny/training/03_sft.recap/model, with_p_unsafe: false}
  - {kind: chat, id: full, model: runs/tiny/training/04_grpo.full/model, with_p_unsafe: false}
  - {kind: rule}
"""
SFT = {
    "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.0001, "logging_steps": 1,
    "save_steps": 2, "max_length": None,
}  # fmt: skip
GRPO = {
    "max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "logging_steps": 1,
    "max_completion_length": 60, "learning_rate": 0.0001, "save_steps": 1,
}  # fmt: skip
TINY = {
    "01_data": "unsafebench_per_category: 1\nllavaguard_images: 11\nllavaguard_test_images: 2\n"
    "following_images: 14\nsft_images: 8\ngeneral_per_task: 1\n",
    "02_recaption": "",
    "03_sft.recap": f"variant: recap\npictures: 4\nsettings: {json.dumps(SFT)}\n",
    "03_sft.L1": f"variant: L1\npictures: 4\nsettings: {json.dumps(SFT)}\n",
    "04_grpo.full": "variant: full\nmodel: runs/tiny/training/03_sft.recap/model\n"
    f"settings: {json.dumps(GRPO)}\n",
    "05_benchmark": f"{JUDGES}pairs: 14\nrows: 4\nsingle: 2\nresamples: 100\n",
    "06_ablations": "benchmark_profile: tiny\njudges: [base, sft, full]\nresamples: 100\n",
}


def series(jobs: int = 2) -> Work:
    """Notebooks 01 to 06 of a profile of the smallest sizes, by the runner, several at a time."""

    def start(folder: Path) -> int:
        if not (folder / "params").exists():
            shutil.copytree(TESTS.parent / "notebooks", folder / "notebooks")
            (folder / "params" / "tiny").mkdir(parents=True)
            for unit, text in TINY.items():
                data = "" if unit[:2] in ("01", "06") else "data_profile: tiny\n"
                parameters = f"profile: tiny\n{data}{text}"
                (folder / "params" / "tiny" / f"{unit}.yaml").write_text(parameters)
        own = {"SGVL_ROOT": str(folder), "PYTHONPATH": str(TESTS.parent), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "sgvl.run", "tiny", "--jobs", str(jobs)]
        with open(folder / "output.log", "a") as log:
            return subprocess.Popen(
                command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
            ).pid

    def results(folder: Path) -> dict[str, object]:
        run = folder / "runs" / "tiny"
        receipts = {unit: json.loads((run / f"{unit}.json").read_text()) for unit in TINY}
        outputs = {unit: receipt["outputs"].items() for unit, receipt in receipts.items()}
        found = {f: output["sha256"] for files in outputs.values() for f, output in files}
        for file in [*run.glob("training/*/log.csv"), run / "benchmark" / "judges.csv"]:
            found[str(file.relative_to(run))] = timeless(pd.read_csv(file))
        found |= digests(run, "**/answers/*.jsonl", "recaption/*.jsonl", "**/identity.json")
        for name in found:  # of a reply drafted from other earlier ones, the last digits differ
            table = answers_of(run / name)
            numbers = set(table.select_dtypes("number"))
            for column in {"p_unsafe", "change"} & numbers:  # the change of P(unsafe)
                found[name] = table.drop(columns=column).to_csv(), Near(table[column])
        return found

    def counts(folder: Path) -> Counter:
        lines = (folder / "output.log").read_text().splitlines()
        return Counter(units_started=sum(line.endswith(" ...") for line in lines))

    return Work(start, results, counts)


WORKS = {
    "sft": lambda: training("sft"), "grpo": lambda: training("grpo"), "fetch": fetching,
    "recaption": recaptioning, "edit": editing, "series": series,
}  # fmt: skip


# -- killing ---------------------------------------------------------------------------------------


def wait_for_change(folder: Path, pid: int, seconds: float) -> bool:
    """Wait until a file comes, goes or grows; False if the process or the time ends before."""

    def seen():
        files = [file for file in folder.rglob("*") if file.name != "output.log"]
        sizes = []
        for file in files:
            try:
                sizes.append((file.name, file.stat().st_size))
            except OSError:  # renamed in this instant
                sizes.append((file.name, -1))
        return sizes

    before, end = seen(), time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        if seen() != before:
            return True
        time.sleep(0.002)
    return True


def run(work: Work, folder: Path) -> float:
    """Do the work to its end, and return the seconds that it took."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    _, status = os.waitpid(work.start(folder), 0)
    assert status == 0, f"{folder}: exit {status}\n{(folder / 'output.log').read_text()[-3000:]}"
    return time.monotonic() - begun


def kill_once(work: Work, folder: Path, dice: random.Random, whole: float) -> bool:
    """Start the work and kill it; False if it ended before."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = work.start(folder)
    time.sleep(dice.uniform(0, whole))
    if dice.random() < 0.5 and wait_for_change(folder, pid, whole):
        time.sleep(dice.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


def drive(name: str, folder: Path, kills: int, seed: int) -> dict:
    """Kill a work at random until ``kills`` have hit, and compare every round with the whole."""
    work, dice = WORKS[name](), random.Random(seed)
    place = folder / "run"
    seconds = run(work, place)
    expected, usual = work.results(place), work.counts(place)
    total, rounds, differing, most = 0, 0, {}, Counter()
    place.rename(folder / "whole")
    while total < kills:
        rounds += 1
        of_this = 0
        for _ in range(min(dice.randint(1, 3), kills - total)):
            of_this += kill_once(work, place, dice, seconds)
        run(work, place)
        total += of_this
        found = work.results(place)
        names = [n for n in expected | found if expected.get(n) != found.get(n)]
        most |= work.counts(place) - usual
        if names:
            differing[f"round{rounds}"] = names
            place.rename(folder / f"round{rounds}")
        else:
            shutil.rmtree(place)
    counts = {"work": name, "kills": total, "rounds": rounds, "seconds of one": round(seconds, 1)}
    return counts | {"differing": differing, "files": len(expected), "most more": dict(most)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("folder", type=Path, help="new, to work in")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = drive(options.work, options.folder.resolve(), options.kills, options.seed)
    print(json.dumps(found))
    sys.exit(bool(found["differing"]))
