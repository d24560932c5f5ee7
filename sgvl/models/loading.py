"""Loading a vision-language model and its processor: one function for every profile."""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, get_args

from sgvl.common.errors import InputError, need_known
from sgvl.common.paths import NANO_MODEL, ROOT
from sgvl.common.types import Dtype

# Files of a model's folder that can decide an answer, and those that only describe it.
SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model"}
REMARKS = {"card.json", "trainer_state.json"}

# This module warns of sliding windows (the first layer of nano has one) unless flash attention is
# used. The masks handle them; tests/test_nano.py compares the ways.
QWEN = "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"


class Loaded(NamedTuple):
    """A model ready to judge, with its processor."""

    model: object  # transformers PreTrainedModel, in evaluation mode
    processor: object  # transformers ProcessorMixin


def image_only(processor_class: type) -> type:
    """Return a processor class without its video part, if it has one.

    The full class needs a video processor, which needs torchvision. This kit uses images only, so
    neither is needed, and Pillow processes images alike on every machine.
    """
    if "video_processor" not in processor_class.get_attributes():
        return processor_class

    class ImageOnly(processor_class):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    family = re.match("[A-Z][a-z]+", processor_class.__name__)[0]
    ImageOnly.__name__ = ImageOnly.__qualname__ = f"ImageOnly{family}Processor"
    return ImageOnly


def image_only_processor() -> type:
    """Return the class of nano's processor."""
    from transformers import Qwen2_5_VLProcessor

    return image_only(Qwen2_5_VLProcessor)


def resolve(model: str | Path) -> str:
    """Return the folder or hub name of a model.

    ``"nano"`` is the model that ships with the package; a folder is relative to here or to the
    checkout; anything else is a hub name.
    """
    if str(model) == "nano":
        return str(NANO_MODEL)
    return str(ROOT / model) if (ROOT / model).is_dir() else str(model)


def _is_not_about_windows(record: logging.LogRecord) -> bool:
    return "Sliding Window" not in record.getMessage()


