"""Memory and time for n, 2n and 4n photographs: from a folder to the store, judging, training rows.

    python benchmarks/memory.py --pictures 550 1100 2200

Draws JPEG files of about 1 MB each and runs each step in a process of its own. "own" is the peak
of its own memory (RssAnon). "all" adds the pages of files that the system has mapped into it
(VmHWM), which it takes back when it needs them.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

SIDE = 1150  # pixels: noise of this size makes a JPEG of about 1 MB


def draw(folder: Path, pictures: int) -> float:
    """Write the pictures that are not there yet and their labels; return the MB of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(pictures):
        file = folder / f"{k}.jpg"
        if not file.exists():
            noise = np.random.default_rng(k).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(noise).save(file, quality=85)
    rows = [f"{k}.jpg,{'unsafe' if k % 2 else 'safe'}\n" for k in range(pictures)]
    (folder / f"labels{pictures}.csv").write_text("image,label\n" + "".join(rows))
    return (folder / "0.jpg").stat().st_size / 1e6


def store_step(folder: Path, pictures: int) -> None:
    """Load the folder as a source and save it."""
    from sgvl.data import store
    from sgvl.data.sources import load_source

    spec = {"kind": "folder", "path": str(folder), "policies": ["L4"]}
    rows = load_source(spec | {"labels": str(folder / f"labels{pictures}.csv")})
    store.save({"own": rows}, folder / f"saved{pictures}", seed=0)


def judge_step(folder: Path, pictures: int) -> None:
    """Ask a judge that needs no model about every saved picture."""
    from sgvl.data import store
    from sgvl.judges import ask_all, make_judge

    rows = store.read("own", folder / f"saved{pictures}")
    with tempfile.TemporaryDirectory() as answers:
        ask_all(make_judge("always_unsafe"), store.policy_cases(rows), answers)


def train_step(folder: Path, pictures: int) -> None:
    """Make training rows of the saved pictures, and their digest."""
    from sgvl.data import store
    from sgvl.training import grpo, trainer

    rows = store.read("own", folder / f"saved{pictures}")
    trainer.digest(grpo.conditioned(rows))


STEPS = {"store": store_step, "judge": judge_step, "train": train_step}


def status(name: str) -> float:
    """Return a field of this process's memory in MB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1e3


def measure(step: str, folder: Path, pictures: int) -> dict:
    """Run one step in this process and return its seconds and the peaks of its memory."""
    done, own = Event(), [status("RssAnon")]

    def watch() -> None:
        while not done.wait(0.02):
            own.append(status("RssAnon"))

    watcher = Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    STEPS[step](folder, pictures)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": round(seconds, 1), "own": round(max(own)), "all": round(status("VmHWM"))}


def main() -> None:
    """Print one line for each step and number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[550, 1100, 2200])
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.folder, options.pictures[0])))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        size = draw(folder, max(options.pictures))
        print(f"pictures of {size:.1f} MB\n| step | pictures | seconds | own MB | all MB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for step in STEPS:
            for pictures in options.pictures:
                draw(folder, pictures)
                arguments = ["--step", step, "--folder", str(folder), "--pictures", str(pictures)]
                out = subprocess.check_output([sys.executable, __file__, *arguments], text=True)
                figures = json.loads(out.splitlines()[-1])
                print(f"| {step} | {pictures} |", *(f"{v} |" for v in figures.values()), flush=True)


if __name__ == "__main__":
    main()
