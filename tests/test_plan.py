"""The plan of a profile, against counts of the architectures and published measurements."""

import re
from types import SimpleNamespace

import pytest
from test_training import caption_rows

from sgvl.common.errors import ExitCode, InputError
from sgvl.data.sources import general, llavaguard, safeeditbench, unsafebench
from sgvl.judges.systems import SYSTEMS
from sgvl.report import reference
from sgvl.run import __main__ as command
from sgvl.run import planning, receipts, servers
from sgvl.run import units as units_module
from sgvl.run.planning import Line, Plan, costs, gates, models, published_rows, show
from sgvl.run.planning.costs import Training
from sgvl.run.planning.machine import kinds, like, machine
from sgvl.run.rehearsal import published
from sgvl.run.units import load_units
from sgvl.training import sft

MODELS, GPUS = models.published(), kinds()
Q3, Q7 = (MODELS[f"Qwen/Qwen2.5-VL-{n}B-Instruct"] for n in (3, 7))
FACTOR = 2.5  # that a computed time may be off, either way


def a_step(size, gpu, gpus, rollouts, batch, picture, text, reply, served, passes) -> float:
    """Seconds of a GRPO step with all weights trained."""
    tokens = picture + text + reply
    share = costs.PREFILL if served else costs.UPDATE
    read = costs.vision(size, picture) + costs.forward(size, picture + text)
    of_one = costs.update(size, gpu, tokens, picture, False, passes) + read / gpu.flops / share
    of_one += reply * costs.decode(size, gpu, batch, tokens, served) / batch
    return rollouts / gpus * of_one


def anchors() -> list[tuple[str, str, float, float, str, float]]:
    """Settings with a measurement of others: setting, source, low, high, unit, and computed."""
    h100, a100, q2 = GPUS["H100"], GPUS["A100-80"], MODELS["Qwen/Qwen2-VL-2B-Instruct"]
    # 512 prompts x 5 replies; their tokens from 1,800 a second and GPU, half of them of a reply.
    easy = [1800 * 8 * seconds / 2560 / 2 for seconds in (132, 120)]
    served = Q7._replace(picture=324)  # 424 tokens come in for a request, 1,023 go out
    return [
        ("GRPO step, 7B, all weights, 8 x H100, 2,560 rollouts by vLLM", "EasyR1 v0.3.2", 120, 145,
         "s", a_step(Q7, h100, 8, 2560, 320, 300, easy[0] - 300, easy[0], True, 2)),
        ("the same, 3B", "EasyR1 v0.3.2", 120, 120,
         "s", a_step(Q3, h100, 8, 2560, 320, 300, easy[1] - 300, easy[1], True, 2)),
        ("GRPO step, Qwen2-VL-2B, 8 x H100, 64 rollouts by transformers (512 tokens assumed)",
         "open-r1-multimodal", 36, 36, "s", a_step(q2, h100, 8, 64, 8, 1000, 200, 512, False, 1)),
        ("GRPO step, 2B, 8 x A100, 64 rollouts by transformers (512 tokens assumed)",
         "R1-V issue 39", 18, 18, "s", a_step(q2, a100, 8, 64, 8, 300, 100, 512, False, 1)),
        ("vLLM, Qwen2.5-VL-7B, MMMU, caches off (H100 assumed)", "sglang issue 9812", 7.57, 7.57,
         "requests/s", 1 / costs.answer(served, h100, 100, 1023, 256, True)),
    ]  # fmt: skip


@pytest.mark.parametrize("anchor", anchors(), ids=lambda anchor: anchor[0])
def test_a_time_is_within_the_factor_of_what_others_measured(anchor):
    *_, low, high, _, computed = anchor
    assert low / FACTOR < computed < high * FACTOR


def test_flops_and_the_cache_are_those_worked_out_by_hand_for_7b():
    """facts: 6.53 B in linear layers, 57,344 bytes a token, 17.3 TFLOP for 1,300, vision 5.5."""
    assert (Q7.linear, Q7.cache) == (6_525_288_448, 57_344)
    assert costs.forward(Q7, 1300) / 1e12 == pytest.approx(17.3, abs=0.05)
    assert costs.vision(Q7, 1000) / 1e12 == pytest.approx(5.5, rel=0.02)


