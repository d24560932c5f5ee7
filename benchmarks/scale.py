"""What judging and captioning take, from one machine to a service of a billion pictures a day.

    python benchmarks/scale.py > docs/SCALE.md

GPU times are computed by the formulas of the plan (``sgvl/run/planning/costs.py``). Decoding and
storing are measured here, on one core of the machine that writes the page.
"""

import io
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from sgvl.data import Sample
from sgvl.data.images import image_digest, load_image
from sgvl.judges import Judge, Judgement, ask_all, under
from sgvl.judges.records import Records
from sgvl.policies.policy import load_all
from sgvl.run.planning import CAPTION, POLICY, WORD, costs
from sgvl.run.planning.machine import kinds
from sgvl.run.planning.models import size_of

MODEL, RECAPTIONER, GPU = "Qwen/Qwen2.5-VL-7B-Instruct", "google/gemma-3-27b-it", "H100"
BATCH = 128  # requests that a server has at a time, as in params/paper
SIDE = 900  # pixels of a picture's side: 1,000 tokens in Qwen's models
DAY = 86_400  # seconds
CLUSTER, PICTURES = 64, 100_000  # GPUs of the cluster; pictures of stage 1
FEW = 20_000  # pictures, beside PICTURES, of which memory is measured
BILLION = 1_000_000_000  # pictures a day

PAGE = """\
# From one machine to a billion pictures a day

Written by `python benchmarks/scale.py`. Times of GPUs are *computed* for the {gpu} by the plan's
formulas (`docs/GPU.md`: within a factor of 2.5 of what others have measured); none of this was run
on a GPU. Decoding and storing are *measured*, on one core of the machine that wrote this page.

| a picture of {side} x {side} pixels | | |
| --- | ---: | --- |
| verdict of a 7B judge under one policy, in one word | {one} ms of a GPU | computed |
| under five policies, the picture read once | {five} ms of a GPU | computed |
| caption (7B) and minimal edit (27B) | {caption} ms of a GPU | computed |
| decoding a JPEG of {kb} kB, and the digest of its pixels | {decode} ms of a core | measured |
| storing an answer, {batch} in a write that is on the disk | {store} ms | measured |
| reading an answer again at the next start | {read} ms of a core | measured |
| an answer in its file | {bytes} bytes | measured |
| most memory of a process, {few} verdicts | {mb_few} MB | measured |
| the same, {pictures} verdicts | {mb_many} MB | measured |
| an item more, of which its answer takes none | {item} bytes of memory | measured |

With an engine that answers at once, 100,000 captions, and as many verdicts, by three workers of
which one is killed, then by two, are asked for once each, but for the batch that was cut; five
times as many take at most six times as long, and an item at most 100 bytes of memory
(`tests/test_scale.py`). Not counted is what a caller makes of the answers: 02 lists its pictures
with their captions, and 05 and `python -m sgvl.judge` make tables. Nor are up to 268 MB of decoded
pictures, which a process keeps for the next judge (`OPENED` in `sgvl/data/store.py`).

## One machine with eight GPUs

It judges {box} pictures a day under one policy, {box_rate} a second. {pictures} pictures take
{box_judges}; captions and recaptions of as many take {box_captions}.

**Bottleneck: the GPUs**, which read pictures most of the time; {box_cores} cores decode enough for
them. What helps: several policies to one reading of a picture (five take {times} times as long as
one), a lower `max_pixels`, a smaller judge.

## A Slurm cluster, {cluster} GPUs

`--workers {cluster} --snakemake` makes as many jobs of one GPU. {pictures} pictures take
{cluster_judges} of the GPUs. But a worker takes the pictures whose pixels fall to it, so each one
decodes all of them for each judge, which takes {alone} whatever the number of workers.

**Bottleneck: decoding, from {crossing} workers on**; more workers are then no faster. What helps: a
set in 01_data for each part of the pictures, with fewer workers to each; smaller files.

## A billion pictures a day

| | |
| --- | ---: |
| pictures a second, on average | {rate} |
| GPUs, one policy | {gpus_one} |
| GPUs, five policies | {gpus_five} |
| cores that decode | {cores} |
| Gbit a second of pictures | {gbit} |
| GB of answers a day | {gb} |
| one process that reads the answers of a day | {reads} |

**Bottleneck: the store, then the GPUs.** A run reads all of its answers when it starts, and holds
in memory where each one stands, {gb_index} GB for those of a day. A service needs a database under
the same key (judge, pixels, policy) in the place of files, a queue in that of shares, and room for
peaks. The GPUs are its cost: a small first judge that settles the clear cases comes before the
large one. The kit has the parts (small judges, and thresholds of P(unsafe) in 05); no such cascade
was measured here.
"""


def seconds(policies: int) -> float:
    """Return the seconds of one GPU for a picture's verdicts; the picture is read once."""
    size, gpu = size_of(MODEL), kinds()[GPU]
    read = costs.forward(size, size.picture + POLICY) - costs.forward(size, size.picture)
    step = costs.decode(size, gpu, BATCH, size.picture + POLICY + WORD, True)
    more = read / gpu.flops / costs.PREFILL + WORD * step / BATCH
    return costs.answer(size, gpu, POLICY, WORD, BATCH, True) + (policies - 1) * more


