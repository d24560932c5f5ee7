"""Tiny models of random weights, each of a real architecture with its own processor and template.

They stand in for the models of a hub in tests and rehearsals: the same classes, the same prompts,
the same shapes of input, at a millionth of the size. What they answer means nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path

from sgvl.common.errors import need_known
from sgvl.common.paths import NANO_MODEL
from sgvl.models.loading import Loaded, image_only
from sgvl.models.tiny import templates

WIDTH = 32  # of every layer
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "rms_norm_eps": 1e-6,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
    "initializer_range": 0.3,  # large, so that a wrong picture, position or mask shows
}  # fmt: skip
VISION = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "initializer_range": 0.3,
}  # fmt: skip
HALF_HEAD = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
# Classes that need torchvision: another stands in for one here, and a folder names it.
NEED_TORCHVISION = {"llama4": ("image_processor_type", "Llama4ImageProcessor"),
                    "mistral3": ("processor_class", "PixtralProcessor")}  # fmt: skip
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
TILES = [[28, 56], [56, 28], [56, 56]]  # of pictures that are cut into squares of 28 pixels


def build(architecture: str, seed: int = 0) -> Loaded:
    """Build a tiny model of an architecture, with its processor.

    Parameters
    ----------
    architecture : a name in ``ARCHITECTURES``: transformers' ``model_type``, or a guard whose
        template is its own

    Raises
    ------
    InputError
        For an unknown architecture.
    """
    import torch

    need_known("unknown tiny architecture", architecture, ARCHITECTURES)
    torch.manual_seed(seed)
    model, processor = ARCHITECTURES[architecture]()
    for name, weights in model.named_parameters():
        if "bias" not in name and not weights.any():  # gates and projections that hide the picture
            torch.nn.init.normal_(weights, std=0.3)
    tokenizer = processor.tokenizer
    inner = getattr(model, "model", model) if architecture == "shieldgemma2" else model
    inner.generation_config.update(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return Loaded(model.eval(), processor)


def save(architecture: str, folder: str | Path, seed: int = 0) -> None:
    """Write a tiny model into a folder, as a hub would hold it.

    Parameters
    ----------
    architecture : as for ``build``, a name in ``heads.CLASSIFIERS``, or "editor"
    """
    from sgvl.models.tiny import heads

    if architecture == "editor":
        return save_editor(folder, seed)
    if architecture in heads.CLASSIFIERS:
        return heads.save(architecture, folder, seed)
    for part in build(architecture, seed):
        part.save_pretrained(folder)
    if architecture in NEED_TORCHVISION:
        key, name = NEED_TORCHVISION[architecture]
        file = Path(folder) / "processor_config.json"
        text = re.sub(rf'"{key}": "\w+"', f'"{key}": "{name}"', file.read_text("utf-8"))
        file.write_text(text, "utf-8")


def _tokenizer(specials: list[str], bos: str = "", adds_bos: bool = False, **named: str):
    """Make nano's tokenizer with the special tokens of a family."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ends = [name for name in specials if name in ("<|im_end|>", "</s>", "<|eot_id|>", "<|eot|>",
                                                  "<end_of_turn>")]  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(NANO_MODEL / "tokenizer.json"),
        bos_token=bos or None,
        eos_token=(ends or ["<|endoftext|>"])[0],
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*specials, *filter(None, [bos])]})
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
        )
    return tokenizer


def _text(tokenizer, **more) -> dict:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    return (
        TEXT | ids | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | more
    )


def _qwen(name: str, template: str = templates.QWEN, **vision):
    import transformers

    tokenizer = _tokenizer(["<|im_end|>"])
    token = tokenizer.convert_tokens_to_ids
    config = getattr(transformers, f"{name}Config")(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=dict(HALF_HEAD)),
        vision_config=vision
        | {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "initializer_range": 0.3},
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip
    images = transformers.Qwen2VLImageProcessorPil(size=PIXELS, patch_size=vision["patch_size"])
    processor = image_only(getattr(transformers, f"{name}Processor"))
    return getattr(transformers, f"{name}ForConditionalGeneration")(config), processor(
        images, tokenizer, chat_template=template
    )


def _qwen2_vl():
    return _qwen("Qwen2VL", embed_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=2, patch_size=14)


