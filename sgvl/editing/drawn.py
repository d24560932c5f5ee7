"""Drawn canvases, read from their pixels alone: where the things are, and a drawing put in place.

What is known of a canvas beforehand is its form, not its content: four quarters with at most one
drawing each, drawings in flat colours, and a background with grain, part of which may be smoothed.
"""

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from sgvl.world.scenes import ANGLES, SIZES, drawing

BIN = 8  # levels of a colour that count as one
FAR = 20  # levels between a drawing's colour and every colour of the background
SMALLEST = 76  # pixels; a drawing that is found smaller has been found in part
MARGIN = 4  # pixels around what was found
GRAIN_STEPS = 16  # in which the grain is kept while it is filled in, as whole numbers
SIGMA = 1.4826 * (9 / 8) ** 0.5  # of normal grain, by its median size less a mean over 3 x 3


def find_things(picture: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """Find the boxes of ``count`` drawings, in reading order.

    They are the quarters with the largest areas that are free of grain and far in colour from every
    colour that has grain. A box is left, top, right, bottom in pixels, and stays in its quarter.
    """
    pixels = np.asarray(picture.convert("RGB"))
    square = np.ones((3, 3), np.uint8)
    spread = (cv2.dilate(pixels, square) - cv2.erode(pixels, square)).max(-1)
    far = _distance_to_background(pixels, spread) > FAR
    seeds = ndimage.binary_opening(far & (spread <= 1), np.ones((2, 2)))
    thing = ndimage.binary_opening(far & ~_has_grain(pixels), square)
    height, width = (side // 2 for side in far.shape)
    found = []
    for slot in range(4):
        top, left = slot // 2 * height, slot % 2 * width
        quarter = np.s_[top : top + height, left : left + width]
        rows, columns = np.nonzero(_touched(thing[quarter] | seeds[quarter], seeds[quarter]))
        evidence = seeds[quarter].sum() + 0.1 * thing[quarter].sum()
        box = (MARGIN, MARGIN, width - MARGIN, height - MARGIN)
        if len(rows) and min(np.ptp(rows), np.ptp(columns)) >= SMALLEST:
            box = (
                max(columns.min() - MARGIN, 0), max(rows.min() - MARGIN, 0),
                min(columns.max() + MARGIN, width), min(rows.max() + MARGIN, height),
            )  # fmt: skip
        found.append((evidence, slot, (left + box[0], top + box[1], left + box[2], top + box[3])))
    chosen = sorted(found, reverse=True)[:count]
    return [tuple(map(int, box)) for _, _, box in sorted(chosen, key=lambda one: one[1])]


def _distance_to_background(pixels: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return how far each pixel's colour is, in levels, from the nearest colour that has grain."""
    grain = cv2.erode(((spread >= 8) & (spread <= 40)).astype(np.uint8), np.ones((5, 5)))
    bins = 256 // BIN
    weights = (bins**2, bins, 1)
    counts = np.bincount(cv2.blur(pixels, (5, 5))[grain > 0] // BIN @ weights, minlength=bins**3)
    distances = BIN * ndimage.distance_transform_edt((counts < 25).reshape((bins,) * 3))
    return distances.ravel()[pixels // BIN @ weights]


def _has_grain(pixels: np.ndarray) -> np.ndarray:
    """Mark the pixels of a grainy surface: the grain is grey, so all channels vary alike."""
    rough = pixels - cv2.blur(pixels.astype(np.float32), (3, 3))
    grey = cv2.blur(np.abs(rough.mean(-1)), (5, 5))
    coloured = cv2.blur(np.ptp(rough, axis=-1), (3, 3))
    return (grey > 1.2) & (grey < 9) & (coloured < 1.5)


def _touched(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Select the connected parts of a mask that hold a seed."""
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.isin(parts, np.unique(parts[seeds & mask])) & mask


def _grain(pixels: np.ndarray) -> np.ndarray:
    """Return the median size of the grain around each pixel, in GRAIN_STEPS a level.

    It varies over a picture, parts of which are smoothed. Edges are too few to move a median.
    """
    rough = np.abs((pixels - cv2.blur(pixels.astype(np.float32), (3, 3))).mean(-1))
    return cv2.medianBlur(np.clip(rough * GRAIN_STEPS, 0, 255).astype(np.uint8), 9)


def replace_thing(
    picture: Image.Image, box: tuple[int, int, int, int], concept: str | None, seed: int = 0
) -> Image.Image:
    """Fill a box from its surroundings, with their grain, and draw a concept in its middle.

    Parameters
    ----------
    box : left, top, right, bottom in pixels
    concept : whose drawing is placed; None leaves the box empty
    seed : of the grain, and of the drawing's size and angle
    """
    pixels = np.asarray(picture.convert("RGB"))
    left, top, right, bottom = box
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[top:bottom, left:right] = 1
    filled = cv2.inpaint(pixels, mask, 5, cv2.INPAINT_TELEA)
    grain = cv2.inpaint(_grain(pixels), mask, 5, cv2.INPAINT_TELEA) * mask / GRAIN_STEPS
    rng = np.random.default_rng(seed)
    noise = (SIGMA * grain * rng.normal(size=mask.shape))[..., None]
    result = Image.fromarray(np.clip(filled + noise, 0, 255).astype(np.uint8))
    if concept:
        room = min(right - left, bottom - top)
        size = int(rng.choice([size for size in SIZES if size <= room] or [room]))
        sprite = drawing(concept, "twemoji", size, int(rng.choice(ANGLES)))
        result.paste(sprite, ((left + right - size) // 2, (top + bottom - size) // 2), sprite)
    return result
