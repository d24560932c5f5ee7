"""Judges on a tiny model of each architecture: the same answer alone and in any batch."""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.judges import make_judge
from sgvl.judges.chat.judge import ChatJudge
from sgvl.judges.chat.prefix import placed
from sgvl.models import loading, tiny
from sgvl.policies.policy import load_all

CHAT = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "llava_next", "llava_onevision", "llama4",
        "mllama", "gemma3")  # fmt: skip
SIZES = (112, 80), (60, 120)


class Tiles(transformers.image_processing_backends.PilBackend):
    """Cuts pictures into Llama 4's tiles with Pillow; its own class needs torchvision."""

    size = {"height": 56, "width": 56}

    def preprocess(self, images, **_):
        pixels, ratios = [], []
        for (image,) in images if isinstance(images[0], list) else [[i] for i in images]:
            wide, high = image.width > 1.5 * image.height, image.height > 1.5 * image.width
            ratios.append([1 + high, 1 + wide])
            whole = image.resize((56 * (1 + wide), 56 * (1 + high)))
            corners = [
                (x, y) for y in range(0, whole.height, 56) for x in range(0, whole.width, 56)
            ]
            parts = [whole.crop((x, y, x + 56, y + 56)) for x, y in corners]
            parts += [image.resize((56, 56))] if len(parts) > 1 else []
            pixels += [np.asarray(p, np.float32).transpose(2, 0, 1) / 127.5 - 1 for p in parts]
        found = {"pixel_values": torch.tensor(np.stack(pixels)), "aspect_ratios": ratios}
        return transformers.BatchFeature(found)


@pytest.fixture
def tiny_judge(monkeypatch, tmp_path):
    """A function that makes a judge of a tiny model, loaded from a folder as from a hub."""

    def make(architecture: str, **options) -> ChatJudge:
        spec = {"kind": "chat", "prompt": "word", "parser": "word", "max_new_tokens": 2, **options}
        if architecture == "llama4":
            monkeypatch.setitem(tiny.ARCHITECTURES, "llama4", lambda: tiny._llama4(Tiles()))
            monkeypatch.setattr(loading, "load", lambda *_: tiny.build(architecture))
            return make_judge(spec)
        folder = tmp_path / architecture
        if not folder.exists():
            tiny.save(architecture, folder)
        return make_judge({**spec, "model": str(folder)})

    return make


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SAMPLES = [Sample(str(size), noise(*size)) for size in SIZES]
CASES = [(sample, policy) for sample in SAMPLES for policy in load_all()[:2]]


def same(answers, expected) -> bool:
    pairs = list(zip(answers, expected, strict=True))
    replies = all(a.reply == b.reply for a, b in pairs)
    return replies and all(math.isclose(a.p_unsafe, b.p_unsafe, abs_tol=1e-5) for a, b in pairs)


def alone(judge, cases=CASES) -> list:
    """Each case in a batch of one, without any cache that it did not fill itself."""
    judge.__dict__["prefix_sharing"] = "none, one at a time: by this test"
    answers = judge.judge(cases)
    del judge.__dict__["prefix_sharing"]
    return answers


# What is read once for several cases, where it is not the picture for pictures that come first.
WAYS = {("gemma3", "llama_guard"): "none: after its cache its logits are",
        ("mllama", "word"): "none: after its cache its logits are",
        ("llama4", "llama_guard"): "policy", ("qwen2_vl", "llama_guard"): "policy"}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "prompt"), [(a, "word") for a in CHAT] + list(WAYS)[:1] + list(WAYS)[2:]
)
def test_answers_are_those_of_one_case_at_a_time(tiny_judge, architecture, prompt):
    """Pictures of two sizes under policies of two lengths: shared, in batches, and plain."""
    judge = tiny_judge(architecture, prompt=prompt)
    expected = alone(judge)
    assert len({answer.p_unsafe for answer in expected}) == len(CASES), "all was told apart"
    assert judge.prefix_sharing.startswith(WAYS.get((architecture, prompt), "picture"))
    assert same(judge.judge(CASES), expected)
    judge.share_prefix = False
    assert same(judge.judge(CASES), expected)
    judge.__dict__["prefix_sharing"] = "none: by this test"
    assert same(judge.judge(CASES), expected)


