"""Judging and training at the true size of Qwen2.5-VL-7B on one GPU, with random weights.

    python benchmarks/gpu.py

Random weights take the time and the memory of trained ones, and no download. Their replies repeat
nothing, so no draft is right, and every reply has its full length. Prints tables: reading a prompt
as a share of the GPU's peak; several policies a picture, by the engine and without sharing; steps
of both stages by the settings of ``params/single``, with their parts; and the memory of each beside
the plan's. With ``--size nano`` it runs on a CPU in seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from datasets import Dataset
from judging import engine, loop, make_policies, make_samples, plain

from sgvl.common.paths import NANO_MODEL, ROOT
from sgvl.data import Sample
from sgvl.judges.chat.judge import ChatJudge
from sgvl.models import loading
from sgvl.models.chat_model import ChatModel
from sgvl.run.planning import Line, Plan, costs
from sgvl.run.planning.machine import machine
from sgvl.run.planning.models import size_of
from sgvl.training import grpo, sft
from sgvl.world import sets

# The fields of the published config.json that decide the shape; tests/test_speed.py counts.
TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
    "layer_types": ["full_attention"] * 28, "use_sliding_window": False, "initializer_range": 0.02,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
    "out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31], "initializer_range": 0.02,
}  # fmt: skip
SIDE = {"7b": 896, "nano": 224}  # pixels of a picture's side: 1,024 and 64 tokens
WORDS = 8  # tokens of a reply to a judge's prompt


def config(size: str):
    """Return a configuration of nano's tokens; ``7b`` has the shape of the published one."""
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(NANO_MODEL)
    if size == "7b":
        own = own.to_dict()
        own["text_config"] |= TEXT
        own["vision_config"] |= VISION
        own["tie_word_embeddings"] = own["text_config"]["tie_word_embeddings"] = False
        own = AutoConfig.for_model(**own)
    return own


