"""The shape of a model, from its configuration where that is at hand, else from a table."""

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.common.paths import NANO_MODEL, ROOT
from sgvl.run.planning.costs import Size


def size_of(model: str) -> Size | None:
    """Return the shape of a model; None if nothing here knows it.

    A folder has its own configuration, and so has a model in the hub's cache that the table lacks.

    Parameters
    ----------
    model : "nano", a folder, or a hub id
    """
    folder = NANO_MODEL if model == "nano" else ROOT / model
    if (folder / "config.json").is_file():
        return measure(folder)
    if model in published():
        return published()[model]
    file = cached(model) if model.count("/") == 1 else None
    return measure(file.parent) if file else None


def cached(model: str) -> Path | None:
    """Return a hub model's configuration in the cache; None if there is none, or no such id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(file) if isinstance(file, str) else None


@cache
def measure(folder: Path) -> Size:
    """Count the parameters that transformers makes of a folder's configuration.

    Raises InputError for one of which it makes no model that reads pictures.
    """
    from transformers import AutoConfig

    try:
        return count(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # of as many kinds as there are mistakes in such a file
        why = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{folder / 'config.json'}: its parameters cannot be counted: {why}"
        ) from None


def count(config) -> Size:
    """Count the parameters of a configuration, on a device that holds no numbers."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.set_verbosity_error()  # nothing is computed with this network
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(config)
    inner = getattr(network, "model", network)
    names = ("visual", "vision_tower", "vision_model")
    tower = next(getattr(inner, name) for name in names if hasattr(inner, name))
    text = config.get_text_config()
    heads = text.num_attention_heads
    return Size(
        *(sum(p.numel() for p in part.parameters()) for part in (network, tower)),
        text.hidden_size, text.num_hidden_layers, heads,
        getattr(text, "num_key_value_heads", None) or heads,
        getattr(text, "head_dim", None) or text.hidden_size // heads,
        text.intermediate_size, text.vocab_size,
    )  # fmt: skip


@cache
def published() -> dict[str, Size]:
    """Return the table of released models, by hub id."""
    rows = read_table("models.csv")
    return {
        row.pop("model"): Size(
            **{name: int(value) for name, value in row.items() if value.isdigit()}
        )
        for row in rows
        for _ in [row.pop("source")]
    }


def read_table(name: str) -> Iterator[dict]:
    """Read a table of this folder; lines that start with # are comments."""
    lines = (files(__package__) / name).read_text(encoding="utf-8").splitlines()
    return csv.DictReader(line for line in lines if not line.startswith("#"))
