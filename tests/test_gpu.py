"""docs/GPU.md: its tables are computed from the parameter files of the GPU profiles.

    python tests/test_gpu.py

writes them into the document.
"""

import math
import re
from pathlib import Path

import pytest
import yaml

from sgvl.common.paths import PARAMS
from sgvl.data.sources import general, llavaguard, safeeditbench, unsafebench
from sgvl.report import reference
from sgvl.run import servers
from sgvl.run.units import load_units

DOCUMENT = Path(__file__).parents[1] / "docs" / "GPU.md"
PROFILES = ("single", "paper")
# Counted on the architecture, all and those of the vision tower: see the test below.
SIZES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (3_754_622_976, 668_684_288),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8_292_166_656, 676_550_144),
}
# Hidden size, layers, query heads, key-value heads, MLP, vocabulary, tied embeddings.
SHAPES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
}
BYTES = {"bfloat16": 2, "float32": 4}
# Repositories whose terms are to be accepted, as far as their pages say.
GATED = {
    safeeditbench.REPO: "data",
    unsafebench.REPO: "data",
    llavaguard.REPO: "data",
    "AIML-TUDA/smid": "data: pictures of LlavaGuard",
    "google/gemma-3-27b-it": "the recaptioner of `paper`",
    "google/shieldgemma-2-4b-it": "a judge",
    "meta-llama/Llama-Guard-3-11B-Vision": "a judge",
    "meta-llama/Llama-Guard-4-12B": "a judge",
    "AIML-TUDA/LlavaGuard-v1.2-0.5B-OV-hf": "a judge",
    "AIML-TUDA/LlavaGuard-v1.2-7B-OV-hf": "a judge",
}
TRAINED = ("no_recap", "sft", "full")  # judges that are trained here on other captions