def test_states_are_those_of_the_zero_paper_and_easyr1s_table_of_memory_fits():
    """16 bytes a trained parameter; 7B in mixed precision on 8 GPUs of 40 GB, and not on 4."""
    whole = Training(Q7, 8, "float32", sharded=True, reference=True)
    trained = Q7.parameters - Q7.vision
    expected = (16 * trained + 2 * Q7.vision + 2 * Q7.parameters) / 8
    assert sum(whole.states().values()) == pytest.approx(expected)
    with_copy = [
        sum(whole._replace(processes=n).states().values()) + whole.gathered() for n in (8, 4)
    ]
    assert with_copy[0] < 40e9 < with_copy[1]
    lora = Training(Q7, 8, "bfloat16", rank=64)
    count = costs.adapters(Q7, 64)
    assert sum(lora.states().values()) == 2 * Q7.parameters + 16 * count < 32e9
    assert lora.checkpoint(False) == 12 * count and lora.checkpoint(True) == 4 * count
    assert whole.checkpoint(False) == 2 * Q7.parameters + 12 * trained


# -- shapes ----------------------------------------------------------------------------------------

SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "patch_size": 14,
}
SIGLIP |= {"model_type": "siglip_vision_model", "vision_use_head": False}
ASPECTS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
CONFIGS = {  # the vision tower, and what else is not in the table
    "Qwen/Qwen2.5-VL": ("qwen2_5_vl", "", lambda size: {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "out_hidden_size": size.hidden, "fullatt_block_indexes": [7, 15, 23, 31]}),
    "Qwen/Qwen2-VL": ("qwen2_vl", "", lambda size: {
        "depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": size.hidden}),
    "AIML-TUDA/LlavaGuard": ("llava_onevision", "qwen2", lambda size: SIGLIP | {
        "num_hidden_layers": 26, "image_size": 384}),
    "google/": ("gemma3", "gemma3_text", lambda size: SIGLIP | {
        "num_hidden_layers": 27, "image_size": 896}),
    "llava-hf/llava-v1.6": ("llava_next", "llama", lambda size: {
        "model_type": "clip_vision_model", "hidden_size": 1024, "num_hidden_layers": 24,
        "intermediate_size": 4096, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}),
    "meta-llama/Llama-Guard-3": ("mllama", "mllama_text_model", lambda size: {
        "model_type": "mllama_vision_model", "hidden_size": 1280, "num_hidden_layers": 32,
        "num_global_layers": 8, "attention_heads": 16, "intermediate_size": 5120,
        "image_size": 560, "patch_size": 14, "vision_output_dim": 7680,
        "intermediate_layers_indices": [3, 7, 15, 23, 30], "supported_aspect_ratios": ASPECTS}),
    "Salesforce/instructblip": ("instructblip", "llama", lambda size: {
        "hidden_size": 1408, "num_hidden_layers": 39, "intermediate_size": 6144,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14}),
}  # fmt: skip
TIED = ("Qwen/Qwen2.5-VL-3B", "Qwen/Qwen2-VL-2B", "AIML-TUDA/LlavaGuard-v1.2-0.5B", "google/")
QUICK = "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(
    "model", [m if m == QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MODELS]
)
def test_the_number_of_weights_is_that_of_the_architecture(model):
    from transformers import AutoConfig

    size = MODELS[model]
    if model.startswith(("tyodd/", "AIML-TUDA/QwenGuard")):  # a training of that base
        assert size == (Q3 if "3B" in model else Q7)
        return
    kind, text, vision = next(c for name, c in CONFIGS.items() if model.startswith(name))
    tied = model.startswith(TIED)
    fields = {
        **{"hidden_size": size.hidden, "num_hidden_layers": size.layers, "head_dim": size.head},
        **{"num_attention_heads": size.heads, "num_key_value_heads": size.groups},
        **{"intermediate_size": size.mlp, "vocab_size": size.vocabulary},
        "tie_word_embeddings": tied,
    }
    if kind == "mllama":
        fields["cross_attention_layers"] = [3, 8, 13, 18, 23, 28, 33, 38]
    fields |= {"model_type": text} if text else {}
    more = {"qformer_config": {"vocab_size": 30523}} if kind == "instructblip" else {}
    more |= {} if kind == "mllama" else {"tie_word_embeddings": tied}
    config = AutoConfig.for_model(kind, text_config=fields, vision_config=vision(size), **more)
    assert models.count(config) == size._replace(picture=1000, file_bytes=2)