def _qwen2_5_vl():
    return _qwen(
        "Qwen2_5_VL", hidden_size=WIDTH, intermediate_size=64, out_hidden_size=WIDTH,
        fullatt_block_indexes=[1], window_size=56, patch_size=14,
    )  # fmt: skip


def _qwen3_vl(template: str = templates.QWEN):
    return _qwen(
        "Qwen3VL", template, hidden_size=WIDTH, intermediate_size=64, out_hidden_size=WIDTH,
        patch_size=16, num_position_embeddings=64, deepstack_visual_indexes=[0],
    )  # fmt: skip


def _glm4v():
    import transformers as t

    marks = "image_start", "image_end", "image", "video", "video_start", "video_end"
    names = (
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|image|>",
        "<|video|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    tokenizer = _tokenizer([*names, "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"])
    ids = map(tokenizer.convert_tokens_to_ids, names)
    config = t.Glm4vConfig(
        text_config=_text(tokenizer, rope_parameters=HALF_HEAD | {"partial_rotary_factor": 1.0}),
        vision_config={"depth": 2, "hidden_size": WIDTH, "num_heads": 2, "image_size": 112,
                       "out_hidden_size": WIDTH, "intermediate_size": 64, "initializer_range": 0.3},
        **{f"{mark}_token_id": id for mark, id in zip(marks, ids, strict=True)},
    )  # fmt: skip
    images = t.Glm4vImageProcessorPil(
        size={"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112}
    )
    return t.Glm4vForConditionalGeneration(config), image_only(t.Glm4vProcessor)(
        images, tokenizer, chat_template=templates.GLM
    )


def _llava_next():
    import transformers as t

    tokenizer = _tokenizer(["</s>", "<image>"], bos="<s>", adds_bos=True)
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**VISION),
        text_config=t.LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=TILES,
    )
    square = {"height": 28, "width": 28}
    images = t.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=square, image_grid_pinpoints=TILES
    )
    return t.LlavaNextForConditionalGeneration(config), t.LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=templates.VICUNA,
    )  # fmt: skip


def _llava_onevision():
    import transformers as t

    tokenizer = _tokenizer(["<|im_end|>", "<image>", "<video>"])
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=t.Qwen2Config(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=TILES,
    )
    images = t.LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=TILES
    )
    return t.LlavaOnevisionForConditionalGeneration(config), image_only(t.LlavaOnevisionProcessor)(
        images, tokenizer, num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=templates.ONEVISION,
    )  # fmt: skip


def _llama4(images=None):
    """Build Llama 4; its image processor, which needs torchvision, is only named in a folder."""
    import transformers as t

    names = (
        *("<|eot|>", "<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>"),
        *("<|tile_x_separator|>", "<|tile_y_separator|>", "<|header_start|>", "<|header_end|>"),
    )
    tokenizer = _tokenizer([*names], bos="<|begin_of_text|>", adds_bos=True)
    token = tokenizer.convert_tokens_to_ids
    vision = VISION | {"image_size": 56, "vision_output_dim": WIDTH, "intermediate_size": 4 * WIDTH}
    config = t.Llama4Config(
        text_config=_text(
            tokenizer, num_hidden_layers=4, head_dim=16, intermediate_size_mlp=64,
            num_local_experts=1, moe_layers=[], attention_chunk_size=8192,
        ),
        vision_config=vision | {"projector_input_dim": WIDTH, "projector_output_dim": WIDTH},
        image_token_index=token("<|patch|>"), boi_token_index=token("<|image_start|>"),
        eoi_token_index=token("<|image_end|>"),
    )  # fmt: skip
    images = images or t.Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    return t.Llama4ForConditionalGeneration(config), t.Llama4Processor(
        images, tokenizer, chat_template=templates.LLAMA_4
    )


def _mllama():
    import transformers as t

    names = "<|eot_id|>", "<|image|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"
    tokenizer = _tokenizer([*names], bos="<|begin_of_text|>", adds_bos=True)
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    vision = VISION | {"attention_heads": 2, "num_global_layers": 1, "vision_output_dim": 2 * WIDTH}
    del vision["num_attention_heads"]
    config = t.MllamaConfig(
        # the real model's tokenizer is one longer than its vocabulary: the last is the image
        text_config=_text(tokenizer, cross_attention_layers=[1]),
        vision_config=vision | {"intermediate_layers_indices": [0]},
        image_token_index=image,
    )
    images = t.MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)
    return t.MllamaForConditionalGeneration(config), t.MllamaProcessor(
        images, tokenizer, chat_template=templates.LLAMA_3
    )


