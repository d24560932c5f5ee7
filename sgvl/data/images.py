"""Decoding pictures that nobody has vouched for.

A guard is judged on what it was shown, so a picture that decodes *differently* is a wrong label,
not a cosmetic flaw. Measured with transformers' own ``load_image`` (5.23, Pillow 13): a 16-bit grey
PNG turns almost white, colour hidden under transparent pixels appears, and an animation silently
becomes its first frame. Here each of these is either decoded right or refused with the name of the
file, before any model sees it.
"""

import hashlib
import io
import re
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from sgvl.common.errors import InputError

MAX_PIXELS = 64_000_000  # a 48 kB PNG can claim 400 Mpx; checked in the header, before decoding
MAX_ASPECT = 200  # Qwen2-VL's resize raises beyond this, in the middle of a run
# Named one by one, because Pillow's full list holds formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class ImageError(InputError):
    """A picture that cannot be judged. The message starts with its id or path.

    ``kind`` is one of "path", "missing", "image_decode", "image_too_large", "animated", "aspect".
    """

    def __init__(self, kind: str, name: str, why: str):
        # A base64 string taken for a path would fill the screen.
        name = name if len(name) <= 80 else name[:77] + "..."
        super().__init__(f"{name}: {why}")
        self.kind = kind


def load_image(
    source: bytes | str | Path, root: str | Path | None = None, name: str | None = None
) -> Image.Image:
    """Decode one picture to 8-bit RGB.

    ``source`` is the file's bytes, or a path relative to the data folder ``root``. ``name`` stands
    for the picture in error messages (default: the path). The result is turned upright by its EXIF
    tag, transparent parts are laid on white, 16-bit grey is scaled to 8 bits, and CMYK, palette and
    grey become RGB.

    Raises ImageError: not a plain path inside ``root`` (kind "path"), no such file ("missing"),
    damaged or of another format ("image_decode"), over 64 Mpx ("image_too_large"), more than one
    frame or page ("animated"), longer than 200 times its width ("aspect").
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name or "image bytes")
    name = name or str(source)
    with _inside(str(source), root, name).open("rb") as file:
        return _decode(file, name)


def image_digest(image: Image.Image) -> str:
    """sha256 (hex) over mode, size and pixels of an RGB picture as ``load_image`` returns it.

    Mode and size count: a 30 x 150 and a 150 x 30 picture can hold the same bytes.
    """
    head = f"{image.mode} {image.width}x{image.height}\n"
    return hashlib.sha256(head.encode() + image.tobytes()).hexdigest()


def thumbnail(image: Image.Image, side: int = 160, blur: bool = True) -> Image.Image:
    """A small copy to be shown, at most ``side`` pixels wide and high.

    Real pictures are blurred unless their reader asks to see them: colours and layout remain.
    """
    small = image.copy()
    small.thumbnail((side, side))
    return small.filter(ImageFilter.GaussianBlur(side / 16)) if blur else small


def _inside(source: str, root: str | Path | None, name: str) -> Path:
    """The file that ``source`` names, which must lie in ``root`` after links are followed."""
    if root is None:
        raise ImageError("path", name, "a path needs the data folder it is relative to")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source):
        raise ImageError("path", name, "a URL; pictures are read from the data folder only")
    path = PurePosixPath(source)
    if path.is_absolute() or ".." in path.parts or "\\" in source:
        raise ImageError("path", name, "not a plain path relative to the data folder")
    try:
        root = Path(root).resolve()
        file = (root / path).resolve()
        is_file = file.is_file()
    except (OSError, RuntimeError, ValueError):
        raise ImageError("path", name, "too long, a loop of links, or a NUL byte") from None
    if not file.is_relative_to(root):
        raise ImageError("path", name, f"a link that leads out of {root}")
    if not is_file:
        raise ImageError("missing", name, f"no such file in {root}")
    return file


def _decode(file, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
        _check_header(image, name)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("image_too_large", name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError("image_decode", name, f"not a {', '.join(FORMATS)} file") from error
    except Exception as error:
        # Pillow has no common error for damaged files: OSError, SyntaxError, struct.error, KeyError
        # and more have been seen. One bad file must not end a run of thousands.
        raise ImageError("image_decode", name, f"{type(error).__name__}: {error}") from error


def _check_header(image: Image.Image, name: str) -> None:
    """Refuse by what the header claims; no pixel has been decoded yet."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        why = f"{width} x {height} pixels, over the limit of {MAX_PIXELS // 10**6} Mpx"
        raise ImageError("image_too_large", name, why)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("aspect", name, f"{width} x {height}: sides differ by over {MAX_ASPECT}x")
    # MPO is a JPEG from a phone with a preview or second view behind it: one picture, not a film.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError("animated", name, f"{image.n_frames} frames or pages; give one picture")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no agreed range of brightness")
    if image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits (65535 -> 255); a bare ``convert`` would clip at 255."""
    values = np.asarray(image)
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    see_through = image.info.get("transparency")  # PNG: one grey value that means transparent
    if see_through is not None:
        grey.putalpha(Image.fromarray(np.where(values == see_through, 0, 255).astype(np.uint8)))
    return grey
