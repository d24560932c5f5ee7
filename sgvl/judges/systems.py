"""The systems that can judge, by name: how each is loaded, prompted and read.

A system's ``spec`` is what a parameter file writes for it; ``make_judge`` takes the name of a
system as a kind. Write the spec out in 05_benchmark (``python -m sgvl.judges NAME`` prints it): the
runner and the rehearsal look for the key ``model``.
"""

from typing import NamedTuple

from sgvl.common.errors import InputError, need_known
from sgvl.common.registry import options_of


class System(NamedTuple):
    """One released model as a judge.

    Parameters
    ----------
    title : is printed
    spec : kind and options of the judge
    architecture : transformers' ``model_type``, or a classifier of ``models.tiny.heads``; "" for
        weights that come in a package or stay behind a server
    billions : of parameters, as published; 0 where that is not known, as of hosted models
    licence : of the weights
    policy : how a policy reaches it
    gate : what has to be accepted before they are downloaded; "" for nothing
    trouble : what is known to go wrong, or is not known
    stand_in : its name in ``models.tiny``; "" where that is the architecture
    """

    title: str
    spec: dict
    architecture: str
    billions: float
    licence: str
    policy: str
    gate: str = ""
    trouble: str = ""
    stand_in: str = ""

    @property
    def memory(self) -> str:
        """The memory of the weights: two bytes a parameter in bfloat16, else four."""
        half = self.spec["kind"] == "served" or self.spec.get("dtype") == "bfloat16"
        size = self.billions * (2 if half else 4)
        return f"{size:.0f} GB" if size >= 1 else f"{size:.1g} GB" if size else ""


def _chat(model: str, prompt: str = "word", parser: str = "word", form: str = "full", n: int = 64):
    return {
        "kind": "chat", "model": model, "prompt": prompt, "parser": parser, "policy_form": form,
        "max_new_tokens": n, "dtype": "bfloat16",
    }  # fmt: skip


NONE = "not at all"
FREE = "as text in the user turn"
SLOTTED = "its rules in the nine categories that it was trained on"
CATEGORIES = "as the block of categories, in a turn built by hand"
OWN_LIST = "its own template holds Meta's categories, and drops ours"
META = "terms; no licence for persons and companies in the EU"
APACHE, RESEARCH, GEMMA = "Apache-2.0", "Qwen Research, not commercial", "Gemma terms"


def _two_ways(name: str, title: str, model: str, architecture: str, size: float, **facts) -> dict:
    """Return a guard of the nine categories, asked in its own way and in the paper's."""
    own = _chat(model, "llavaguard", "json_rating", "slots", 500)
    return {
        name: System(title, own, architecture, size, policy=SLOTTED, **facts),
        f"{name}_raw": System(
            f"{title}, raw", _chat(model), architecture, size, policy=FREE, **facts
        ),
    }


CLIP = "openai/clip-vit-large-patch14"


def _on_clip(head: str, model: str, title: str, licence: str, trouble: str = "") -> System:
    """Return a head on the vision tower of CLIP."""
    spec = {"kind": "clip_head", "head": head, "model": model, "clip": CLIP}
    return System(title, spec, head, 0.304, licence, NONE, trouble=trouble)