def captions() -> float:
    """Return the seconds of one GPU for a picture's caption and its minimal edit."""
    first, second = size_of(MODEL), size_of(RECAPTIONER)
    step1 = costs.answer(first, kinds()[GPU], CAPTION, CAPTION, BATCH, True)
    return step1 + costs.answer(second, kinds()[GPU], 2 * CAPTION, CAPTION, BATCH, True)


def median(work: Callable[[int], object], times: int, clock=time.process_time) -> float:
    """Return the median seconds of a call, of the processor by default."""
    took = []
    for k in range(times):
        began = clock()
        work(k)
        took.append(clock() - began)
    return sorted(took)[times // 2]


def jpeg() -> bytes:
    """Return smooth noise, which is about as large as a photograph of its size."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.2)).save(file, "JPEG", quality=90)
    return file.getvalue()


def storing(batches: int = 101) -> tuple[float, float, float]:
    """Return the seconds to store an answer, those to read it again, and its bytes."""
    answer = {"verdict": "safe", "p_unsafe": 0.25, "rationale": None, "reply": "safe"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "judge.jsonl"

        def store(batch: int) -> None:
            ids = (f"picture {batch * BATCH + k}" for k in range(BATCH))
            into.append({"key": into.key(i, ""), "id": i, "policy": "L3"} | answer for i in ids)

        def read(_: int) -> None:
            with Records(file, {}):
                pass

        with Records(file, {}) as into:
            stored = median(store, batches, time.perf_counter)  # it waits for the disk
        rows = batches * BATCH
        return stored / BATCH, median(read, 5) / rows, file.stat().st_size / rows


class Instant(Judge):
    """Answers at once: what is left is the store."""

    id = "instant"
    pictures_at_once = BATCH

    def identity(self) -> dict:
        return {"kind": "instant"}

    def judge(self, cases) -> list[Judgement]:
        return [Judgement("safe", 0.25, None, f"{sample.id} is safe. " * 20) for sample, _ in cases]


def peak(pictures: int) -> int:
    """Return the most memory of this process, in bytes, once it has verdicts on small pictures."""
    colours = ((k % 256, k // 256 % 256, k // 65536) for k in range(pictures))
    samples = (Sample(f"{c}", Image.new("RGB", (2, 2), c)) for c in colours)
    with tempfile.TemporaryDirectory() as folder:
        answers = ask_all(Instant(), under(samples, load_all()[:1]), folder)
        if sum(row["verdict"] == "safe" for row in answers) != pictures:
            raise SystemExit("not every picture has its verdict")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory() -> list[int]:
    """Return the peaks of few and of many pictures, each of a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(peak, [FEW, PICTURES], chunksize=1)


def page() -> str:
    """Return docs/SCALE.md."""
    few, many = memory()
    item = (many - few) / (PICTURES - FEW)
    file = jpeg()
    decode = median(lambda _: image_digest(load_image(file)), 21)
    store, read, size = storing()
    one, five, caption = seconds(1), seconds(5), captions()
    rate = BILLION / DAY
    figures = {
        "gpu": GPU,
        "side": SIDE,
        "batch": BATCH,
        "kb": f"{len(file) / 1e3:.0f}",
        "one": f"{1e3 * one:.0f}",
        "five": f"{1e3 * five:.0f}",
        "times": f"{five / one:.1f}",
        "caption": f"{1e3 * caption:.0f}",
        "decode": f"{1e3 * decode:.0f}",
        "store": f"{1e3 * store:.2f}",
        "read": f"{1e3 * read:.3f}",
        "bytes": f"{size:.0f}",
        "few": f"{FEW:,}",
        "mb_few": f"{few / 1e6:.0f}",
        "mb_many": f"{many / 1e6:.0f}",
        "item": f"{item:.0f}",
        "gb_index": f"{BILLION * item / 1e9:.0f}",
        "box": f"{8 * DAY / one:,.0f}",
        "box_rate": f"{8 / one:,.0f}",
        "pictures": f"{PICTURES:,}",
        "box_judges": hours(PICTURES * one / 8),
        "box_captions": hours(PICTURES * caption / 8),
        "box_cores": f"{8 * decode / one:.1f}",
        "cluster": CLUSTER,
        "cluster_judges": hours(PICTURES * one / CLUSTER),
        "alone": hours(PICTURES * decode),
        "crossing": f"{one / decode:.0f}",
        "rate": f"{rate:,.0f}",
        "gpus_one": f"{rate * one:,.0f}",
        "gpus_five": f"{rate * five:,.0f}",
        "cores": f"{rate * decode:,.0f}",
        "gbit": f"{rate * len(file) * 8 / 1e9:,.0f}",
        "gb": f"{BILLION * size / 1e9:,.0f}",
        "reads": hours(BILLION * read),
    }
    return PAGE.format(**figures)


def hours(of: float) -> str:
    """Return seconds as text, in minutes or hours."""
    return f"{of / 60:,.0f} minutes" if of < 2 * 3600 else f"{of / 3600:,.1f} hours"


if __name__ == "__main__":
    print(page(), end="")