def parameters(profile: str) -> dict[str, dict]:
    """Read the parameter files of a profile, by unit."""
    files = sorted((PARAMS / profile).glob("0*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def texts(value):
    """Yield every text in parameters, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def gates() -> str:
    """List the gated repositories that a profile names, or that its sources read."""
    everything = set(texts([parameters(profile) for profile in PROFILES]))
    data = [repo for repo, role in GATED.items() if role.startswith("data")]
    named = [repo for repo in GATED if repo in everything]
    lines = [f"| `{repo}` | {GATED[repo]} |" for repo in [*data, *named]]
    return "\n".join(["| repository | what it is |", "| --- | --- |", *lines])


def adapters(model: str, r: int) -> int:
    """Count the parameters of adapters of rank r on all linear layers of the language model."""
    hidden, layers, heads, groups, mlp, *_ = SHAPES[model]
    narrow = hidden // heads * groups
    sides = [(hidden, hidden)] * 2 + [(hidden, narrow)] * 2 + [(hidden, mlp)] * 3
    return layers * r * sum(map(sum, sides))


def base_of(profile: str, model: str) -> str:
    """Return the hub id that a training starts from, through earlier trainings."""
    while model.startswith("runs/"):
        model = parameters(profile)[model.split("/")[3]]["model"]
    return model


def rows_of(profile: str, values: dict) -> int | None:
    """Return the rows of a training at most; None where its set was never released."""
    if values["variant"] in ("recap", "no_recap"):
        captions = unsafebench.ROWS["train"] + llavaguard.ROWS["train"]
        return parameters(profile)["02_recaption"].get("images") or captions
    full = values["variant"] in ("full", "rl", "taxonomy")
    return llavaguard.ROWS["train"] if full else None


def training(profile: str, unit: str, values: dict) -> list[str]:
    """Compute rows, steps, bytes on each GPU and bytes on disk of a training."""
    settings, processes = values["settings"], values.get("processes", 1)
    batch = settings["per_device_train_batch_size"] * processes
    batch *= settings.get("gradient_accumulation_steps", 1)
    batch /= settings.get("num_generations", 1)
    model = base_of(profile, values["model"])
    size, vision = SIZES[model]
    lora = values.get("lora")
    if lora:
        trained = adapters(model, lora["r"])
        memory, checkpoint = 2 * size + 16 * trained, 12 * trained
    else:
        trained = size - vision
        memory = (16 * trained + 2 * vision + 2 * size) / processes
        checkpoint = 2 * size + 12 * trained
    kept = settings.get("save_total_limit", 1)
    disk = BYTES[values["dtype"]] * size + kept * checkpoint
    rows = rows_of(profile, values)
    steps = f"{math.ceil(rows / batch):,}" if rows else "by your set"
    return [f"{rows:,}" if rows else "SafeEditTrain", steps, giga(memory), giga(disk)]


def giga(number: float) -> str:
    return f"{number / 1e9:.0f} GB" if number >= 1e10 else f"{number / 1e9:.1f} GB"


def units() -> str:
    """Make the table of trainings, those alike in one row."""
    alike: dict[tuple, list[str]] = {}
    for profile in PROFILES:
        for unit, values in parameters(profile).items():
            if unit.startswith(("03_", "04_")):
                alike.setdefault((profile, *training(profile, unit, values)), []).append(unit)
    head = "| profile | training | rows at most | steps at most | on each GPU | on disk |"
    lines = [
        f"| {profile} | {', '.join(f'`{name}`' for name in names)} | {' | '.join(numbers)} |"
        for (profile, *numbers), names in alike.items()
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *lines])


def requests() -> str:
    """Count the questions to one judge of everything, set by set."""
    sets = {
        "SafeEditBench": sum(safeeditbench.ROWS.values()),
        "UnsafeBench (test)": unsafebench.ROWS["test"],
        "LlavaGuard (test, at most)": llavaguard.ROWS["test"],
        "general ability": sum(general.ROWS.values()),
    }
    counts = ", ".join(f"{name} {n:,}" for name, n in sets.items())
    weights = ", ".join(
        f"{giga(2 * size)} for {name.split('/')[1]}" for name, (size, _) in SIZES.items()
    )
    return f"{counts}; {sum(sets.values()):,} in all. Weights in bfloat16: {weights} (*computed*)."


def rows() -> str:
    """Say of every row of Tables 2 to 6 what this kit can do about it."""
    lines = []
    asked = {spec.get("id") for p in PROFILES for spec in judges(parameters(p))}
    for name in ("table2", "table3", "table4", "table5", "table6"):
        table = reference.table(name)
        for row in table[table.columns[0]]:
            lines.append((f"Table {name[-1]}", row, can_do(row, asked)))
    alike: dict[tuple, list[str]] = {}
    for table, row, what in lines:
        alike.setdefault((table, what), []).append(row)
    body = [f"| {table} | {', '.join(names)} | {what} |" for (table, what), names in alike.items()]
    return "\n".join(["| | rows | |", "| --- | --- | --- |", *body])


def judges(profile: dict[str, dict]) -> list[dict]:
    """Return the judges of all panels of a profile."""
    panels = [values for unit, values in profile.items() if unit.startswith("05_")]
    return [
        spec
        for values in panels
        for spec in [*values.get("judges", []), *values.get("level_judges", [])]
    ]


def can_do(row: str, asked: set) -> str:
    """Say what this kit can do about a row of the paper."""
    known = [judge for judge, names in reference.ROWS.items() if row in names]
    if not known:
        return "no judge in the kit: not rebuilt"
    (judge,) = known
    if judge not in asked:
        return "not asked in these profiles"
    if re.fullmatch(r"(sft|rl)_L\d|rl_safeedit", judge):
        return "needs SafeEditTrain: not rebuilt without a set of your own"
    if judge in TRAINED:
        return "trained here on other pictures: not the paper's model"
    if judge == "rl":
        return "the released weights are asked, in a row of their own; this row is trained here"
    return "asked"


TABLES = {"gates": gates, "units": units, "requests": requests, "rows": rows}


def filled(text: str) -> str:
    """Put every computed part into its place in the document."""
    for name, make in TABLES.items():
        inline = name == "requests"
        part = make() if inline else f"\n{make()}\n"
        mark, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = re.sub(
            f"{mark}(.*?{end})?", lambda _, p=(mark, part, end): "".join(p), text, flags=re.S
        )
    return text


def write() -> None:
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def test_the_computed_parts_are_those_of_the_parameter_files():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == filled(text), "write it anew: python tests/test_gpu.py"
    assert all(f"<!-- end of {name} -->" in text for name in TABLES)


@pytest.mark.parametrize("model", SHAPES)
def test_the_number_of_weights_is_that_of_the_architecture(model):
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    hidden, layers, heads, groups, mlp, vocabulary, tied = SHAPES[model]
    config = Qwen2_5_VLConfig(
        text_config={
            **{"hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": vocabulary},
            **{"num_attention_heads": heads, "num_key_value_heads": groups},
            **{"intermediate_size": mlp, "tie_word_embeddings": tied},
        },
        vision_config={
            **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
            **{"out_hidden_size": hidden, "fullatt_block_indexes": [7, 15, 23, 31]},
        },
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        network = Qwen2_5_VLForConditionalGeneration(config)
    count = [sum(p.numel() for p in part.parameters()) for part in (network, network.model.visual)]
    assert tuple(count) == SIZES[model]
    linear = re.compile(r"language_model.*(_proj)$")
    sides = [
        module.in_features + module.out_features
        for name, module in network.named_modules()
        if linear.search(name)
    ]
    assert adapters(model, 64) == 64 * sum(sides)


def test_the_commands_and_variables_of_the_document_exist():
    text = DOCUMENT.read_text(encoding="utf-8")
    units = parameters("paper")
    for pattern in re.findall(r"--only (.*?)(?:#|\n)", text):
        for glob in re.findall(r"'([^']+)'", pattern):
            assert any(Path(name).match(glob) for name in units), glob
    assert "params/paper/servers.yaml" in text and servers.declared("paper", load_units("paper"))


if __name__ == "__main__":
    write()