SYSTEMS = {
    "qwen2_5_vl_3b": System(
        "Qwen2.5-VL-3B", _chat("Qwen/Qwen2.5-VL-3B-Instruct"), "qwen2_5_vl", 3.8, RESEARCH, FREE
    ),
    "qwen2_5_vl_7b": System(
        "Qwen2.5-VL-7B", _chat("Qwen/Qwen2.5-VL-7B-Instruct"), "qwen2_5_vl", 8.3, APACHE, FREE
    ),
    "qwen2_vl_7b": System(
        "Qwen2-VL-7B", _chat("Qwen/Qwen2-VL-7B-Instruct"), "qwen2_vl", 8.3, APACHE, FREE
    ),
    "qwen3_vl_8b": System(
        "Qwen3-VL-8B", _chat("Qwen/Qwen3-VL-8B-Instruct"), "qwen3_vl", 8.8, APACHE, FREE
    ),
    "llava_1_6_7b": System(
        "LLaVA-v1.6-7B", _chat("llava-hf/llava-v1.6-vicuna-7b-hf"), "llava_next", 7.1, "Llama 2",
        FREE, trouble="whether the paper took this one or Mistral's is not known",
    ),
    "glm_4_1v_9b": System(
        "GLM-4.1V-9B", _chat("zai-org/GLM-4.1V-9B-Thinking", parser="answer", n=2048), "glm4v",
        10.3, "MIT", FREE, trouble="stands for GLM-4V-9B, which needs code of its own",
    ),
    "gemma_3_4b": System(
        "Gemma 3 4B", _chat("google/gemma-3-4b-it"), "gemma3", 4.3, GEMMA, FREE, "terms"
    ),
    "instructblip_7b": System(
        "InstructBLIP-7B",
        {"kind": "instructblip", "model": "Salesforce/instructblip-vicuna-7b", "dtype": "bfloat16"},
        "instructblip", 7.9, "'other'", FREE,
        trouble="the part that looks at the image reads 512 tokens of the policy; no chat template",
    ),
    "safeguard_vl_rl": System(
        "SafeGuard-VL-RL", _chat("tyodd/SafeGuard-VL-RL"), "qwen2_5_vl", 8.3, APACHE, FREE,
        trouble="the prompt of its training was not released",
    ),
    "llama_guard_3_vision": System(
        "Llama Guard 3 Vision",
        _chat("meta-llama/Llama-Guard-3-11B-Vision", "llama_guard", "llama_guard", "numbered"),
        "mllama", 10.7, "Llama 3.2", CATEGORIES, META,
        f"{OWN_LIST}; its makers do not mean it for images alone",
    ),
    "llama_guard_4": System(
        "Llama Guard 4",
        _chat("meta-llama/Llama-Guard-4-12B", "llama_guard", "llama_guard", "numbered"),
        "llama4", 12, "Llama 4", CATEGORIES, META, f"{OWN_LIST}; needs torchvision",
    ),
    "shieldgemma_2": System(
        "ShieldGemma 2",
        {"kind": "shieldgemma", "model": "google/shieldgemma-2-4b-it", "dtype": "bfloat16"},
        "shieldgemma2", 4.3, GEMMA, "rule by rule; the highest decides", "terms",
        "some releases of transformers load it with a random head, which is refused here",
    ),
}  # fmt: skip
SYSTEMS |= _two_ways(
    "qwenguard_3b", "QwenGuard-3B", "AIML-TUDA/QwenGuard-v1.2-3B", "qwen2_5_vl", 3.8,
    licence=f"that of its base: {RESEARCH}",
) | _two_ways(
    "qwenguard_7b", "QwenGuard-7B", "AIML-TUDA/QwenGuard-v1.2-7B", "qwen2_5_vl", 8.3,
    licence="not stated", trouble="sources differ on its base, Qwen2-VL or Qwen2.5-VL",
) | _two_ways(
    "llavaguard_0_5b", "LlavaGuard-0.5B", "AIML-TUDA/LlavaGuard-v1.2-0.5B-OV-hf",
    "llava_onevision", 0.9, licence="not stated", gate="form, for research",
) | _two_ways(
    "llavaguard_7b", "LlavaGuard-7B", "AIML-TUDA/LlavaGuard-v1.2-7B-OV-hf",
    "llava_onevision", 8, licence="not stated", gate="form, for research",
) | {
    "nsfw_detector": _on_clip(
        "nsfw_detector", "yiting/NSFWDetector", "NSFW_Detector", "MIT",
        "LAION's weights, as converted for UnsafeBench",
    ),
    "multiheaded": _on_clip("multiheaded", "yiting/MultiHeaded", "MultiHeaded", "not stated"),
    "q16": _on_clip(
        "q16", "yiting/Q16", "Q16", "MIT", "comes as a pickle, of which arrays alone are read"
    ),
    "sd_filter": System(
        "SD_Filter",
        {"kind": "safety_checker", "model": "CompVis/stable-diffusion-safety-checker"},
        "safety_checker", 0.304, "not stated", NONE, trouble="its P(unsafe) is not calibrated",
    ),
    "nudenet": System(
        "NudeNet", {"kind": "nudenet_classifier", "model": "weights/nudenet"},
        "nudenet", 0.021, "GPL-3.0", NONE,
        trouble="to be put there by hand: `classifier_model.onnx` of github.com/notAI-tech/NudeNet,"
        " release v0, which GitHub may not send to programs",
    ),
    "nudenet_v3": System(
        "NudeNet v3 (detector)", {"kind": "nudenet_detector"}, "", 0.003, "AGPL-3.0", NONE,
        trouble="needs `pip install 'sgvl[nudenet]'`; not the system of Table 2",
    ),
    "open_nsfw": System(
        "OpenNSFW", {"kind": "opennsfw"}, "", 0.006, "BSD-2-Clause", NONE,
        trouble="not in the paper",
    ),
}  # fmt: skip


