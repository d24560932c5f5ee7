"""The plan of a profile before anything runs: memory, GPU-hours, disk, downloads, calls, cost.

    python -m sgvl.run PROFILE --plan

A figure is computed from the parameter files by the formulas of ``costs``, or measured: a unit that
is done has the time of its receipt and the bytes of its folder, and stored sets have their rows.
"""

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pkgutil import resolve_name

from sgvl.common.errors import need_known, raise_any
from sgvl.common.paths import runs
from sgvl.common.registry import id_of
from sgvl.run import receipts
from sgvl.run.planning import costs
from sgvl.run.planning.costs import GPU, Size, Training
from sgvl.run.planning.models import size_of
from sgvl.run.servers import Server, asked_by
from sgvl.run.units import SERVED, Unit

# Lengths in tokens where no data set is at hand to count; ours.
POLICY, LONG_POLICY = 300, 1300  # of one level, and of LlavaGuard's text
CAPTION = 200
WORD, RATING = 8, 200  # of a reply of one word, and of one in JSON or with a reason
LARGEST = 15301  # of a photograph of 12 megapixels, which memory has to hold
SHARE = 0.9  # of a GPU's memory, which vLLM takes by default
LONG_FORMS = ("text", "full", "slots", "numbered")
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
ROLES = ("bench", "content", "own", "questions", "following")


