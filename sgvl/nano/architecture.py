"""The nano base model before training: tokenizer, processor, and random weights.

The architecture is Qwen2.5-VL at a three-thousandth of its size. Pictures have 112 x 112 pixels: 64
patches of 14 x 14, of which 2 x 2 are merged into each of 16 image tokens.
"""

from collections.abc import Iterable

PIXELS = 112 * 112
TOKENS = 16  # image tokens of a picture
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The chat format of the Qwen family without its default system message, to save tokens.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for block in message.content -%}
{%- if block.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif block.type == 'text' -%}{{ block.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def make_tokenizer(texts: Iterable[str], vocabulary: int = 1024):
    """Train a byte-level BPE tokenizer on ``texts``; most of their words become one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[s for s in SPECIAL if s not in ("<|im_end|>", "<|endoftext|>")],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    )


def make_processor(tokenizer):
    """Make an image-only Qwen2.5-VL processor that resizes pictures to 112 x 112 pixels."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from sgvl.models.loading import image_only_processor

    pixels = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
    return image_only_processor()(
        image_processor=Qwen2VLImageProcessorPil(size=pixels),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer, seed: int):
    """Make a randomly initialised Qwen2.5-VL of about three million parameters.

    The standard deviation of the weights is 1/sqrt(width). At the usual 0.02, which suits widths of
    thousands, attention is nearly uniform at first, and the model takes long to learn to look up
    words of a policy.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            # The first layer attends to a token and the two before it. There a category is joined
            # with its status within a hundred steps; without the window, not at this size.
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", *["full_attention"] * 3],
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "initializer_range": 192**-0.5,
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [8, 8, 8],  # time, height, width: together half a head
            },
        },
        vision_config={
            "initializer_range": 128**-0.5,
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2, 3],
            "out_hidden_size": 192,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    # Greedy by default. Image tokens are never sampled: they would stand for a missing image.
    model.generation_config.update(
        do_sample=False,
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<|endoftext|>"),
        suppress_tokens=[token(s) for s in SPECIAL if s not in ("<|im_end|>", "<|endoftext|>")],
    )
    return model
