"""Every writer of the package, on a disk without room: ``python writers.py DISK OUT``.

Each writer is called on the full disk ``DISK``, there again once it has room, and elsewhere.
``OUT/found.json`` says of each what the first call raised and left, and whether the second wrote
the same bytes as the third.
"""

import io
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from datasets import Dataset
from PIL import Image

from sgvl.common import files
from sgvl.data import store
from sgvl.data.sources.fetch import fetch_all
from sgvl.experiments import benchmark_files
from sgvl.judges.records import Records
from sgvl.nano import recipe
from sgvl.report import figures, tables
from sgvl.report.artefacts import Artefacts
from sgvl.training import folders

FRAME = pd.DataFrame({"judge": ["a"] * 3000, "score": range(3000)})


def data_sets(folder):
    store.save({"drawn": Dataset.from_dict({"id": [str(i) for i in range(5000)]})}, folder, 0)


def records(folder):
    with Records(folder / "judge.jsonl", {}, ["reply"]) as stored:
        stored.append({"key": str(i), "id": f"{i}", "reply": "x" * 200} for i in range(100))


def torn_records(folder):
    torn = folder / "judge.jsonl"
    if not torn.exists():
        torn.write_text("x" * 9000)
    with Records(folder / "judge.jsonl", {}, ["reply"]):
        pass


def table(folder):
    tables.write_table(FRAME, folder, "table", "caption", "note")


def figure(folder):
    drawing, axes = plt.subplots()
    axes.plot(FRAME["score"])
    figures.save(drawing, "figure", FRAME, folder)


def artefacts(folder):
    made = Artefacts("no_such_run", "07_figures")  # it removes the manifest of its run
    made.folder, made._manifest = folder, folder / "07_figures.json"
    made.finish()


def answers(folder):
    benchmark_files.write(benchmark_files.Panel(FRAME, {"levels": FRAME}), folder)


class Handler(BaseHTTPRequestHandler):
    """Serves one picture."""

    def do_GET(self):
        picture = io.BytesIO()
        Image.linear_gradient("L").save(picture, "PNG", compress_level=0)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(picture.getvalue())

    def log_message(self, *_):
        pass


SERVER = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def fetched(folder):
    fetch_all([f"http://127.0.0.1:{SERVER.server_port}/a.png"], folder, private=True, pause=0)


def checkpoint(folder):
    torch.manual_seed(0)
    model = torch.nn.Linear(100, 100)
    optimiser, schedule = recipe.optimiser_of(model.parameters(), 1.0, 1, 4)
    recipe.Checkpoint(folder / "state.pt", model, optimiser, schedule).save(1)


def log(folder):
    recipe.log(folder, loss=0.5)


def identity(folder):
    folders.claim(folder / "03_sft", settings={"seed": 0})


WRITERS = (
    data_sets, records, torn_records, table, figure, artefacts, answers, fetched, checkpoint, log,
    identity,
)  # fmt: skip


def fill(folder: Path, what: str) -> list[Path]:
    """Leave no room for bytes, or for files, on a disk; returns what fills it."""
    fillers = []
    try:
        while True:
            filler = folder / f"filler{len(fillers)}"
            with filler.open("wb", buffering=0) as file:
                fillers.append(filler)
                while what == "bytes":
                    file.write(bytes(4096))
    except OSError:
        return fillers


def written(folder: Path) -> dict[str, str]:
    """The digests of the files below a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): files.sha256(path) for path in paths}


def try_out(writer: Callable, what: str, disk: Path, elsewhere: Path) -> dict:
    for folder in (disk, elsewhere):
        folder.mkdir()
    if writer is torn_records:
        (disk / "judge.jsonl").write_text("x" * 9000)
    fillers = fill(disk.parent, what)
    try:
        writer(disk)
        said = "nothing"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    left = list(written(disk))
    for filler in fillers:
        filler.unlink()
    writer(disk)
    writer(elsewhere)
    return {"said": said, "left": left, "same": written(disk) == written(elsewhere)}


def main(disk: Path, out: Path) -> None:
    threading.Thread(target=SERVER.serve_forever, daemon=True).start()
    found = {}
    for what in ("bytes", "files"):
        for writer in WRITERS:
            name = f"{writer.__name__}, no room for {what}"
            found[name] = try_out(writer, what, disk / name, out / name)
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
