"""``make bench``: four ways to ask one model about k policies, raced in one process.

The same weights, pictures, policies and threads for all; their replies are compared before any
clock runs. The model is nano's, shown pictures of 256 tokens, as large models see them; policies
have about 75 tokens. Times are CPU seconds of this process, medians of rounds in which the ways
take turns. Ratios carry over to other machines better than seconds do. The last table asks tiny
models of random weights, one of each architecture.
"""

import argparse
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from sgvl.common.paths import NANO_MODEL
from sgvl.data import Sample
from sgvl.judges import ask_all
from sgvl.judges.base import Judge, Judgement, under
from sgvl.judges.chat.judge import ChatJudge
from sgvl.judges.chat.phrases import Phrases
from sgvl.judges.chat.rows import DRAFTED
from sgvl.models import tiny
from sgvl.policies.concepts import CATEGORIES, named
from sgvl.policies.policy import Policy
from sgvl.policies.random_policies import fill, mixed_skeleton
from sgvl.text import prompts
from sgvl.world.questions import SEEN
from sgvl.world.scenes import render, sample_names, sample_scene

PIXELS = 448 * 448  # 256 tokens
LENGTHS = range(65, 86)  # tokens of a policy
BATCHES = (1, 2, 4, 8)  # of the pipeline: the best counts
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


def make_policies(n: int, tokenizer) -> list[Policy]:
    """Random policies of about 75 tokens."""
    rng, found = np.random.default_rng(0), []
    while len(found) < n:
        policy = fill(rng, mixed_skeleton(rng, 14), list(CATEGORIES))
        if len(tokenizer.encode(policy.render("brief"))) in LENGTHS:
            found.append(policy)
    return found


def engine(judge: ChatJudge, samples, policies) -> list[str]:
    """What comes first is read once, each picture or each policy, and the other from there.

    Phrases of earlier rounds are forgotten, or every draft would be right.
    """
    judge._said, judge._prompts = Phrases(), {}
    return [answer.reply for answer in judge.judge(under(samples, policies))]


def plain(judge: ChatJudge, samples, policies) -> list[str]:
    """The same judge without sharing: every pair whole, in batches."""
    judge.share_prefix = False
    replies = engine(judge, samples, policies)
    judge.share_prefix = True
    return replies


def loop(judge: ChatJudge, samples, policies) -> list[str]:
    """One ``generate`` a pair, as public harnesses run their models."""
    texts, replies = [judge._prompt(policy) for policy in policies], []
    for sample in samples:
        for text in texts:
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
    pictures = 0

    def timed(owner, name: str, part: Callable[..., str]) -> None:
        function = getattr(owner, name)

        def run(*args, **kwargs):
            start = time.process_time()
            found = function(*args, **kwargs)
            spent[part(**kwargs)] += time.process_time() - start
            return found

        setattr(owner, name, run)

    def count(module, args, kwargs):
        nonlocal pictures
        pictures += len(kwargs["grid_thw"])

    hook = vision.register_forward_pre_hook(count, with_kwargs=True)
    timed(judge.reader, "inputs", lambda **_: "preprocessing")
    timed(vision, "forward", lambda **_: "vision")
    timed(text, "forward", lambda inputs_embeds, **_: (
        "decode" if inputs_embeds.shape[1] <= 1 + DRAFTED else "prefill"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    samples = make_samples(options.pictures)
    with tempfile.TemporaryDirectory() as folder:
        for title, asked in {
            "one word asked": {"prompt": "word", "parser": "word", "max_new_tokens": 1},
            "a reason, then a verdict": {},
        }.items():
            judge = make_judge(Path(folder), **asked)
            policies = make_policies(20, judge.processor.tokenizer)
            ways = {"engine": engine, "plain, in batches": plain, "one generate a pair": loop}
            ways |= {f"pipeline, batch {b}": make_pipeline(judge, b) for b in BATCHES}
            best = race(ways, judge, samples, policies[:5], options.rounds)
            print(f"\n{title}: k = 5, {len(samples)} pictures")
            print(table(best, 5 * len(samples)).to_string())
            parts = {w: split(judge, ways[w], samples, policies[:5]) for w in list(ways)[:3]}
            print("\nwhere the CPU seconds go")
            print(pd.DataFrame(parts).T.round(2).to_string())
            curve = {}
            for k in (1, 2, 5, 10, 20):
                sharing = {"engine": engine, "plain, in batches": plain}
                curve[k] = race(sharing, judge, samples, policies[:k], options.rounds)
            seconds = pd.DataFrame(curve).T.rename_axis("k")
            print("\nCPU seconds in k")
            print(seconds.assign(ratio=seconds.iloc[:, 1] / seconds["engine"]).round(2).to_string())
            more = (seconds["engine"][20] - seconds["engine"][1]) / (19 * seconds["engine"][1])
            print(f"\none more policy costs {more:.2f} of the first")
        first = make_judge(Path(folder), prompt="llama_guard", max_new_tokens=1)
        best = race(
            {"engine": engine, "plain": plain}, first, samples, policies[:5], options.rounds
        )
        print(f"\none word asked, the policy before the picture: k = 5, {len(samples)} pictures")
        print(table(best, 5 * len(samples)).to_string())
        print("\ntiny models of random weights: times as long as the engine, k = 5")
        print(architectures(Path(folder), samples, policies[:5], options.rounds).to_string())
    print("\nstoring alone, five policies")
    print(harness(policies[:5], [1_000, 4_000, 16_000, 32_000]).to_string())


if __name__ == "__main__":
    main()
