"""The judging engine beside three other ways to ask a model; prints docs/PERFORMANCE.md.

    python benchmarks/judging.py > docs/PERFORMANCE.md

Same weights, pictures, policies and threads for all; their replies are compared before any clock
runs. The model is nano's, shown pictures of 256 tokens, as large models see them; policies have
about 75 tokens. Times are CPU seconds of this process, medians of rounds in which the ways take
turns. Ratios carry over to other machines better than seconds do.
"""

import argparse
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from sgvl.common.paths import NANO_MODEL
from sgvl.data import Sample
from sgvl.judges import ask_all
from sgvl.judges.base import Judge, Judgement, under
from sgvl.judges.chat import phrases, tower
from sgvl.judges.chat.judge import ChatJudge
from sgvl.models import tiny
from sgvl.policies.concepts import CATEGORIES, named
from sgvl.policies.policy import Policy
from sgvl.policies.random_policies import fill, mixed_skeleton
from sgvl.report.tables import markdown
from sgvl.text import prompts
from sgvl.world.questions import SEEN
from sgvl.world.scenes import render, sample_names, sample_scene

PIXELS = 448 * 448  # 256 tokens
LENGTHS = range(65, 86)  # tokens of a policy of many clauses, at most CLAUSES
CLAUSES = 14
BATCHES = (1, 4, 8)  # of the pipeline: the best counts
# Those that load without torchvision.
ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "llava_next", "llava_onevision",
                 "mllama", "gemma3")  # fmt: skip


def make_judge(folder: Path, **options) -> ChatJudge:
    """Nano's weights behind a processor that keeps pictures large."""
    shutil.copytree(NANO_MODEL, folder, dirs_exist_ok=True)
    judge = ChatJudge(model=str(folder), with_p_unsafe=False, **{"prompt": "reason"} | options)
    judge.processor.image_processor.size = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
    return judge


def make_samples(n: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    scenes = [
        sample_scene(rng, "test", sample_names(rng, named(*SEEN), 3, "test")) for _ in range(n)
    ]
    return [Sample(str(i), render(scene)) for i, scene in enumerate(scenes)]


def make_policies(n: int, tokenizer, clauses: int = CLAUSES) -> list[Policy]:
    """Random policies of about 75 tokens, or of one clause, which have fewer."""
    rng, found = np.random.default_rng(0), []
    while len(found) < n:
        policy = fill(rng, mixed_skeleton(rng, clauses), list(CATEGORIES))
        if clauses == 1 or len(tokenizer.encode(policy.render("brief"))) in LENGTHS:
            found.append(policy)
    return found


def engine(judge: ChatJudge, samples, policies) -> list[str]:
    """What comes first is read once, each picture or each policy, and the other from there.

    Earlier rounds are forgotten, or no picture would be looked at and every draft would be right.
    """
    phrases.forget()
    tower.SEEN.clear()
    return [answer.reply for answer in judge.judge(under(samples, policies))]


def plain(judge: ChatJudge, samples, policies) -> list[str]:
    """The same judge without sharing: every pair whole with its pixels, in batches."""
    judge.share_prefix, kept = False, judge.reader._tower
    judge.reader._tower = None
    replies = engine(judge, samples, policies)
    judge.share_prefix, judge.reader._tower = True, kept
    return replies


def loop(judge: ChatJudge, samples, policies) -> list[str]:
    """One ``generate`` a pair, as public harnesses run their models."""
    texts, replies = [judge._prompt(policy) for policy in policies], []
    for sample in samples:
        for text in texts:
            tower.SEEN.clear()
            (tokens,) = judge.reader.generate(
                [sample.image], [text], max_new_tokens=judge.max_new_tokens
            )
            replies.append(judge.reader.text(tokens))
    return replies


def make_pipeline(judge: ChatJudge, batch_size: int) -> Callable:
    """transformers' own pipeline for pictures and text."""
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=judge.model, processor=judge.processor)

    def ask(judge, samples, policies) -> list[str]:
        chats = [
            [{"role": "user", "content": [
                {"type": "image", "image": sample.image},
                {"type": "text", "text": prompts.judge_prompt(p.render("brief"), judge.prompt)},
            ]}]
            for sample in samples for p in policies
        ]  # fmt: skip
        found = pipe(
            text=chats, batch_size=batch_size, return_full_text=False,
            generate_kwargs={"max_new_tokens": judge.max_new_tokens, "do_sample": False},
        )  # fmt: skip
        return [reply[0]["generated_text"].strip() for reply in found]

    return ask