def test_positions_over_the_padding_are_found_out(tiny_judge, monkeypatch):
    """Without positions from the mask, LLaVA's padded batches answer by their length."""
    judge = tiny_judge("llava_next")
    expected = alone(judge)
    for module in ("prefix", "reader"):
        monkeypatch.setattr(f"sgvl.judges.chat.{module}.placed", lambda _, i: i, raising=False)
    assert judge.prefix_sharing.startswith("none: after its cache its logits are")
    judge.share_prefix = True
    assert same(judge.judge(CASES), expected)
    judge.__dict__["prefix_sharing"] = "picture"
    assert not same(judge.judge(CASES), expected)


def test_a_model_whose_batches_are_wrong_is_asked_one_case_at_a_time(tiny_judge, monkeypatch):
    """Here its mask is ignored, as by some attention kernels."""
    judge = tiny_judge("llava_onevision")
    expected = alone(judge)
    inputs = judge.reader.inputs

    def unmasked(*arguments):
        batch = inputs(*arguments)
        return batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}

    monkeypatch.setattr(judge.reader, "inputs", unmasked)
    assert judge.prefix_sharing.startswith("none, one at a time: in a batch its logits are")
    sizes = []
    hook = judge.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    assert same(judge.judge(CASES), expected)
    hook.remove()
    assert set(sizes) <= {1, 2}  # 2 are the two words of one case


def test_a_policy_that_the_template_drops_is_refused(tiny_judge):
    judge = tiny_judge("gemma3")
    template = judge.processor.chat_template
    judge.processor.chat_template = template.replace("{{ b.text", "{{ 'Is it safe?'")
    with pytest.raises(InputError, match=r"^judge chat: the policy does not reach model .*gemma3"):
        judge.judge(CASES[:1])


def test_a_policy_that_the_tokenizer_cuts_is_refused(tiny_judge, monkeypatch):
    """It is in the rendered text, and not in the input ids."""
    judge = tiny_judge("qwen2_vl")
    received = judge.reader.received
    monkeypatch.setattr(judge.reader, "received", lambda prompt: received(prompt)[:200])
    with pytest.raises(InputError, match="the policy does not reach model"):
        judge.judge(CASES[:1])


def test_a_model_that_sees_no_picture_is_refused(tiny_judge):
    judge = tiny_judge("mllama")
    for name, weights in judge.model.named_parameters():
        if "cross_attn_attn_gate" in name or "cross_attn_mlp_gate" in name:
            weights.data.zero_()
    with pytest.raises(InputError, match="gives one answer to two pictures"):
        judge.judge(CASES[:1])


def test_the_first_token_is_not_written_twice(tiny_judge):
    """Templates of Llama and Gemma write it, and so do their tokenizers."""
    for architecture in ("gemma3", "mllama", "llava_next"):
        judge = tiny_judge(architecture)
        prompt = judge._with_picture("Policy: a dog.")
        first = judge.processor.tokenizer.bos_token_id
        ids = judge.reader.inputs([SAMPLES[0].image], [prompt])["input_ids"][0].tolist()
        assert ids.count(first) == judge.reader.ids(prompt).count(first) == 1


def test_positions_are_counted_without_the_padding(tiny_judge):
    judge = tiny_judge("llava_next")
    prompts = [judge._with_picture(text) for text in ("a", "a dog and an apple at the park")]
    inputs = judge.reader.inputs([SAMPLES[0].image] * 2, prompts)
    short, long = placed(judge.model, inputs)["position_ids"].tolist()
    padding = inputs["attention_mask"][0].tolist().count(0)
    assert padding and long == list(range(len(long)))
    assert short == [0] * padding + list(range(len(long) - padding))
