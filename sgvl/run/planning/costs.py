"""What a model costs: memory, arithmetic, time and disk, each by a formula with its source.

Every figure is computed. Bytes and FLOPs are exact for what they count; times rest on the shares
of a GPU's peak below. docs/GPU.md has the sources, and compares with published measurements.
"""

from typing import NamedTuple

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
ADAM = 12  # bytes a trained parameter: its copy in float32 and both moments (ZeRO, section 3.1)
# Shares of the peak. Updates: 16-23 % for 7B on H100 (EasyR1 v0.3.2). Prefill in a server: ours.
UPDATE, PREFILL, BANDWIDTH = 0.2, 0.4, 0.5
LAUNCH = 1e-3  # seconds for a layer and a token in transformers' generate; ours, after open-r1
PIXELS_PER_TOKEN = 28 * 28  # of a picture, for Qwen2-VL and Qwen2.5-VL
RESERVE = 2e9  # bytes of a GPU: CUDA's context and what the allocator cannot join; ours


class Size(NamedTuple):
    """The shape of a model; counts of parameters, all and those of the vision tower."""

    parameters: int
    vision: int
    hidden: int
    layers: int
    heads: int
    groups: int  # of key-value heads
    head: int  # size of a head
    mlp: int
    vocabulary: int
    picture: int = 1000  # tokens of a picture of about 900 x 900 pixels
    file_bytes: int = 2  # of a published parameter

    @property
    def linear(self) -> int:
        """Parameters of the language model that multiply every token: not the embeddings."""
        attention = 2 * self.hidden * self.head * (self.heads + self.groups)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def cache(self) -> int:
        """Bytes of keys and values of a token, in two bytes a number."""
        return 2 * 2 * self.layers * self.groups * self.head


class GPU(NamedTuple):
    """A kind of GPU: bytes, FLOP/s in dense bfloat16, and bytes a second."""

    name: str
    memory: float
    flops: float
    bandwidth: float


class EditorSize(NamedTuple):
    """An editing pipeline: bytes of its parts, and what it needs beside them."""

    transformer: float
    encoder: float
    activations: float
    tokens: int  # of a picture of a megapixel, with the one it is made from and the instruction
    steps: int  # by default

    def weights(self, offload: bool) -> float:
        """Return the bytes of weights that are on the GPU together."""
        return (max if offload else lambda *parts: sum(parts))(self.transformer, self.encoder)

    def seconds(self, gpu: GPU, settings: dict) -> float:
        """Return the seconds of an edit: two operations a parameter, token and step."""
        steps = settings.get("num_inference_steps", self.steps)
        return self.transformer * self.tokens * steps / gpu.flops / UPDATE


# Bytes in bfloat16, as the hub lists its files. Its card says 13 GB with offload: the larger part,
# and 5 GB more. A token is 16 x 16 pixels.
EDITORS = {
    "black-forest-labs/FLUX.2-klein-4B": EditorSize(7.75e9, 8.05e9, 5e9, 2 * 64**2 + 512, 50),
}


def adapters(size: Size, r: int) -> int:
    """Count the parameters of adapters of rank r on all linear layers of the language model."""
    wide, narrow = size.heads * size.head, size.groups * size.head
    sides = [(size.hidden, wide)] * 2 + [(size.hidden, narrow)] * 2 + [(size.hidden, size.mlp)] * 3
    return size.layers * r * sum(map(sum, sides))


def forward(size: Size, tokens: float) -> float:
    """Return the FLOPs of one pass of the language model over a text of so many tokens."""
    attention = 2 * size.layers * size.heads * size.head * tokens**2  # half of it is masked
    return 2 * size.linear * tokens + attention


def vision(size: Size, picture: float) -> float:
    """Return the FLOPs of the vision tower on a picture; four patches are merged into a token."""
    return 2 * size.vision * 4 * picture


