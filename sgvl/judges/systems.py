"""The systems that can judge, by name: how each is loaded, prompted and read.

A system's ``spec`` is what a parameter file writes for it; ``make_judge`` takes the name of a
system as a kind. Write the spec out in 05_benchmark (``python -m sgvl.judges NAME`` prints it): the
runner and the rehearsal look for the key ``model``.
"""

from typing import NamedTuple

from sgvl.common.errors import need_known
from sgvl.common.registry import options_of


class System(NamedTuple):
    """One released model as a judge.

    Parameters
    ----------
    title : is printed
    spec : kind and options of the judge
    architecture : transformers' ``model_type``, and the name of its stand-in in ``models.tiny``
    terms : licence, gate, and memory of the weights in bfloat16, as published or as two bytes a
        parameter
    policy : how a policy reaches it
    """

    title: str
    spec: dict
    architecture: str
    terms: str
    policy: str


def _chat(model: str, prompt: str = "word", parser: str = "word", form: str = "full", n: int = 64):
    return {
        "kind": "chat", "model": model, "prompt": prompt, "parser": parser, "policy_form": form,
        "max_new_tokens": n, "dtype": "bfloat16",
    }  # fmt: skip


FREE = "as text in the user turn"
SLOTTED = "its rules in the nine categories that it was trained on"
GUARD = "as the block of categories, in a turn built by hand: its own template holds Meta's"
META = "gated; not licensed to persons and companies in the EU"


def _two_ways(name: str, title: str, model: str, architecture: str, terms: str) -> dict:
    """Return a guard of the nine categories, asked in its own way and in the paper's."""
    own = _chat(model, "llavaguard", "json_rating", "slots", 500)
    return {
        name: System(title, own, architecture, terms, SLOTTED),
        f"{name}_raw": System(f"{title}, raw", _chat(model), architecture, terms, FREE),
    }


SYSTEMS = {
    "qwen2_5_vl_3b": System(
        "Qwen2.5-VL-3B", _chat("Qwen/Qwen2.5-VL-3B-Instruct"), "qwen2_5_vl",
        "Qwen Research licence, not commercial; 8 GB", FREE,
    ),
    "qwen2_5_vl_7b": System(
        "Qwen2.5-VL-7B", _chat("Qwen/Qwen2.5-VL-7B-Instruct"), "qwen2_5_vl", "Apache-2.0; 17 GB",
        FREE,
    ),
    "qwen2_vl_7b": System(
        "Qwen2-VL-7B", _chat("Qwen/Qwen2-VL-7B-Instruct"), "qwen2_vl", "Apache-2.0; 17 GB", FREE,
    ),
    "qwen3_vl_8b": System(
        "Qwen3-VL-8B", _chat("Qwen/Qwen3-VL-8B-Instruct"), "qwen3_vl", "Apache-2.0; 18 GB", FREE,
    ),
    "llava_1_6_7b": System(
        "LLaVA-v1.6-7B", _chat("llava-hf/llava-v1.6-vicuna-7b-hf"), "llava_next",
        "Llama 2 licence; 14 GB", FREE,
    ),
    "glm_4_1v_9b": System(
        "GLM-4.1V-9B", _chat("zai-org/GLM-4.1V-9B-Thinking", parser="answer", n=2048), "glm4v",
        "21 GB; stands for GLM-4V-9B, which needs code of its own", FREE,
    ),
    "gemma_3_4b": System(
        "Gemma 3 4B", _chat("google/gemma-3-4b-it"), "gemma3", "Gemma terms, gated; 9 GB", FREE,
    ),
    "instructblip_7b": System(
        "InstructBLIP-7B",
        {"kind": "instructblip", "model": "Salesforce/instructblip-vicuna-7b", "dtype": "bfloat16"},
        "instructblip", "licence 'other'; 16 GB",
        "as text, cut after 512 tokens for the part that looks at the image",
    ),
    "safeguard_vl_rl": System(
        "SafeGuard-VL-RL", _chat("tyodd/SafeGuard-VL-RL"), "qwen2_5_vl", "Apache-2.0; 17 GB", FREE,
    ),
    "llama_guard_3_vision": System(
        "Llama Guard 3 Vision",
        _chat("meta-llama/Llama-Guard-3-11B-Vision", "llama_guard", "llama_guard", "numbered"),
        "mllama", f"Llama 3.2 licence, {META}; 22 GB", GUARD,
    ),
    "llama_guard_4": System(
        "Llama Guard 4",
        _chat("meta-llama/Llama-Guard-4-12B", "llama_guard", "llama_guard", "numbered"),
        "llama4", f"Llama 4 licence, {META}; 24 GB; needs torchvision", GUARD,
    ),
    "shieldgemma_2": System(
        "ShieldGemma 2",
        {"kind": "shieldgemma", "model": "google/shieldgemma-2-4b-it", "dtype": "bfloat16"},
        "shieldgemma2", "Gemma terms, gated; 9 GB", "rule by rule; the highest decides",
    ),
}  # fmt: skip
SYSTEMS |= _two_ways(
    "qwenguard_3b", "QwenGuard-3B", "AIML-TUDA/QwenGuard-v1.2-3B", "qwen2_5_vl",
    "on a base under the Qwen Research licence; 8 GB",
) | _two_ways(
    "qwenguard_7b", "QwenGuard-7B", "AIML-TUDA/QwenGuard-v1.2-7B", "qwen2_5_vl",
    "sources differ on its base, Qwen2-VL or Qwen2.5-VL; 17 GB",
) | _two_ways(
    "llavaguard_0_5b", "LlavaGuard-0.5B", "AIML-TUDA/LlavaGuard-v1.2-0.5B-OV-hf",
    "llava_onevision", "gated by a form, for research; 2 GB",
) | _two_ways(
    "llavaguard_7b", "LlavaGuard-7B", "AIML-TUDA/LlavaGuard-v1.2-7B-OV-hf",
    "llava_onevision", "gated by a form, for research; 16 GB",
)  # fmt: skip


def spec_of(name: str) -> dict:
    """Return what a parameter file writes for a system, with its id and the name to print.

    Raises InputError for an unknown name, with the nearest.
    """
    need_known("unknown system", name, SYSTEMS)
    system = SYSTEMS[name]
    return {"id": name, "name": system.title, **system.spec}


def expanded(spec: str | dict) -> str | dict:
    """Return a judge's spec; the name of a system as its kind is replaced by the system's spec."""
    options = options_of(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in SYSTEMS:
        return spec
    return spec_of(kind) | options