def _gemma(config_class, tokenizer):
    token = tokenizer.convert_tokens_to_ids
    return config_class(
        text_config=_text(
            tokenizer, model_type="gemma3_text", head_dim=16, sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config=VISION | {"model_type": "siglip_vision_model", "vision_use_head": False},
        mm_tokens_per_image=4, image_token_index=token("<image_soft_token>"),
        boi_token_index=token("<start_of_image>"), eoi_token_index=token("<end_of_image>"),
    )  # fmt: skip


def _gemma_parts(processor_class, template: str):
    import transformers as t

    marks = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
             "eoi_token": "<end_of_image>"}  # fmt: skip
    tokenizer = _tokenizer(["<end_of_turn>", "<start_of_turn>"], "<bos>", True, **marks)
    images = t.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return processor_class(images, tokenizer, chat_template=template, image_seq_length=4)


def _gemma3(template: str = templates.GEMMA):
    import transformers as t

    processor = _gemma_parts(t.Gemma3Processor, template)
    return t.Gemma3ForConditionalGeneration(_gemma(t.Gemma3Config, processor.tokenizer)), processor


def _shieldgemma2():
    import transformers as t

    processor = _gemma_parts(t.ShieldGemma2Processor, templates.SHIELD)
    config = _gemma(t.ShieldGemma2Config, processor.tokenizer)
    config.yes_token_index, config.no_token_index = (
        processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in (" yes", " no")
    )
    return t.ShieldGemma2ForImageClassification(config), processor


def _mistral3(processor_class=None):
    """Build Mistral 3 with Ministral's text model."""
    import transformers as t

    names = "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"
    tokenizer = _tokenizer(
        ["</s>", *names, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"], bos="<s>", adds_bos=True
    )
    config = t.Mistral3Config(
        text_config=_text(tokenizer, model_type="ministral3", head_dim=16,
                          rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0,
                                           "original_max_position_embeddings": 2048,
                                           "llama_4_scaling_beta": 0.1}),
        vision_config=VISION | {"model_type": "pixtral", "head_dim": 16, "image_size": 112},
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"), spatial_merge_size=1,
    )  # fmt: skip
    images = t.PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size=14)
    return t.Mistral3ForConditionalGeneration(config), (processor_class or t.LlavaProcessor)(
        images, tokenizer, patch_size=14, image_token="[IMG]", chat_template=templates.MISTRAL
    )


def _instructblip():
    import transformers as t

    tokenizer = _tokenizer(["</s>", "<image>"], bos="<s>", adds_bos=True)
    config = t.InstructBlipConfig(
        vision_config=VISION,
        qformer_config=TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 512,
                               "pad_token_id": tokenizer.pad_token_id},
        text_config=_text(tokenizer, model_type="llama", max_position_embeddings=2048),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = t.BlipImageProcessorPil(size={"height": 28, "width": 28})
    words = _tokenizer(["[CLS]", "[SEP]"])
    return t.InstructBlipForConditionalGeneration(config), t.InstructBlipProcessor(
        images, tokenizer, words, num_query_tokens=4
    )


def save_editor(folder: str | Path, seed: int = 0) -> None:
    """Save a pipeline of diffusers that edits pictures: FLUX.2-klein's class, random weights."""
    import diffusers as d
    import torch
    import transformers as t

    torch.manual_seed(seed)
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    # The pipeline takes the states of layers 9, 18 and 27, side by side.
    encoder = t.Qwen3Config(**_text(tokenizer, num_hidden_layers=28, head_dim=16))
    blocks = {"layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4, "sample_size": 64}
    transformer = d.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=3 * WIDTH, timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    d.Flux2KleinPipeline(
        d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        d.AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), **blocks),
        t.Qwen3ForCausalLM(encoder),
        tokenizer,
        transformer,
        is_distilled=True,
    ).save_pretrained(folder)


ARCHITECTURES: dict[str, Callable[[], tuple]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "glm4v": _glm4v,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "llama4": _llama4,
    "mllama": _mllama,
    "gemma3": _gemma3,
    "shieldgemma2": _shieldgemma2,
    "instructblip": _instructblip,
    "mistral3": _mistral3,
    "singguard": lambda: _qwen3_vl(templates.SINGGUARD),
    "nemotron": lambda: _gemma3(templates.NEMOTRON),
}