def activations(size: Size, tokens: int, checkpointing: bool) -> float:
    """Return the bytes that a backward pass needs of so many tokens, in two bytes a number.

    With checkpointing: the input of each layer, and all of one layer, which is computed again
    (Korthikanti et al. 2022, section 5, without the scores, which fused attention does not store).
    """
    one = 2 * tokens * (5 * size.hidden + 2 * (size.heads + size.groups) * size.head + 4 * size.mlp)
    inputs = 2 * tokens * size.hidden * size.layers
    return inputs + one if checkpointing else size.layers * one


def logits(size: Size, tokens: int) -> float:
    """Return the bytes of logits with their gradient: one copy in two bytes, two in four."""
    return tokens * size.vocabulary * (2 + 4 + 4)


def decode(size: Size, gpu: GPU, batch: float, context: float, served: bool) -> float:
    """Return the seconds of one step that adds a token to each text of a batch.

    It reads the weights and the cache once; transformers' own loop is slower than that, and waits
    for the launch of each layer's kernels.
    """
    read = 2 * (size.parameters - size.vision) + batch * context * size.cache
    seconds = read / gpu.bandwidth / BANDWIDTH
    return seconds if served else max(seconds, size.layers * LAUNCH)


def answer(
    size: Size, gpu: GPU, prompt: float, reply: float, batch: float, served: bool
) -> float:  # fmt: skip
    """Return the seconds of one GPU for one request: the picture, the prompt, and the reply."""
    share = PREFILL if served else UPDATE
    read = (vision(size, size.picture) + forward(size, size.picture + prompt)) / gpu.flops / share
    return read + reply * decode(size, gpu, batch, size.picture + prompt + reply, served) / batch


def update(size: Size, gpu: GPU, tokens: float, picture: float, lora: bool, passes: int) -> float:
    """Return the seconds of one GPU for one row of a training.

    A backward pass costs two passes, or one where only adapters have gradients; checkpointing
    costs one more. ``passes`` are further ones without gradients, such as a reference model's.
    """
    own = 3 if lora else 4
    flops = (own + passes) * forward(size, tokens) + (1 + passes) * vision(size, picture)
    return flops / gpu.flops / UPDATE


class Training(NamedTuple):
    """What decides the memory and the disk of a training."""

    size: Size
    processes: int
    dtype: str
    rank: int = 0  # of adapters; 0 trains the language model
    sharded: bool = False  # weights, gradients and optimiser over all processes (ZeRO-3, FSDP)
    reference: bool = False  # a second copy, for the distance to the start

    @property
    def trained(self) -> int:
        """Parameters that are trained; the vision tower is frozen."""
        return (
            adapters(self.size, self.rank)
            if self.rank
            else (self.size.parameters - self.size.vision)
        )

    def states(self) -> dict[str, float]:
        """Return the bytes on each GPU of weights, gradients and optimiser (ZeRO, section 3.1).

        Mixed precision has 2 + 2 + 12 bytes a trained parameter, float32 alone 4 + 4 + 8, also 16:
        adapters are in float32. A frozen one has the bytes of its dtype, 2 in ZeRO-3. Adapters need
        no reference model: the base is one.
        """
        share = self.processes if self.sharded else 1
        frozen = 2 if self.sharded else BYTES[self.dtype]
        others = self.size.parameters - (0 if self.rank else self.trained)
        others += self.size.parameters if self.reference and not self.rank else 0
        low = 2 if self.sharded else 4  # bytes of a trained weight and of its gradient
        return {
            "weights": (low * self.trained + frozen * others) / share,
            "gradients": low * self.trained / share,
            "optimiser": (16 - 2 * low) * self.trained / share,
        }

    def gathered(self) -> float:
        """Return the bytes of the whole weights, which ZeRO-3 gathers to generate (TRL)."""
        return 2 * self.size.parameters if self.sharded else 0

    def checkpoint(self, only_model: bool) -> int:
        """Return the bytes of one checkpoint: weights, and the optimiser unless ``only_model``."""
        if self.rank:
            return 4 * self.trained + (0 if only_model else 8 * self.trained)
        weights = (2 if self.sharded else BYTES[self.dtype]) * self.size.parameters
        optimiser = ADAM if self.sharded else 8
        return weights + (0 if only_model else optimiser * self.trained)