def race(ways: dict[str, Callable], judge, samples, policies, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way, which take turns after one round that compares replies."""
    replies = {name: way(judge, samples, policies) for name, way in ways.items()}
    expected = replies["engine"]
    for name, found in replies.items():
        if found != expected:
            different = sum(a != b for a, b in zip(found, expected, strict=True))
            raise SystemExit(f"{name} gives {different} other replies than the engine")
    spent = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way(judge, samples, policies)
            spent[name].append(time.process_time() - start)
    return {name: float(np.median(seconds)) for name, seconds in spent.items()}


def table(best: dict[str, float], pairs: int) -> pd.DataFrame:
    """Pairs a CPU second, and how many times as many the engine judges."""
    speed = pd.Series(best, name="s")
    return pd.DataFrame(
        {"CPU s": speed, "pairs a CPU s": pairs / speed, "engine over it": speed / best["engine"]}
    ).round(2)


def split(judge: ChatJudge, way: Callable, samples, policies) -> dict[str, float]:
    """CPU seconds of one run by part, and how many pictures the vision tower saw."""
    spent = dict.fromkeys(("preprocessing", "vision", "prefill", "decode"), 0.0)
    vision, text = judge.model.model.visual, judge.model.model.language_model
    pictures, inner = 0, []  # seconds of the parts within the one that runs

    def timed(owner, name: str, part: Callable[..., str]) -> None:
        function = getattr(owner, name)

        def run(*args, **kwargs):
            start = time.process_time()
            inner.append(0.0)
            found = function(*args, **kwargs)
            took = time.process_time() - start
            spent[part(**kwargs)] += took - inner.pop()
            if inner:
                inner[-1] += took
            return found

        setattr(owner, name, run)

    def count(module, args, kwargs):
        nonlocal pictures
        pictures += len(kwargs["grid_thw"])

    hook = vision.register_forward_pre_hook(count, with_kwargs=True)
    timed(judge.reader, "inputs", lambda **_: "preprocessing")
    timed(vision, "forward", lambda **_: "vision")
    timed(text, "forward", lambda inputs_embeds, **_: (
        "decode" if inputs_embeds.shape[1] <= 1 + phrases.WHOLE else "prefill"
    ))  # fmt: skip
    start = time.process_time()
    way(judge, samples, policies)
    total = time.process_time() - start
    hook.remove()
    del judge.reader.inputs, vision.forward, text.forward  # what they hid is back
    return {**spent, "rest": total - sum(spent.values()), "pictures seen": pictures}


def architectures(folder: Path, samples, policies, rounds: int) -> pd.DataFrame:
    """What each architecture shares, and how many times as long the other ways take."""
    rows = []
    for name in ARCHITECTURES:
        tiny.save(name, folder / name)
        judge = ChatJudge(
            model=str(folder / name), prompt="answer", max_new_tokens=16, with_p_unsafe=False
        )
        ways = {"engine": engine, "plain, in batches": plain, "one generate a pair": loop}
        found = race(ways, judge, samples, policies, rounds)
        row = {"architecture": name, "read once": judge.prefix_sharing.partition(":")[0]}
        row["ms a pair"] = 1e3 * found["engine"] / len(samples) / len(policies)
        row |= {way: found[way] / found["engine"] for way in list(ways)[1:]}
        rows.append(row)
    return pd.DataFrame(rows).set_index("architecture").round(2)


class Instant(Judge):
    """Answers at once: what is left is the harness."""

    id = "instant"

    def identity(self) -> dict:
        return {"kind": "instant"}

    def judge(self, cases) -> list[Judgement]:
        return [Judgement("safe")] * len(cases)


def harness(policies: list[Policy], sizes: list[int]) -> pd.DataFrame:
    """Milliseconds and peak KiB a judgement of storing alone, each batch flushed to the disk."""
    rows = []
    for n in sizes:
        pixels = np.random.default_rng(n).integers(0, 256, (n // len(policies), 8, 8, 3), np.uint8)
        samples = (Sample(str(i), Image.fromarray(p)) for i, p in enumerate(pixels))
        with tempfile.TemporaryDirectory() as folder:
            tracemalloc.start()
            start = time.process_time()
            ask_all(Instant(), ((s, p) for s in samples for p in policies), folder)
            seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        rows.append(
            {"judgements": n, "ms each": 1e3 * seconds / n, "peak KiB each": peak / n / 1024}
        )
    return pd.DataFrame(rows).set_index("judgements").round(3)


PROTOCOLS = {
    "one word": {"prompt": "word", "parser": "word", "max_new_tokens": 1},
    "a reason, then a verdict": {},
}
# For one word and with a reason: how many times the pipeline and the loop take at k = 5, what one
# more policy costs of the first (meant for policies of one clause; those of 75 tokens are held to
# it, too), and how many times batches without sharing take at k = 20.
BARS = {"one word": (3, 0.08, 8), "a reason, then a verdict": (3.5, 0.15, None)}

PAGE = """\
# How fast a judge answers

Written by `{command} > docs/PERFORMANCE.md`
in {seconds} CPU seconds: {machine}, one thread, Python {python},
torch {torch}, transformers {transformers}. {pictures} pictures of 256 tokens, policies of about 75
tokens, nano's model; medians of rounds (here {rounds}) in which the ways take turns, after one that
finds their replies equal. CPU seconds, so other work on the machine slows all ways alike; ratios
carry over to other machines better than seconds do.

{bars}

## What is fast, and why

- A picture is read once for all its policies, with the words that all of their prompts open with; a
  prompt that opens with the policy, the policy once for all pictures. Rows of different lengths go
  on from there (`sgvl/judges/chat/rows.py`).
- Judges with the same vision tower look at a picture once in a process
  (`sgvl/judges/chat/tower.py`). No training here changes the tower, so 18 judges of 05 share one.
- A reply is drafted, up to {drafted} tokens a step from phrases of the prompt and of earlier
  replies, up to {whole} from what another judge replied to the same request, and the model checks
  them in one step (`phrases.py`). A reply is that of one token at a time, byte for byte.
- What is known before each round is forgotten here; in 05 it is not.

{tables}

## Storing alone

A judge that answers at once, five policies, each batch flushed to the disk:

{storing}

## 05 of the nano profile

{notes}

## What limits it

One more policy of one word costs the reading of its own prompt, at the speed of all else: its
share is that of its tokens, and only a shorter prompt lowers it. With a reason, two fifths of the
engine's seconds are decoding. The pipeline, which reads every picture five times, writes eight rows
together, and gains more from that than the engine from its drafts.

## What was tried and did not help

- Drafts of eight tokens from phrases (as before) and whole earlier replies as drafts: on stored
  replies 99 and 100 tokens are computed for 40 that are written, with three and eight 59 and less.
- Longer phrases (eight tokens in place of four): 3 % fewer tokens, twice the time to look up.
- Larger batches when decoding: a token costs a quarter less at 128 rows than at 32, but rows then
  wait for the longest draft and the longest reply among more.
- Rows that share a picture's keys and values in place of copies, by attention in two parts that are
  joined: one word at k = 20 takes 1.37 s in place of 1.34, a reason 3 % less at k = 20, 2 % more at
  k = 5 and 17 % more at k = 1. It saves copies, and needs more and smaller operations.
- The first policy of each picture before the others, whose drafts its reply then serves: 18 % more
  for one picture under five policies, 5 % less for 24, 3 % less for four under 20.
- Other batches of prompts: 8 to 32 rows take the same time, 4 take 8 % more, 64 take 15 % more.
- Memory that malloc keeps, in place of mapping it anew for each large tensor: no difference.
- Attention without a mask: 6 to 20 % of its own time, itself an eighth of the whole.

## What was never run

On a GPU, nothing. `python benchmarks/gpu.py` is the command: Qwen2.5-VL-7B in its true size with
random weights, reading as a share of the GPU's peak, k = 5 and 20 beside the plain loop, steps of
both stages with their parts, and peak memory beside the plan's. Tests run it whole on a CPU with
nano's size (`tests/test_speed.py`), so **no figure for 7B stands here**. vLLM was not timed either.
"""

# Measured by hand; not part of the run above.
NOTES = """\
22 judges, 35,627 answers, two processes. Before the tower and earlier replies were shared the unit
took 308 and 317 s in two whole runs alone on the machine, of which asking took 286 s, 573 core
seconds, in the first; after, 224 s in one whole run alone. Judges one after the other in one
process, on all that 05 asks (2,321 requests a chat judge, 2,037 of OpenNSFW), a benchmark on the
other core; before, seconds of the first run without loading, after, CPU seconds with it:

| judge | before | after |
| --- | ---: | ---: |
| OpenNSFW | 35.1 | 26.8 |
| base, the first chat judge of the process | 45.5 | 44.3 |
| before alignment | 44.7 | 40.4 |
| w/o Recap (SFT) | 44.5 | 30.7 |

All of their 9,000 answers came back byte for byte, with P(unsafe) within 5e-8. The first judge of a
process gains little, a later one what it shares with those before. The aim was 250 core seconds for
05, which this does not reach: reading the policies takes 4 to 5 ms of each case, and nothing can
share that."""


def told(name: str, best: dict, seconds: pd.DataFrame, short: pd.Series) -> list[dict]:
    """Return the bars of a protocol with what was measured."""
    over, more, many = BARS[name]
    pipelines = [spent for way, spent in best.items() if way.startswith("pipeline")]
    own = seconds["engine"]
    found = [
        ("k = 5, one generate a pair over the engine", best["one generate a pair"] / best["engine"],
         over, True),
        ("k = 5, the best pipeline over the engine", min(pipelines) / best["engine"], over, True),
    ]  # fmt: skip
    for length, spent in {"one clause": short, "75 tokens": own}.items():
        share = (spent[20] - spent[1]) / (19 * spent[1])
        found.append((f"one more policy of {length}, as a share of the first", share, more, False))
    if many:
        batches = seconds["plain, in batches"][20] / own[20]
        found.append(("k = 20, batches without sharing over the engine", batches, many, True))
    return [
        {"asked for": name, "bar": what, "at least": bar if least else "", "at most":
         "" if least else bar, "measured": f"{value:.2f}",
         "": "met" if (value >= bar) == least else "**missed**"}
        for what, value, bar, least in found
    ]  # fmt: skip


def shown(title: str, frame: pd.DataFrame) -> str:
    frame = frame.reset_index(names=frame.index.name or "")
    return markdown(frame.astype(str), title)


def protocol(name: str, folder: Path, samples, rounds: int) -> tuple[list[dict], list[str]]:
    """Return the bars and the tables of one protocol."""
    judge = make_judge(folder, **PROTOCOLS[name])
    policies = make_policies(20, judge.processor.tokenizer)
    ways = {"engine": engine, "plain, in batches": plain, "one generate a pair": loop}
    sharing = dict(list(ways.items())[:2])
    both = ways | {f"pipeline, batch {b}": make_pipeline(judge, b) for b in BATCHES}
    best = race(both, judge, samples, policies[:5], rounds)
    parts = {w: split(judge, way, samples, policies[:5]) for w, way in ways.items()}
    curve = {k: race(sharing, judge, samples, policies[:k], rounds) for k in (1, 5, 20)}
    seconds = pd.DataFrame(curve).T.rename_axis("k")
    clauses = make_policies(20, judge.processor.tokenizer, 1)
    short = {k: race({"engine": engine}, judge, samples, clauses[:k], rounds) for k in (1, 20)}
    ratio = seconds["plain, in batches"] / seconds["engine"]
    n = 5 * len(samples)
    return told(name, best, seconds, pd.DataFrame(short).T["engine"]), [
        f"## Asked for {name}\n",
        shown(f"k = 5, n = {n} pairs", table(best, n).rename_axis("way")),
        shown("where the CPU seconds go", pd.DataFrame(parts).T.round(2).rename_axis("way")),
        shown("CPU seconds by the number of policies", seconds.assign(ratio=ratio).round(2)),
    ]


def policy_first(folder: Path, samples, rounds: int) -> list[str]:
    judge = make_judge(folder, prompt="llama_guard", max_new_tokens=1)
    policies = make_policies(5, judge.processor.tokenizer)
    best = race({"engine": engine, "plain, in batches": plain}, judge, samples, policies, rounds)
    n = 5 * len(samples)
    return ["## The policy before the picture, one word\n",
            shown(f"k = 5, n = {n} pairs", table(best, n).rename_axis("way"))]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, samples, bars, tables = time.process_time(), make_samples(options.pictures), [], []
    for name in PROTOCOLS:
        with tempfile.TemporaryDirectory() as folder:
            own, shown_here = protocol(name, Path(folder), samples, options.rounds)
            bars, tables = bars + own, tables + shown_here
            print(pd.DataFrame(own).to_string(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        tables += policy_first(Path(folder), samples, options.rounds)
        tokenizer = make_judge(Path(folder)).processor.tokenizer
        policies = make_policies(5, tokenizer)
        tiny_ones = architectures(Path(folder), samples, policies, options.rounds)
    title = "random weights, replies of 16 tokens, k = 5; how many times as long as the engine"
    tables += ["## By architecture\n", shown(title, tiny_ones)]
    storing = shown("", harness(policies, [1_000, 4_000, 16_000]))
    print(PAGE.format(
        command=shlex.join(["python", "benchmarks/judging.py", *sys.argv[1:]]), notes=NOTES,
        seconds=round(time.process_time() - began), machine=machine(), torch=torch.__version__,
        python=platform.python_version(), transformers=metadata.version("transformers"),
        bars=markdown(pd.DataFrame(bars).astype(str)).strip(), tables="\n".join(tables).strip(),
        storing=storing.strip(), drafted=phrases.DRAFTED, whole=phrases.WHOLE, **vars(options),
    ), end="")  # fmt: skip


def machine() -> str:
    """Return the processor's name, where the system tells it."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