def load(
    model: str | Path, revision: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> Loaded:
    """Load a model and its processor. Weights are safetensors; no remote code is run.

    Parameters
    ----------
    model : ``"nano"``, a local folder, or a hub id such as ``"Qwen/Qwen2.5-VL-7B-Instruct"``
    revision : branch, tag or commit of a hub model; None is main
    dtype : of the weights
    device : where the model runs

    Raises
    ------
    InputError
        For an unknown dtype or device; a model that is not there, that needs code or a library of
        its own, that reads no pictures, of which a part is missing or left over, whose tied head is
        not, or with weights that are not finite.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would stay in every executed notebook
    logging.getLogger(QWEN).addFilter(_is_not_about_windows)  # added once, however often it is
    need_known(f"model {str(model)!r}: dtype", dtype, get_args(Dtype))
    check_device(device)
    name, revision = resolve(model), pin(model, revision)
    try:
        with _found(model, OSError):
            config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (ValueError, StrictDataclassError) as error:
        raise InputError(
            f"model {str(model)!r} is of no kind that transformers has "
            f"({str(error).splitlines()[0]}); code that comes with a model is never run"
        ) from None
    model_class = _model_class(model, config)
    try:
        with _libraries(model):
            processor = load_processor(name, revision, config)
            network, report = model_class.from_pretrained(
                name, config=config, revision=revision, dtype=dtype, use_safetensors=True,
                trust_remote_code=False, ignore_mismatched_sizes=True,
                output_loading_info=True,  # refused below, by name
            )  # fmt: skip
    except (OSError, SafetensorError) as error:
        raise not_whole(model, str(error).splitlines()[0]) from None
    check_report(model, report)
    check_finite(model, network.state_dict())
    if config.model_type == "shieldgemma2":
        network = network.model  # the chat model within, whose logits of Yes and No it compares
    if getattr(network.config, "tie_word_embeddings", False) and not _tied(network):
        raise not_whole(model, "its head is not tied to its embeddings")
    network.to(device)
    # Weights can be mapped from the file, and would change with it: keep a copy.
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return Loaded(network.eval(), processor)


def _model_class(model: str | Path, config) -> type:
    """Return the class that loads a model, and mend what is known to be wrong in its settings."""
    from transformers import AutoModelForImageClassification, AutoModelForImageTextToText

    if config.model_type == "shieldgemma2":  # the other class finds none of its weights
        return AutoModelForImageClassification
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise InputError(
            f"model {str(model)!r} is a {config.model_type}, which does not answer questions about "
            "images; choose a vision-language model"
        )
    if config.model_type == "llama4" and config.text_config.attention_chunk_size is None:
        config.text_config.attention_chunk_size = 8192  # Llama Guard 4 leaves it out
    return AutoModelForImageTextToText


def _tied(network) -> bool:
    head, embeddings = network.get_output_embeddings(), network.get_input_embeddings()
    return head is None or head.weight.data_ptr() == embeddings.weight.data_ptr()


@contextmanager
def _libraries(model: str | Path):
    """Turn a missing library, or one of another build than torch, into an InputError of a line."""
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:
        missing = r"requires the (\w+) library|No module named '(\w+)|(torchvision)"
        match = re.search(missing, str(error))
        if not match:
            raise
        library = next(filter(None, match.groups())).lower()
        raise InputError(
            f"model {str(model)!r} needs {library}, in the release that goes with the installed "
            f"torch: pip install {library}"
        ) from None


def load_processor(name: str, revision: str | None, config):
    """Load the processor of a model of this configuration, from a folder or a commit of the hub."""
    from transformers import AutoImageProcessor, AutoProcessor, Gemma3Processor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    known = type(config) in PROCESSOR_MAPPING
    processor_class = image_only(PROCESSOR_MAPPING[type(config)]) if known else AutoProcessor
    if config.model_type == "shieldgemma2":  # its own takes policies in place of texts
        processor_class = Gemma3Processor
    options = {"revision": revision, "trust_remote_code": False}
    processor = processor_class.from_pretrained(name, **options)
    if processor.image_processor.backend != "pil":  # torchvision's pixels differ by up to 0.03
        processor.image_processor = AutoImageProcessor.from_pretrained(
            name, backend="pil", **options
        )
    processor.tokenizer.padding_side = "left"  # generation and TRL both need it
    return processor


def backend(processor) -> dict[str, str]:
    """Return what processes pictures and its version, for an identity; {} for Pillow."""
    name = processor.image_processor.backend
    return {} if name == "pil" else {"image_backend": f"{name} {metadata.version(name)}"}


def limit_pixels(model: str | Path, processor, max_pixels: int | None) -> None:
    """Set the pixels to which a processor shrinks a picture; None keeps its own limit.

    Raises InputError for a processor without such a limit, which those of Qwen-VL models have.
    """
    if max_pixels is None:
        return
    images = processor.image_processor
    if not hasattr(images, "get_number_of_image_patches") or not images.size.get("longest_edge"):
        raise InputError(
            f"model {str(model)!r}: its processor knows no max_pixels; "
            "leave it out: it brings every picture to one size"
        )
    least = min(images.size["shortest_edge"], max_pixels)
    images.size = {"shortest_edge": least, "longest_edge": max_pixels}


def check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r}: {why}; use cpu, or cuda where there is a GPU"
        ) from None


def not_finite(weights: Mapping) -> list[str]:
    """List the names of tensors that hold a nan or an infinity."""
    return [name for name, tensor in weights.items() if not tensor.isfinite().all()]


def check_report(model: str | Path, report: Mapping) -> None:
    """Raise InputError for missing, unexpected and mismatched weights in a loading report."""
    for what in ("missing", "unexpected", "mismatched"):
        if keys := report[f"{what}_keys"]:
            raise not_whole(model, f"{what} weights: {_first(map(str, keys))}")


def check_finite(model: str | Path, weights: Mapping) -> None:
    """Raise InputError for weights that are nan or infinite."""
    if names := not_finite(weights):
        raise InputError(
            f"model {str(model)!r} has weights that are nan or infinite: {_first(names)}; "
            "get it again, or train it anew with a lower learning rate"
        )


def not_whole(model: str | Path, why: str) -> InputError:
    """Return the error for a model of which a part is missing, left over or damaged."""
    return InputError(f"model {str(model)!r} is not whole ({why}); get it again")


def _first(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def pin(model: str | Path, revision: str | None = None) -> str | None:
    """Resolve ``revision`` (default: main) to a commit hash; None for a local folder.

    Raises InputError for a model that is not there, and for a revision of a folder.
    """
    from transformers.utils.hub import cached_file, extract_commit_hash

    name = resolve(model)
    if _is_folder(model, revision):
        return None
    with _found(model, OSError, ValueError):
        return extract_commit_hash(cached_file(name, "config.json", revision=revision), None)


def _is_folder(model: str | Path, revision: str | None) -> bool:
    """Check whether a model is a folder. Raises InputError for a revision of one."""
    if not Path(resolve(model)).is_dir():
        return False
    if revision:
        raise InputError(
            f"model {str(model)!r} is a folder, which has no revision {revision!r}; omit it"
        )
    return True


def file_of(model: str | Path, *names: str, revision: str | None = None) -> Path:
    """Return the first of these files that a folder or a commit of the hub holds.

    Raises InputError for a model that is not there or has none of them, and for a revision of a
    folder.
    """
    from transformers.utils.hub import cached_file
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would stay in every executed notebook
    folder = Path(resolve(model)) if _is_folder(model, revision) else None
    for name in names:
        if folder:
            file = folder / name if (folder / name).is_file() else None
        else:
            with _found(model, OSError, ValueError):
                file = cached_file(
                    model, name, revision=revision, _raise_exceptions_for_missing_entries=False
                )
        if file:
            return Path(file)
    raise not_whole(model, f"no {' or '.join(names)}")


def snapshot(model: str | Path, revision: str | None = None) -> str:
    """Return the folder with a model's files: its own, or that of one commit in the hub's cache.

    Call it once the model is loaded: before that, the folder may lack files.
    """
    from transformers.utils.hub import cached_file

    name = resolve(model)
    if Path(name).is_dir():
        return name
    return str(Path(cached_file(name, "config.json", revision=pin(model, revision))).parent)


@contextmanager
def _found(model: str | Path, *errors: type[Exception]):
    try:
        yield
    except errors as error:
        if "gated" in str(error):
            from huggingface_hub.constants import ENDPOINT

            raise InputError(
                f"model {str(model)!r} is gated ({str(error).splitlines()[-1]}); accept its terms "
                f"at {ENDPOINT}/{model} and set HF_TOKEN to a token of yours"
            ) from None
        raise InputError(
            f"model {str(model)!r} was not found as a folder or on the hub "
            f"({str(error).splitlines()[0]}); `nano` ships with the package and needs no network"
        ) from None


def control_tokens(processor) -> list[str]:
    """List the tokens that a model does not read as plain text.

    These are its special tokens and those in its chat template, but not runs of blanks, which some
    tokenizers add as tokens.
    """
    added = processor.tokenizer.added_tokens_decoder.values()
    tokens = {t.content for t in added if t.special or t.content in (processor.chat_template or "")}
    return sorted(token for token in tokens if len(token) > 1 and not token.isspace())


def digest(model: str | Path, revision: str | None = None) -> str | None:
    """Compute the sha256 of what decides an answer in a local model's folder.

    Weights, tokenizer, processor, settings. For a hub id, return the commit that ``revision``
    (default: main) names now.
    """
    folder = Path(resolve(model))
    if not folder.is_dir():
        return pin(model, revision)
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in SUFFIXES and file.name not in REMARKS:
            sha.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as content:
                while part := content.read(2**20):
                    sha.update(part)
    return sha.hexdigest()


def stamps(model: str | Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file in a local model's folder; {} for a hub id."""
    folder = Path(resolve(model))
    files = folder.iterdir() if folder.is_dir() else ()
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