def test_a_folder_is_counted_from_its_own_configuration():
    size = models.size_of("nano")
    file = models.NANO_MODEL / "model.safetensors"
    assert 2.9e6 < size.parameters < 3.3e6
    head = int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - head - 8 == 2 * size.parameters, "in float16, and nothing else"
    assert models.size_of("nobody/has-this") is None and models.size_of("a\0b/..") is None


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": "nope"}', '{"model_type": "llama"}'])
def test_a_configuration_that_makes_no_model_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json: its parameters cannot be counted"):
        models.size_of(str(tmp_path))


def test_values_of_which_no_plan_can_be_made_are_named():
    units = load_units("single")
    plan, values = Plan(units, {}, GPUS["H100"], 8), units["03_sft.recap"].parameters
    batch = {"per_device_train_batch_size": 0, "gradient_accumulation_steps": "8"}
    for wrong, said in [
        ({"processes": 0}, "processes: got 0, expected 1 or more"),
        ({"settings": values["settings"] | batch}, "batch_size: got 0.*\n.*steps: got '8'"),
        ({"dtype": "float128"}, "dtype 'float128'; did you mean float32"),
    ]:
        with pytest.raises(InputError, match=f"03_sft.recap: .*{said}"):
            plan._training(Line("03_sft.recap"), values | wrong)


def test_the_whole_of_nano_needs_no_gpu_though_05_asks_in_two_processes(capsys):
    code, out, _ = printed(capsys, "nano")
    assert code == ExitCode.DONE and out.startswith("no GPU is needed")
    assert "not compared" not in out, "its disk is that of this machine"
    code, _, err = printed(capsys, "nano", "--gpus", "8")
    assert code == ExitCode.BAD_INPUT and "as in 8xH100; known: " in err


def test_a_training_on_from_one_of_nano_needs_no_gpu_either(capsys):
    code, out, _ = printed(capsys, "nano", "--only", "04_grpo.full")
    assert code == ExitCode.DONE and out.startswith("no GPU is needed")


# -- the command -----------------------------------------------------------------------------------


def printed(capsys, *arguments) -> tuple[ExitCode, str, str]:
    code = command.main([*arguments, "--plan"])
    return code, *capsys.readouterr()


def test_the_plan_of_paper_marks_every_figure_and_has_the_hours_of_each_table(capsys):
    code, out, _ = printed(capsys, "paper", "--gpus", "8xH100")
    assert code == ExitCode.DONE and out.startswith("plan for 8 x H100 (80 GB), as --gpus names")
    assert "\nc computed, m measured, + with a note below the table; memory in GB" in out
    assert " optimiser activations rollout cache " in out
    units = load_units("paper")
    table, tables = out.split("GPU-hours of each table")
    rows = {line.split()[0]: line for line in table.splitlines() if line.split()[:1]}
    assert set(units) <= set(rows)
    full = re.fullmatch(r"04_grpo.full +8 .* 36 c +([\d.]+) c +141 c", rows["04_grpo.full"])
    assert 40 < float(full[1]) < 200, "19 hours on 8 GPUs at most, as worked out before"
    assert all(re.search(r"\d c\b", rows[name]) for name in units if name[:2] in ("02", "04", "05"))
    hours = dict(re.findall(r"(?m)^(table\d) +([\d.]+) \+ [\d.]+ c", tables))
    assert list(hours) == list(show.ROLES_OF) and min(map(float, hours.values())) > 0
    assert "04_grpo.L5 by your set" in out and "google/gemma-3-27b-it: 55 GB c" in out
    asked = "three for each of 12,680 pictures, and 12,155 of the judge behind a server"
    assert "API calls (computed): 50,195; cost of" in out, asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["single", "--gpus", "1xRTX 4090"], "lower `per_device_train_batch_size`"),
        (["paper", "--gpus", "4xRTX 4090"], "needs 8 of 4 GPUs; lower `processes`"),
        (
            ["paper", "--gpus", "8xH1000"],
            "8xH1000': write COUNTxNAME, as in 8xH100; known: A100-40, ",
        ),
    ],
)
def test_a_plan_that_does_not_fit_names_the_parameter(arguments, said, capsys):
    code, _, err = printed(capsys, *arguments)
    assert code == ExitCode.BAD_INPUT and said in err, err
    if "4xRTX" in arguments[2]:
        assert "lower `max_completion_length` or `max_pixels`, or set `use_vllm`" in err
        assert "02_recaption: GPU 7 of 4, counted from 0; change `gpus` in servers.yaml" in err