for size, billions in (("2b", 2.1), ("4b", 4.4), ("8b", 8.8)):
    SYSTEMS[f"singguard_{size}"] = System(
        f"SingGuard-{size.upper()}",
        _chat(f"inclusionAI/SingGuard-{size}", "singguard", "singguard", "titled", 1024),
        "qwen3_vl", billions, APACHE, "as the variable `policy` of its chat template",
        trouble="was named Sing-Guard; its first word stands before its thoughts; said to call "
        "harm safe in its fast mode, which is not used", stand_in="singguard",
    )  # fmt: skip
for size, billions, base in (("3b", 3.8, f"; its base: {RESEARCH}"), ("7b", 8.3, "")):
    SYSTEMS |= {
        f"policyshiftguard_{size}": System(
            f"PolicyShiftGuard-{size.upper()}",
            _chat(f"PolicyShiftGuard/PolicyShiftGuard-{size.upper()}", "policyshift",
                  "policyshift", "bundle", 128),
            "qwen2_5_vl", billions, APACHE + base,
            "rule by rule as risk categories, in the frame of its training",
            trouble="was trained on seven categories of its own; our words around the rules",
        ),
        f"guardreasoner_vl_{size}": System(
            f"GuardReasoner-VL-{size.upper()}",
            _chat(f"yueliu1999/GuardReasoner-VL-{size.upper()}", "guardreasoner", "guardreasoner",
                  n=2048),
            "qwen2_5_vl", billions, APACHE + base, f"{NONE}: it judges by its own notion of harm",
            trouble="is meant for requests to an AI; thinks before each verdict",
        ),
    }  # fmt: skip
SYSTEMS |= {
    "nemotron_3_5": System(
        "Nemotron 3.5 Content Safety",
        _chat("nvidia/Nemotron-3.5-Content-Safety", "nemotron", "nemotron", n=128), "gemma3", 4.3,
        "OpenMDW-1.1 and Gemma terms", "as the variable `custom_policy` of its chat template",
        trouble="drops a system turn; the variable is documented for NVIDIA's server, and the "
        "template on the hub was not read: a policy that does not arrive is refused",
        stand_in="nemotron",
    ),
    "shieldstral_3b": System(
        "Shieldstral-3B",
        _chat("mistralai/Shieldstral-1.0-3B", "shieldstral", "shieldstral", n=4), "mistral3", 3.8,
        APACHE, "as the instruction of its one yes/no question",
        trouble="needs torchvision; an independent test on text found that it releases nothing "
        "when the policy allows it",
    ),
    "glm_4v_9b": System(
        "GLM-4V-9B",
        {"kind": "served", "model": "zai-org/glm-4v-9b", "prompt": "word", "parser": "word",
         "policy_form": "full", "max_new_tokens": 64},
        "", 13.9, "glm-4", FREE,
        trouble="has code of its own, which is never run here: `vllm serve zai-org/glm-4v-9b "
        "--trust-remote-code --hf-overrides '{\"architectures\": [\"GLM4VForCausalLM\"]}'` runs it "
        "in an environment of its own",
    ),
}  # fmt: skip

HOSTED = {"url": "https://api.openai.com/v1", "key_variable": "OPENAI_API_KEY"}
SYSTEMS |= {
    "openai_moderation": System(
        "OpenAI moderation",
        {"kind": "moderations", "model": "omni-moderation-latest", **HOSTED},
        "", 0, "hosted: its terms of use", f"{NONE}: thirteen categories of its own", "key",
        "six of the thirteen look at images; can change under its name",
    ),
    "openai_decisions": System(
        "OpenAI decisions", {"kind": "decisions", "model": "gpt-6-luna", **HOSTED}, "", 0,
        "hosted: its terms of use", "in the statement whose probability it gives", "key",
        "sends the pictures to a third party; can change under its name",
    ),
}  # fmt: skip

# Guards that cannot be asked, with the reason.
ABSENT = {
    "safewatch_8b": (
        "Virtue-AI-HUB/SafeWatch-8B",
        "code of its own, which is never run; for video",
    ),
    "imageguard": ("OpenSafetyLab/ImageGuard", "code of its own, never run"),
    "omnivl_guard_8b": ("SJJ0854/OmniVL-Guard-8B", "its prompt and its replies were not found"),
    "safeqwen_7b": ("etri-vilab/SafeQwen2.5-VL-7B", "its head is of no class of transformers"),
}


def spec_of(name: str) -> dict:
    """Return what a parameter file writes for a system, with its id and the name to print.

    Raises InputError for an unknown name, with the nearest, and for one that cannot be asked.
    """
    if name in ABSENT:
        raise InputError(f"system {name} cannot be asked: {ABSENT[name][1]}")
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
