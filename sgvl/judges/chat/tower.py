"""What a vision tower makes of pictures, kept for all judges of a process that have the same tower.

The trainings here leave the tower as it is, so their judges look at a picture once between them.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import torch
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sgvl.common.kept import Kept
from sgvl.data.images import image_digest

# Architectures whose language model gets the features of a picture alone, at its first layer.
TYPES = ("qwen2_vl", "qwen2_5_vl")
SEEN = Kept(500_000_000, lambda seen: seen[1].nbytes)  # bytes of features


class Tower:
    """The vision tower of a model, with its image processor.

    Parameters
    ----------
    model : of transformers, of an architecture in ``TYPES``
    processor : its processor
    """

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    @cached_property
    def _weights(self) -> str:
        """The digest of what decides the features of given pixels."""
        tower = self.model.model.visual
        digest = hashlib.sha256(f"{tower.config}{tower.device}{tower.dtype}".encode())
        for name, tensor in tower.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.contiguous().view(torch.uint8).cpu().numpy())
        return digest.hexdigest()

    def look(self, images: Sequence) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the grids of pictures, (n, 3), and the features of each, (tokens, width)."""
        settings = self.processor.image_processor.to_json_string()
        keys = [(self._weights, settings, image_digest(image)) for image in images]
        grids, features = zip(*SEEN.of(keys, images, self._features), strict=True)
        return torch.stack(grids), features

    def _features(self, images: list) -> list[tuple[torch.Tensor, torch.Tensor]]:
        read = self.processor.image_processor(images, return_tensors="pt")
        grids = read["image_grid_thw"].to(self.model.device)
        pixels = read["pixel_values"].to(self.model.device, self.model.dtype)
        with torch.no_grad():
            looked = self.model.get_image_features(pixels, grids, return_dict=True)
        return [(grid, own.clone()) for grid, own in zip(grids, looked.pooler_output, strict=True)]

    def inputs(self, images: Sequence, texts: Sequence[str], **options) -> BatchFeature:
        """Return what the processor returns for texts with their pictures in order.

        The features of the pictures stand in place of their pixels.
        """
        grids, features = self.look(images)
        processor, known = self.processor, {"image_grid_thw": grids}
        tokens = [processor.replace_image_token(known, k) for k in range(len(images))]
        texts, _ = processor.get_text_with_replacements(list(texts), tokens)
        read = processor.tokenizer(texts, return_tensors="pt", **options)
        kinds = torch.tensor(processor.create_mm_token_type_ids(read["input_ids"].tolist()))
        read = {**read, "mm_token_type_ids": kinds}
        looked = BaseModelOutputWithPooling(pooler_output=features)
        device = self.model.device
        found = {name: tensor.to(device) for name, tensor in read.items()}
        found |= {"image_grid_thw": grids, "mm_encoder_outputs": {"image": looked}}
        return BatchFeature(found)