def test_a_server_whose_weights_do_not_fit_is_named():
    units = load_units("paper")
    known = servers.declared("paper", units)
    alone = known["recaptioner"].model_copy(update={"arguments": []})
    problems = [
        Plan(units, {"recaptioner": server}, GPUS["A100-40"], 8)
        .line(units["02_recaption"])
        .problems
        for server in (known["recaptioner"], alone)
    ]
    assert problems[0] == [] and "55 GB of weights on each GPU, of 36" in problems[1][0]
    assert "raise --tensor-parallel-size in `arguments` of servers.yaml" in problems[1][0]


def test_a_change_of_a_parameter_changes_what_it_says_it_changes():
    units = load_units("paper")
    plan = Plan(units, {}, GPUS["H100"], 8)
    values = units["04_grpo.full"].parameters

    def changed(**settings):
        return plan.disk(values | {"settings": values["settings"] | settings})

    model, one = 4 * Q7.parameters, 2 * Q7.parameters + 12 * (Q7.parameters - Q7.vision)
    assert changed() == (model + one, one)
    assert changed(save_total_limit=3) == (model + 3 * one, one)
    assert changed(save_total_limit=None) == (model + 23 * one, 0), "2,286 steps, each 100"
    assert changed(save_only_model=True) == (model + 2 * Q7.parameters, 2 * Q7.parameters)
    assert changed(save_strategy="no") == (model, 0)
    assert plan.steps(values) == 2286 and plan.training_rows(values) == llavaguard.ROWS["train"]
    vllm = {"use_vllm": True, "vllm_mode": "colocate"}
    memory = []
    for settings in ({}, vllm, vllm | {"vllm_mode": "server"}):
        line = Line("a unit")
        plan._training(line, values | {"settings": values["settings"] | settings})
        memory.append((line.memory["rollout"], line.hours))
    assert memory[1][0] == 0.3 * 80e9 and memory[2][0] == 0, "a share of the GPU, or another GPU"
    assert memory[1][1] < memory[0][1] / 2, "its decoding does not wait for launches"


