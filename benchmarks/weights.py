"""Memory and time to load a model whose weights have n, 2n and 4n MB, and to ask it ten times.

    python benchmarks/weights.py --layers 20 40 80

Models of random weights with more and more layers; each is loaded in a process of its own. "own" is
the peak of its own memory (RssAnon).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

from memory import status


def build(folder: Path, layers: int) -> float:
    """Save a model of the shipped one's form with this many layers; return its MB."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from sgvl.common.paths import NANO_MODEL
    from sgvl.models import loading

    config = AutoConfig.from_pretrained(NANO_MODEL)
    text = config.get_text_config()
    text.layer_types, text.num_hidden_layers = ["full_attention"] * layers, layers
    text.intermediate_size = 8192
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)
    loading.load("nano").processor.save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6


def load(folder: Path) -> dict:
    """Load the judge, ask for its identity ten times, and return what it took."""
    import torch  # noqa: F401, so that it is not measured

    from sgvl.judges import make_judge

    before, done, own = status("RssAnon"), Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.01):
            own.append(status("RssAnon"))

    watcher = Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    judge = make_judge({"kind": "chat", "model": str(folder)})
    loaded = time.perf_counter() - start
    for _ in range(10):
        judge.identity()
    asked = time.perf_counter() - start - loaded
    done.set()
    watcher.join()
    own_mb = round(max(own) - before)
    return {"load s": round(loaded, 1), "10 identities s": round(asked, 2), "own MB": own_mb}


def main() -> None:
    """Print one line for each number of layers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(load(options.folder)))
        return
    print("| weights MB | load s | 10 identities s | own MB |\n| ---: | ---: | ---: | ---: |")
    for layers in options.layers:
        with tempfile.TemporaryDirectory() as folder:
            size = build(Path(folder), layers)
            command = [sys.executable, __file__, "--folder", folder]
            figures = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            print(f"| {size:.0f} |", *(f"{value} |" for value in figures.values()), flush=True)


if __name__ == "__main__":
    main()