def build(folder: Path, size: str, device: str, dtype: str) -> None:
    """Save a model of random weights with nano's processor."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        network = AutoModelForImageTextToText.from_config(config(size), dtype=getattr(torch, dtype))
    network.save_pretrained(folder)
    processor = loading.load_processor(str(NANO_MODEL), None, network.config)
    edge = SIDE[size] ** 2
    processor.image_processor.size = {"shortest_edge": edge, "longest_edge": edge}
    processor.save_pretrained(folder)


class Clock:
    """Seconds, and peak bytes on the GPU; of a CPU, processor seconds and no bytes."""

    def __init__(self, device: str):
        self.gpu = device.startswith("cuda")

    def now(self) -> float:
        if not self.gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> None:
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 1e9 if self.gpu else float("nan")

    def seconds(self, work: Callable) -> tuple[float, object]:
        start = self.now()
        result = work()
        return self.now() - start, result


@contextmanager
def timed(clock: Clock, spent: dict[str, list[float]], parts: dict[str, tuple]) -> Iterator[None]:
    """Add the seconds of each call of (class, method) to its part."""
    hidden = {part: getattr(*place) for part, place in parts.items()}

    def run(part: str, *args, **kwargs):
        seconds, result = clock.seconds(partial(hidden[part], *args, **kwargs))
        spent[part].append(seconds)
        return result

    def method(part: str) -> Callable:
        return lambda self, *args, **kwargs: run(part, self, *args, **kwargs)

    for part, place in parts.items():
        setattr(*place, method(part))
    try:
        yield
    finally:
        for part, place in parts.items():
            setattr(*place, hidden[part])


def reading(judge: ChatJudge, samples, policy, gpu: costs.GPU, clock: Clock) -> pd.DataFrame:
    """Time one pass over prompts with their pictures, beside the operations that it needs."""
    network, images = judge.model, [sample.image for sample in samples]
    batch = ChatModel.inputs(judge.reader, images, [judge._prompt(policy)] * len(images))
    size = size_of(judge.reader.name)
    tokens = batch["input_ids"].shape[1]
    picture = int((batch["input_ids"][0] == network.config.image_token_id).sum())
    work = len(images) * (costs.forward(size, tokens) + costs.vision(size, picture))
    with torch.no_grad():
        took = [
            clock.seconds(lambda: network(**batch, use_cache=False, logits_to_keep=1))[0]
            for _ in range(4)
        ][1:]
    row = {"prompts": len(images), "tokens each": tokens, "of the picture": picture}
    row |= {"s": np.median(took), "TFLOP/s": work / np.median(took) / 1e12}
    share = 100 * work / np.median(took) / gpu.flops if clock.gpu else float("nan")
    return pd.DataFrame([row | {"% of the peak": share}])


def judging(judge: ChatJudge, samples, policies, clock: Clock) -> pd.DataFrame:
    """Time k policies a picture in each way; replies are compared with those of the loop."""
    rows = []
    ways = {"one generate a pair": loop, "plain, in batches": plain, "engine": engine}
    for k in (5, 20):
        found = {
            name: clock.seconds(partial(way, judge, samples, policies[:k]))
            for name, way in ways.items()
        }
        expected = found["one generate a pair"][1]
        for name, (took, replies) in found.items():
            same = np.mean([a == b for a, b in zip(replies, expected, strict=True)])
            row = {"k": k, "way": name, "s": took, "pairs a s": len(replies) / took}
            row |= {"engine over it": took / found["engine"][0], "% same replies": 100 * same}
            rows.append(row)
    return pd.DataFrame(rows)


def larger(rows: Dataset, side: int) -> Dataset:
    return rows.map(lambda row: {"image": row["image"].resize((side, side))})


def training(
    stage: str, model: str, folder: Path, options, gpu: costs.GPU, clock: Clock
) -> pd.DataFrame:
    """Run a few steps of a stage by the settings of ``params/single``; a row of times and memory.

    One optimiser step is one batch, and neither waits for others nor is a checkpoint written.
    """
    from trl import GRPOTrainer, SFTTrainer

    unit = {"sft": "03_sft.recap", "grpo": "04_grpo.rl"}[stage]
    values = yaml.safe_load((ROOT / "params" / "single" / f"{unit}.yaml").read_text("utf-8"))
    settings = values["settings"] | {"max_steps": options.steps, "save_strategy": "no"}
    settings |= {"logging_steps": 1, "gradient_accumulation_steps": 1, "bf16": clock.gpu}
    settings |= {"max_completion_length": options.reply} if stage == "grpo" else {}
    values |= {"settings": settings, "model": model, "dtype": options.dtype, "max_pixels": 0}
    values.setdefault("policy_form", "brief")
    size = {"lora": values["lora"], "dtype": options.dtype}
    drawn = sets.llavaguard(images=max(4, options.steps))
    clock.begin()
    if stage == "sft":
        captions = drawn.add_column("caption", ["a thing " * 100] * len(drawn))
        rows = larger(sft.captions(captions, "caption"), SIDE[options.size])
        parts, spent = {"step": (SFTTrainer, "training_step")}, {"step": []}
        with timed(clock, spent, parts):
            sft.train(rows, model, folder, settings, **size)
    else:
        rows = larger(grpo.conditioned(drawn, values["policy_form"]), SIDE[options.size])
        parts = {
            "step": (GRPOTrainer, "training_step"),
            "rollout": (GRPOTrainer, "_generate"),
            "scored": (GRPOTrainer, "_generate_and_score_completions"),
        }
        spent = {part: [] for part in parts}
        with timed(clock, spent, parts):
            grpo.train(rows, model, folder, settings, values["reward"], values["parser"], **size)
    line = Line(unit)
    Plan({}, {}, gpu, 1, measured=False)._training(line, values)
    # The first step also makes the optimiser's state and warms up.
    mean = {part: np.mean(own[1:] or own) for part, own in spent.items()}
    row = {"stage": stage, "steps": len(spent["step"]), "s a step": mean["step"]}
    if stage == "grpo":
        row |= {"rollout": mean["rollout"], "update": mean["step"] - mean["scored"]}
        row |= {"log-probabilities and rewards": mean["scored"] - mean["rollout"]}
    return pd.DataFrame([row | {"peak GB": clock.peak(), "plan GB": line.total / 1e9}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, cuda = parser.add_argument, torch.cuda.is_available()
    add("--size", choices=SIDE, default="7b")
    add("--device", default="cuda" if cuda else "cpu")
    add("--dtype", default="bfloat16" if cuda else "float32")
    add("--pictures", type=int, default=8)
    add("--steps", type=int, default=4, help="of each training; the first is not counted")
    add("--reply", type=int, default=256, help="tokens of a rollout")
    options = parser.parse_args()
    if options.size == "7b" and not options.device.startswith("cuda"):
        parser.error("7B needs a GPU; --size nano runs on a CPU")
    clock, found = Clock(options.device), machine("", 1)
    name = torch.cuda.get_device_name(0) if clock.gpu else "a CPU"
    print(f"{options.size}, random weights, {options.dtype}, {name}, torch {torch.__version__}")
    side = SIDE[options.size]
    samples = [Sample(s.id, s.image.resize((side, side))) for s in make_samples(options.pictures)]
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model"
        build(Path(model), options.size, options.device, options.dtype)
        judge = ChatJudge(
            model=model, prompt="reason", max_new_tokens=WORDS, with_p_unsafe=False,
            dtype=options.dtype, device=options.device,
        )  # fmt: skip
        policies = make_policies(20, judge.processor.tokenizer)
        print(f"read once for several cases: {judge.prefix_sharing}")
        clock.begin()
        tables = {
            "reading": reading(judge, samples, policies[0], found.gpu, clock),
            f"judging, replies of {WORDS} tokens": judging(judge, samples, policies, clock),
        }
        print(f"peak while judging: {clock.peak():.1f} GB")
        del judge
        for stage in ("sft", "grpo"):
            tables[stage] = training(stage, model, Path(folder) / stage, options, found.gpu, clock)
        for title, table in tables.items():
            print(f"\n{title}\n\n{table.round(3).to_markdown(index=False)}")


if __name__ == "__main__":
    main()