def test_a_unit_that_is_done_has_its_measured_time_and_bytes(tmp_path, monkeypatch):
    for module in (planning, receipts, units_module):
        monkeypatch.setattr(module, "runs", lambda profile: tmp_path)
    units = load_units("paper")
    unit = units["04_grpo.full"]
    plan = Plan(units, {}, GPUS["H100"], 8)
    assert plan.line(unit).measured == set()
    (tmp_path / "training/04_grpo.full/model").mkdir(parents=True)
    (tmp_path / "training/04_grpo.full/model/model.safetensors").write_bytes(b"12345")
    facts = receipts.environment() | {"seconds": 7200}
    receipts.write_receipt(unit, units, receipts.Status.OK, **facts)
    line = plan.line(unit)
    assert (line.hours, line.disk, line.measured) == (16, 5, {"hours", "disk"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.json").write_text('{"sets": {"llavaguard": {"rows": 40}}}')
    assert plan.steps(unit.parameters) == 20, "the rows that are stored, not the published ones"


def test_models_to_download_count_on_a_disk_that_the_cache_shares(monkeypatch, capsys):
    """30 GB of runs/ and 40 GB of models, with 50 GB free: they fit apart, and not together."""
    here = machine("", 0)
    lines = [Line("03_sft.a", disk=5e9), Line("04_grpo.b", disk=15e9, extra=10e9)]
    monkeypatch.setattr(show.shutil, "disk_usage", lambda folder: SimpleNamespace(free=50e9))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(show.ROOT / "none/hub"))
    assert show.disk(lines, 0, here) == []
    assert capsys.readouterr().out == "disk of runs/: 30 GB c at most; 50 GB m free here\n"
    (problem,) = show.disk(lines, 40e9, here)
    assert problem.startswith("70 GB of disk, and 50 are free; 40 are models: set HF_HOME")
    assert "; most of runs/ is of 04_grpo.b; lower `save_total_limit`" in problem
    more = "; downloads come on top, in the hub's cache: 40 GB c of models, and data sets; 50 GB m"
    assert f"disk of runs/: 30 GB c at most{more} free here" in capsys.readouterr().out
    disks = iter("ab")
    place = SimpleNamespace(stat=lambda: SimpleNamespace(st_dev=next(disks)))
    monkeypatch.setattr(show, "_existing", lambda folder: place)
    assert show.disk(lines, 40e9, here) == [], "the cache is on another disk"


def test_gates_are_asked_of_the_hub(hub, monkeypatch):
    assert gates.OF_KIND["safeeditbench"] == [safeeditbench.REPO]
    assert gates.OF_KIND["unsafebench"] == [unsafebench.REPO]
    assert gates.OF_KIND["llavaguard"][0] == llavaguard.REPO
    hub.repos[unsafebench.REPO] = {}
    hub.gated.add(unsafebench.REPO)
    assert gates.accepted(unsafebench.REPO) == "no: HF_TOKEN is not set"
    monkeypatch.setenv("HF_TOKEN", "a stranger's")
    assert gates.accepted(unsafebench.REPO) == "no"
    hub.members.add("a stranger's")
    assert gates.accepted(unsafebench.REPO) == "yes"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert gates.accepted(unsafebench.REPO) == "not checked: ConnectError"


def test_every_gate_is_listed_once_and_stands_before_the_rehearsal_too(hub):
    published.publish(hub)
    data = {repo for repo, role in gates.GATED.items() if role.startswith("data")}
    assert hub.gated == data == {repo for repos in gates.OF_KIND.values() for repo in repos}
    judges = {system.spec["model"] for system in SYSTEMS.values() if system.gate not in ("", "key")}
    assert judges == {repo for repo, role in gates.GATED.items() if role == "a judge"}


def test_the_roles_of_a_table_are_those_of_its_printed_columns():
    roles = {"UnsafeBench": "content", "SafeEditBench": "bench", "LlavaGuard": "own", "L1": "bench"}
    roles |= {"General": "questions", "MMMU": "questions"}
    columns = reference.table("columns")
    for name, expected in show.ROLES_OF.items():
        sets = columns[columns["table"] == name]["set"]
        assert {roles[s] for s in sets if s in roles} == set(expected), name


def test_rows_are_those_of_the_loaders():
    assert published_rows({"kind": "unsafebench", "split": "train"}) == 8109
    assert published_rows({"kind": "general", "benchmark": "blink"}) == general.ROWS["blink"]
    assert published_rows({"kind": "safeeditbench"}) == 601
    assert published_rows({"kind": "safeeditbench", "path": "data/mine"}) is None
    assert published_rows({"kind": "folder", "path": "photos"}) is None


def test_an_editor_is_beside_its_assessor_and_each_picture_counts():
    unit = "01b_safeedit.train"
    units = load_units("single")
    line = Plan(units, {}, GPUS["A100-40"], 1, measured=False).line(units[unit])
    assert line.memory["weights"] == 2 * Q3.parameters + 8.05e9 and not line.problems
    units[unit].parameters["editor"] |= {"offload": False, "settings": {"num_inference_steps": 8}}
    other = Plan(units, {}, GPUS["A100-40"], 1, measured=False).line(units[unit])
    assert other.memory["weights"] - line.memory["weights"] == 7.75e9
    slower = 600 * 4 * 7.75e9 * (2 * 4096 + 512) / 312e12 / 0.2 / 3600  # by hand: 4 more steps
    assert other.hours - line.hours == pytest.approx(slower)


def test_a_gpu_that_was_found_has_the_speed_of_its_kind():
    gpu = like("NVIDIA A100-SXM4-40GB", 42e9)
    assert (gpu.name, gpu.memory, gpu.bandwidth) == ("NVIDIA A100-SXM4-40GB", 42e9, 1.555e12)
    assert like("NVIDIA H200", 150e9).bandwidth == 4.8e12
    with pytest.raises(InputError, match="write COUNTxNAME"):
        machine("H100", 1)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"r": 4, "lora_alpha": 8}])
def test_the_bytes_of_a_training_are_those_on_disk(lora, tmp_path):
    """A real training of the nano model: two steps, a checkpoint at each, the last one kept."""
    settings = {"per_device_train_batch_size": 4, "max_steps": 2, "save_steps": 1}
    settings |= {"save_total_limit": 1, "max_length": None, "logging_steps": 1}
    sft.train(caption_rows(), "nano", tmp_path / "run", settings, lora or None)
    values = {"settings": settings, "lora": lora, "model": "nano", "dtype": "float32"}
    values |= {"processes": 1, "layout": "ddp", "variant": "recap"}
    bytes_, extra = Plan({}, {}, GPUS["H100"], 1).disk(values)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    weights = sum(f.stat().st_size for f in files if f.suffix in (".safetensors", ".pt", ".bin"))
    assert bytes_ == pytest.approx(weights, rel=0.05) and extra > 0