@dataclass
class Line:
    """What one unit takes. Bytes are on the fullest GPU, of the step that needs most."""

    unit: str
    gpus: int = 0
    memory: dict[str, float] = field(default_factory=dict)  # by part
    hours: float = 0.0  # of a GPU
    disk: float = 0.0
    extra: float = 0.0  # more of the disk, while a checkpoint replaces another
    calls: int = 0
    cost: float = 0.0
    judged: dict[tuple[str, str], float] = field(default_factory=dict)  # (judge, role): GPU-hours
    measured: set[str] = field(default_factory=set)  # the fields that are not computed
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Bytes on the fullest GPU: activations and rollouts are never there together."""
        either = [self.memory.get(part, 0) for part in ("activations", "rollout")]
        return sum(self.memory.values()) - min(either)

    def holds(self, memory: dict[str, float]) -> None:
        """Keep the memory of a step if it needs more than the steps before."""
        other = Line(self.unit, memory=memory)
        self.memory = memory if other.total > self.total else self.memory


class Plan:
    """The lines of a profile's units, in their order.

    Parameters
    ----------
    units : all units of the profile
    servers : that it declares
    gpu : the kind of GPU that it is planned for
    count : how many there are
    measured : take what receipts and stored sets say, where they are
    """

    def __init__(
        self, units: dict[str, Unit], servers: dict[str, Server], gpu: GPU, count: int,
        measured: bool = True,
    ):  # fmt: skip
        self.units, self.servers, self.gpu, self.count = units, servers, gpu, count
        self.measured = measured

    def lines(self, names: list[str]) -> list[Line]:
        """Plan units, by name."""
        return [self.line(self.units[name]) for name in names]

    def line(self, unit: Unit) -> Line:
        """Plan one unit: what it trains, captions and judges, and what a receipt has measured."""
        line, values = Line(unit.name), unit.parameters
        if "settings" in values:
            self._training(line, values)
        if "captioner" in values:
            self._captioning(line, unit)
        if "editor" in values:
            self._editing(line, values)
        for judge, role, n in self._questions(values):
            self._judging(line, values, judge, role, n)
        self._check_memory(line, values)
        if line.gpus > self.count:
            line.problems.append(
                f"needs {line.gpus} of {self.count} GPUs; lower `processes`, or its servers' `gpus`"
            )
        if self.measured:
            self._measure(line, unit)
        return line

    def _measure(self, line: Line, unit: Unit) -> None:
        """Put the time of a receipt and the bytes of a finished training in the place of plans."""
        receipt = receipts.read_receipt(unit) or {}
        if receipt.get("status") == receipts.Status.OK and "seconds" in receipt:
            line.hours = receipt["seconds"] * line.gpus / 3600
            line.measured.add("hours")
        folder = runs(unit.profile) / "training" / unit.name
        if (folder / "model").is_dir():
            line.disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            line.measured.add("disk")

    # -- rows --------------------------------------------------------------------------------------

    def rows(self, name: str) -> int | None:
        """Return the rows of a set of 01: stored, or published; None if neither is known."""
        data = self.units.get("01_data")
        if data is None:
            return None
        if self.measured:
            with suppress(OSError, ValueError, LookupError, TypeError):
                file = runs(data.profile) / "data" / "manifest.json"
                return json.loads(file.read_text(encoding="utf-8"))["sets"][name]["rows"]
        spec = data.parameters.get("sources", {}).get(name)
        return published_rows(spec) if isinstance(spec, dict) else None

    def _images(self, values: dict | None = None) -> int | None:
        """Return the pictures that a unit takes at most; 02 captions those of a training."""
        if values is None:
            values = self.units["02_recaption"].parameters if "02_recaption" in self.units else {}
        counts = [self.rows(name) for name in values.get("pictures", [])]
        if not counts or None in counts:
            return values.get("images") or None
        return min(values.get("images") or math.inf, sum(counts))

    def training_rows(self, values: dict) -> int | None:
        """Return the rows of a training at most; None where its set is not known."""
        variant = values["variant"]
        if variant in ("recap", "no_recap"):
            return self._images()
        return self.rows(
            values["train" if variant in ("full", "rl", "taxonomy") else "pairs_train"]
        )

    # -- trainings ---------------------------------------------------------------------------------

    def training(self, values: dict) -> Training | None:
        """Return what decides the memory of a training; None for a model of unknown shape."""
        size = size_of(base_of(self.units, values["model"]))
        if size is None:
            return None
        sharded = any(name in values["layout"] for name in ("zero3", "fsdp"))
        reference = values["settings"].get("beta", 0) != 0
        rank = values["lora"].get("r", 8) if values["lora"] else 0
        return Training(size, values["processes"], values["dtype"], rank, sharded, reference)

    def steps(self, values: dict) -> int | None:
        """Return the optimiser's steps at most; None where the rows are not known."""
        settings, rows = values["settings"], self.training_rows(values)
        if settings.get("max_steps", -1) > 0:
            return settings["max_steps"]
        batch = settings.get("per_device_train_batch_size", 8) * values["processes"]
        batch *= settings.get("gradient_accumulation_steps", 1)
        batch /= settings.get("num_generations", 8) if "reward" in values else 1
        epochs = settings.get("num_train_epochs", 3 if "reward" not in values else 1)
        return math.ceil(rows / batch * epochs) if rows else None

    def disk(self, values: dict) -> tuple[float, float]:
        """Return the bytes of a training's model and checkpoints, and of one that replaces one."""
        work, settings = self.training(values), values["settings"]
        size = costs.BYTES[values["dtype"]] * work.size.parameters
        saved = settings.get("save_strategy", "steps") != "no"
        steps, every = self.steps(values), settings.get("save_steps", 500)
        saves = math.ceil(steps / every) if steps and every >= 1 else math.inf
        kept = min(settings.get("save_total_limit") or math.inf, saves) if saved else 0
        one = work.checkpoint(settings.get("save_only_model", False))
        return size + (kept if kept < math.inf else 1) * one, one * (0 < kept < saves)

    def _training(self, line: Line, values: dict) -> None:
        settings = values["settings"]
        counts = {name: settings.get(name, 1) for name in BATCH} | {
            "processes": values["processes"]
        }
        raise_any(
            f"{line.unit}: {name}: got {n!r}, expected 1 or more"
            for name, n in counts.items()
            if not isinstance(n, int) or n < 1
        )
        need_known(f"{line.unit}: dtype", values["dtype"], costs.BYTES)
        work = self.training(values)
        if work is None:
            line.notes.append(f"the shape of {base_of(self.units, values['model'])} is not known")
            return
        line.disk, line.extra = self.disk(values)
        if base_of(self.units, values["model"]) == "nano":
            return  # on CPUs
        line.gpus = values["processes"]
        size, groups = work.size, "reward" in values
        batch = settings.get("per_device_train_batch_size", 8)
        text = LONG_POLICY if values["policy_form"] in LONG_FORMS else POLICY
        text = CAPTION if values["variant"] in ("recap", "no_recap") else text
        reply = settings.get("max_completion_length", 256) if groups else CAPTION
        largest = self._picture(size, values, LARGEST) + text + reply
        memory = work.states()
        checkpointing = settings.get("gradient_checkpointing", True)
        memory["activations"] = costs.activations(size, batch * largest, checkpointing)
        if groups:
            memory["activations"] += costs.logits(size, batch * reply)
            memory["rollout"] = self._rollout(work, settings, batch, largest)
        line.holds(memory)
        rows = self.steps(values)
        if rows is None:
            line.notes.append("hours by the rows of your set")
            return
        rows *= batch * settings.get("gradient_accumulation_steps", 1) * work.processes
        picture = self._picture(size, values, size.picture)
        tokens = picture + text + reply
        lora, passes = bool(work.rank), int(work.reference)
        seconds = rows * costs.update(size, self.gpu, tokens, picture, lora, passes)
        if groups:
            seconds += rows * self._generate(size, settings, batch, picture + text, reply)
        line.hours += seconds / 3600

    def _picture(self, size: Size, values: dict, tokens: int) -> int:
        """Return the tokens of a picture within ``max_pixels``; other families have fixed sizes."""
        limit = values.get("max_pixels") or 0
        return min(tokens, limit // costs.PIXELS_PER_TOKEN) if limit else size.picture

    def _rollout(self, work: Training, settings: dict, batch: int, tokens: int) -> float:
        if settings.get("use_vllm"):
            share = settings.get("vllm_gpu_memory_utilization", 0.3)
            colocated = settings.get("vllm_mode", "colocate") == "colocate"
            return share * self.gpu.memory if colocated else 0
        replies = batch * self._per_generation(settings)
        return work.gathered() + replies * tokens * work.size.cache

    def _generate(self, size: Size, settings: dict, batch: int, prompt: int, reply: int) -> float:
        """Return the seconds of one GPU for one reply, at its full length."""
        batch *= self._per_generation(settings)
        read = costs.vision(size, size.picture) + costs.forward(size, prompt)
        step = costs.decode(size, self.gpu, batch, prompt + reply, bool(settings.get("use_vllm")))
        return read / self.gpu.flops / costs.UPDATE + reply * step / batch

    def _per_generation(self, settings: dict) -> int:
        steps = settings.get("gradient_accumulation_steps", 1)
        return settings.get("steps_per_generation") or steps

    # -- captions ----------------------------------------------------------------------------------

    def _captioning(self, line: Line, unit: Unit) -> None:
        values, images = unit.parameters, self._images()
        prompts = len(values["prompts"])
        asked = [self.servers[name] for name in asked_by(unit, self.servers)]
        line.gpus = len({gpu for server in asked for gpu in server.gpus}) or line.gpus
        for server in asked:
            self._serving(line, server)
        for name, times in {"captioner": 1, "recaptioner": prompts}.items():
            spec = values[name]
            n = (images or 0) * times
            if spec["kind"] == "served":
                line.calls += n
            reply = min(spec.get("max_tokens", CAPTION), CAPTION)
            prompt = CAPTION + (0 if name == "captioner" else CAPTION)
            if name == "recaptioner":
                tokens = prompt + spec.get("image_tokens", 0)
                prices = values["price_in"] * tokens + values["price_out"] * reply
                line.cost += n * prices / 1e6
            line.hours += n * self._seconds(line, spec, prompt, reply, asked) / 3600
        if images is None and (line.gpus or asked):
            line.notes.append("the number of pictures is not known")

    # -- edits -------------------------------------------------------------------------------------

    def _editing(self, line: Line, values: dict) -> None:
        """Plan two questions to the assessor and an edit for each picture, as if none were safe."""
        n, assessor, editor = self._images(values) or 0, values["assessor"], values["editor"]
        reply = min(assessor.get("max_tokens", CAPTION), CAPTION)
        asked = sum(self._seconds(line, assessor, CAPTION, words) for words in (reply, WORD))
        line.calls += n * (2 * (assessor.get("kind") in SERVED) + (editor.get("kind") == "gemini"))
        line.cost += n * values["price_picture"]
        if editor.get("kind") == "diffusers":
            line.gpus = max(line.gpus, 1)
            known = costs.EDITORS.get(editor.get("model"))
            if known:  # beside the assessor, which stays where it is
                asked += known.seconds(self.gpu, editor.get("settings", {}))
                weights = line.memory.get("weights", 0) + known.weights(editor.get("offload"))
                line.holds({"weights": weights, "activations": known.activations})
            else:
                line.notes.append(f"the shape of {editor.get('model')} is not known")
        line.hours += n * asked / 3600
        if n and assessor.get("kind") != "rationale":
            line.notes.append("each picture counts as one to edit")

    def _seconds(
        self, line: Line, spec: dict, prompt: int, reply: int, servers: list[Server] = ()
    ) -> float:
        """Return the GPU-seconds of one request, and keep the memory of the model it asks."""
        own = [server for server in servers if server.url == spec.get("url")]
        model = base_of(self.units, spec.get("model", ""))
        if not model or model == "nano" or (spec["kind"] in SERVED and not own):
            return 0.0
        if (size := size_of(model)) is None:
            line.notes.append(f"the shape of {model} is not known")
            return 0.0
        if own:  # the GPUs of all its unit's servers wait for it
            idle = line.gpus / (len(own[0].gpus) or 1)
            batch = spec.get("concurrency", 8) / (len(own[0].gpus) or 1)
            return idle * costs.answer(size, self.gpu, prompt, reply, batch, True)
        batch = spec.get("batch_size", 1)
        line.gpus = max(line.gpus, 1)
        size = size._replace(picture=self._picture(size, spec, size.picture))
        tokens = batch * (self._picture(size, spec, LARGEST) + prompt + reply)
        weights = costs.BYTES.get(spec.get("dtype", "float32"), 4) * size.parameters
        one = 2 * tokens * (2 * size.hidden + 2 * size.mlp)  # of a layer, nothing is kept
        line.holds({"weights": weights, "activations": one, "cache": tokens * size.cache})
        return costs.answer(size, self.gpu, prompt, reply, batch, False)

    def _serving(self, line: Line, server: Server) -> None:
        """Keep the memory of a server, and say if its weights do not fit what vLLM takes."""
        size, words = size_of(server.model), server.arguments
        if size is None:
            return
        parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        parser.add_argument("--tensor-parallel-size", type=int, default=1)
        over = parser.parse_known_args(words)[0].tensor_parallel_size
        weights, room = 2 * size.parameters / over, SHARE * self.gpu.memory
        line.holds({"weights": weights, "cache": max(0, room - weights)})
        if weights > room:
            line.problems.append(
                f"{server.model} has {weights / 1e9:.0f} GB of weights on each GPU, of "
                f"{room / 1e9:.0f} that vLLM takes; raise --tensor-parallel-size in `arguments` of "
                "servers.yaml"
            )
        if server.gpus and max(server.gpus) >= self.count:
            line.problems.append(
                f"GPU {max(server.gpus)} of {self.count}, counted from 0; change `gpus` in "
                "servers.yaml"
            )

    # -- judges ------------------------------------------------------------------------------------

    def _questions(self, values: dict) -> Iterator[tuple[dict, str, int]]:
        """Yield each judge of a panel, a role, and the number of questions about its sets."""
        limit = values.get("rows") or math.inf
        for group in ("judges", "level_judges"):
            specs = [spec for spec in values.get(group, []) if isinstance(spec, dict)]
            for role in ROLES if group == "judges" else ROLES[:1]:
                named = values.get(role) or []
                for name in [named] if isinstance(named, str) else named:
                    n = min(limit if role != "bench" else math.inf, self.rows(name) or 0)
                    yield from ((spec, role, n) for spec in specs)

    def _judging(self, line: Line, values: dict, spec: dict, role: str, n: int) -> None:
        protocol = values.get("protocols", {}).get(role, {})
        spec = {"kind": "", **spec, **protocol}
        long = spec.get("policy_form") in LONG_FORMS or role in ("own", "following")
        prompt = LONG_POLICY if long else POLICY
        reply = WORD if spec.get("parser") in ("word", "released") else RATING
        reply = min(spec.get("max_new_tokens", 120), reply)
        hours = n * self._seconds(line, spec, prompt, reply) / 3600
        line.hours += hours
        line.calls += n if spec["kind"] in SERVED else 0
        key = id_of(spec), role
        line.judged[key] = line.judged.get(key, 0) + hours

    # -- what does not fit -------------------------------------------------------------------------

    def _check_memory(self, line: Line, values: dict) -> None:
        room = self.gpu.memory - costs.RESERVE
        if not line.gpus or line.total <= room:
            return
        states = [line.memory.get(part, 0) for part in ("weights", "gradients", "optimiser")]
        others = set(line.memory) - {"weights", "gradients", "optimiser"}
        part = "weights"
        if sum(states) < room:
            part = max(others, key=line.memory.get)
        line.problems.append(
            f"{line.total / 1e9:.1f} GB beside {costs.RESERVE / 1e9:.0f} of CUDA's on a GPU of "
            f"{self.gpu.memory / 1e9:.0f}, much of it {part}; {advice(part, values)}"
        )


def maker(units: dict[str, Unit], model: str) -> Unit | None:
    """Return the unit that trains a model; None for one that no unit of the profile trains."""
    parts = model.split("/")
    return units.get(parts[3]) if parts[0] == "runs" and len(parts) > 3 else None


def base_of(units: dict[str, Unit], model: str) -> str:
    """Return the model that a training starts from, through earlier trainings."""
    while unit := maker(units, model):
        model = unit.parameters["model"]
    return "nano" if model.startswith("sgvl/nano/") else model


def advice(part: str, values: dict) -> str:
    """Name the parameter that makes a part of the memory smaller."""
    settings = values.get("settings", {})
    if "settings" not in values:
        sizes = "lower `batch_size`, or else `max_pixels`, of the judges and captioners"
        return sizes if part != "weights" else "set `dtype: bfloat16`, or ask a smaller `model`"
    if part == "activations":
        if settings.get("per_device_train_batch_size", 8) > 1:
            return "lower `per_device_train_batch_size`, raise `gradient_accumulation_steps`"
        return "lower `max_pixels`"
    if part == "rollout" and settings.get("use_vllm"):
        return "lower `vllm_gpu_memory_utilization`"
    if part == "rollout":
        return "lower `max_completion_length` or `max_pixels`, or set `use_vllm`"
    if values.get("lora"):
        return "set `dtype: bfloat16`, or take a smaller `model`"
    if "zero3" not in values.get("layout", ""):
        return "set `layout: zero3` with more `processes`, or train adapters (`lora`)"
    return "raise `processes`, or train adapters (`lora`)"


def published_rows(spec: dict) -> int | None:
    """Return the published number of rows of a source of 01_data; None if none is known."""
    module = f"sgvl.data.sources.{spec.get('kind')}"
    if spec.get("path") or spec.get("repo"):  # a set of one's own
        return None
    try:
        rows = resolve_name(f"{module}:ROWS")
    except (ImportError, AttributeError, ValueError):
        return None
    key = spec.get("benchmark") or spec.get("split")
    return rows[key] if key in rows else sum(rows.values())
