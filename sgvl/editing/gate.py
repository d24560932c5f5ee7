"""The gate: whether both members of a pair show one scene that differs in one place alone.

The checks see pixels only. ``made.make_pairs`` adds what a verifier says of the content.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from sgvl.common.errors import InputError, nearest
from sgvl.common.types import type_problems
from sgvl.data.overview import perceptual_hash

CHANGED = 12  # levels by which a pixel differs, after a mean over 5 x 5 pixels
RIM = 8  # pixels around a changed region that belong to it


@dataclass(frozen=True)
class Bounds:
    """The bounds of the checks; all are this kit's own choice.

    Parameters
    ----------
    changed : largest share of pixels that differ
    connected : smallest share of these in one connected region
    similar : smallest mean SSIM outside the region
    drift : largest mean difference outside it, in levels of 255
    hash : largest distance of the perceptual hashes without the region, of 63 bits; those of two
        unrelated pictures differ in about half
    sharp : smallest ratio of sharpness inside the region, edit to original: a smear has little
    grain : largest ratio of fine detail outside the region, of one member to the other
    blocks : largest difference of the step at the borders of JPEG's blocks outside the region
    """

    changed: float = 0.35
    connected: float = 0.9
    similar: float = 0.9
    drift: float = 3.0
    hash: int = 12
    sharp: float = 0.5
    grain: float = 1.2
    blocks: float = 0.05


def make_bounds(values: dict) -> Bounds:
    """Make bounds from a parameter file; raise InputError for unknown names and wrong types."""
    known = asdict(Bounds())
    problems = [f"gate: unknown bound {n!r}; {nearest(n, known)}" for n in values if n not in known]
    if problems := problems + type_problems("gate:", Bounds.__annotations__, values):
        raise InputError(problems)
    return Bounds(**values)


class Found(NamedTuple):
    """What the gate found of a pair.

    Parameters
    ----------
    reason : the first check that failed; "" if none did
    measures : each measure by the name of its bound; empty where sizes differ
    box : of the changed region, left, top, right, bottom in pixels; None if nothing changed
    """

    reason: str
    measures: dict
    box: tuple[int, int, int, int] | None = None


def compare(original: Image.Image, edit: Image.Image, bounds: Bounds) -> Found:
    """Check an original and its edit against the bounds.

    The reasons, in the order in which they are looked for: other size, nothing changed, not local,
    compression tell, grain tell, scattered, scene changed, smear.
    """
    from skimage.metrics import structural_similarity

    if original.size != edit.size:
        sizes = [f"{image.width} x {image.height}" for image in (original, edit)]
        return Found(f"other size: {sizes[1]}, not {sizes[0]}", {})
    one, other = (np.asarray(image.convert("RGB"), dtype=float) for image in (original, edit))
    mask = np.abs(ndimage.uniform_filter(one - other, (5, 5, 0))).max(-1) > CHANGED
    if not mask.any():
        return Found("nothing changed", {"changed": 0.0})
    parts, count = ndimage.label(ndimage.binary_dilation(mask, iterations=RIM))
    sizes = ndimage.sum(mask, parts, range(1, count + 1))
    outside = np.ones(mask.shape, bool)
    for box in ndimage.find_objects(parts):  # what stayed alike between changes is no scene
        outside[box] = False
    measures = {"changed": float(mask.mean()), "connected": float(max(sizes) / mask.sum())}
    if outside.mean() < 0.1:
        return Found("not local", measures)
    greys = [image.mean(-1) for image in (one, other)]
    similar = structural_similarity(*greys, data_range=255, full=True)[1]
    fine = [np.abs(ndimage.laplace(grey)) for grey in greys]
    rough = [image[outside].mean() for image in fine]
    steps = [_block_step(grey, outside) for grey in greys]
    inside = [_sharpness(grey, mask) for grey in greys]
    measures |= {
        "blocks": float(abs(steps[1] - steps[0])),
        "grain": float(max(rough) + 0.1) / float(min(rough) + 0.1),
        "similar": float(similar[outside].mean()),
        "drift": float(np.abs((one - other)[outside].mean(0)).max()),
        "hash": int((_scene_hash(one, outside) != _scene_hash(other, outside)).sum()),
        "sharp": inside[1] / max(inside[0], 1e-6),
    }
    failed = {
        "not local": measures["changed"] > bounds.changed,
        "compression tell": measures["blocks"] > bounds.blocks,
        "grain tell": measures["grain"] > bounds.grain,
        "scattered": measures["connected"] < bounds.connected,
        "scene changed": measures["similar"] < bounds.similar
        or measures["drift"] > bounds.drift
        or measures["hash"] > bounds.hash,
        "smear": measures["sharp"] < bounds.sharp,
    }
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    reason = next((reason for reason, fails in failed.items() if fails), "")
    return Found(reason, measures, tuple(map(int, box)))


def _scene_hash(pixels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Hash a picture with its changed region in one grey."""
    return perceptual_hash(
        Image.fromarray(np.where(outside[..., None], pixels, 128).astype(np.uint8))
    )


def _sharpness(grey: np.ndarray, mask: np.ndarray) -> float:
    """Return how steep the edges of a region are for its contrast; grain is smoothed away first."""
    smooth = ndimage.gaussian_filter(grey, 1.5)
    steep = np.quantile(ndimage.gaussian_gradient_magnitude(smooth, 1.0)[mask], 0.9)
    return float(steep / max(smooth[mask].std(), 1.0))


def _block_step(grey: np.ndarray, outside: np.ndarray) -> float:
    """Return the ratio of steps at every eighth column and row to those elsewhere."""
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, n=2, axis=axis)).swapaxes(0, axis)
        known = outside.swapaxes(0, axis)[1:-1]
        at = np.isin(
            np.arange(1, len(steps) + 1) % 8, (0, 7)
        )  # the pixels on both sides of a border
        border, within = steps[at][known[at]], steps[~at][known[~at]]
        ratios.append(float((border.mean() + 0.1) / (within.mean() + 0.1)) if border.size else 1.0)
    return float(np.mean(ratios))


def traces(picture: Image.Image) -> dict:
    """Extract features of one picture that editing could leave, whatever it shows.

    They feed ``controls.fit_probe``: fine detail, its least over patches, the share of patches
    without any, the step at the borders of JPEG's blocks, and the size.
    """
    grey = np.asarray(picture.convert("L"), dtype=float)
    fine = np.abs(ndimage.laplace(grey))
    side = max(8, min(grey.shape) // 14)
    high, wide = (length // side for length in grey.shape)
    patches = fine[: high * side, : wide * side].reshape(high, side, wide, side).mean((1, 3))
    return {
        "fine": float(fine.mean()),
        "smoothest": float(patches.min()),
        "smooth": float((patches < 0.5 * np.median(patches)).mean()),
        "blocks": _block_step(grey, np.ones(grey.shape, bool)),
        "width": picture.width,
        "height": picture.height,
    }
