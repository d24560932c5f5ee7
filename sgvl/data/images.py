"""Decoding of untrusted pictures.

A picture that decodes to other pixels no longer fits its label. Measured with transformers' own
``load_image`` (5.23, Pillow 13): a 16-bit grey PNG turns almost white, colour hidden under
transparent pixels appears, an animation silently becomes its first frame, and colours are read
without the profile that every viewer applies. Here each of these is either decoded correctly or
refused with the name of the file, before any model sees it.
"""

import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageFilter,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
)

from sgvl.common.errors import InputError

MAX_PIXELS = 64_000_000  # a 48 kB PNG can declare 400 Mpx; checked in the header, before decoding
MAX_ASPECT = 200  # Qwen2-VL's resize raises beyond this, in the middle of a run
MAX_SCANS = 100  # of a progressive JPEG, usually 10: 288 kB in 400 scans take 14 s to decode
# A list of our own: some of Pillow's formats start other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Pillow refuses a PNG with a text or profile of over 1 MB; its limit for all texts (64 MB) stays.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# It looks for dots per inch while it opens a JPEG, and takes an empty text there for damage.
JpegImagePlugin.JpegImageFile._read_dpi_from_exif = lambda image: None

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a JPEG's segment; never inside a scan
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each EXIF orientation
OF_PIXELS = {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression", "dpi"),
    *("adobe", "adobe_transform", "icc_profile", "gamma", "srgb", "chromaticity", "transparency"),
    *("interlace", "background", "version", "duration", "loop", "timestamp", "compression"),
}  # what Pillow says of a file that is no metadata
PNG = b"\x89PNG\r\n\x1a\n"
COLOURS = ("icc_profile", "gamma", "srgb", "chromaticity")
SRGB_BY_CODE = (b"\x01\x0d\x00\x01", b"\x01\x01\x00\x01")  # cICP: primaries, curve, RGB, full
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green, blue, as PNG's cHRM


class ImageError(InputError):
    """A picture that cannot be judged; the message starts with its id or path.

    ``kind`` is one of "path", "missing", "image_decode", "image_too_large", "animated", "aspect".
    """

    def __init__(self, kind: str, name: str, why: str):
        # A base64 string passed as a path would fill the screen.
        name = name if len(name) <= 80 else name[:77] + "..."
        super().__init__(f"{name}: {why}")
        self.kind = kind


def load_image(content: bytes, name: str = "image bytes") -> Image.Image:
    """Decode one picture to 8-bit RGB.

    The EXIF orientation is applied, transparent parts become white, 16-bit grey is scaled to 8
    bits, and CMYK, palette and grey become RGB. Colours of an ICC profile or a PNG's gamma become
    sRGB. Metadata that cannot be read is passed over.

    Parameters
    ----------
    content : of the file
    name : the picture's name in error messages

    Raises
    ------
    ImageError
        Damaged or of another format (kind "image_decode"), over 64 Mpx or 100 JPEG scans
        ("image_too_large"), more than one frame or page ("animated"), a side over 200 times the
        other ("aspect").
    """
    try:
        file, cicp = _sound_png(content)
        image = Image.open(file, formats=FORMATS)
        _check_header(image, name)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, name)
        image.load()
        if cicp in SRGB_BY_CODE:  # it stands above all other chunks about colours
            image.info = {k: v for k, v in image.info.items() if k not in COLOURS}
        elif cicp is not None:
            raise ValueError("cICP of other colours than sRGB; save it as sRGB")
        return _to_rgb(_upright(image))
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


def image_digest(image: Image.Image) -> str:
    """Return the sha256 (hex) of mode, size and pixels of a picture from ``load_image``.

    The size is included because a 30 x 150 and a 150 x 30 picture can have the same bytes.
    """
    head = f"{image.mode} {image.width}x{image.height}\n"
    return hashlib.sha256(head.encode() + image.tobytes()).hexdigest()


def has_metadata(content: bytes) -> bool:
    """Check whether a file holds more than a picture and its colours: EXIF, XMP, comments, damage,
    bytes behind its end, and anything at all in formats whose end cannot be told.

    Such metadata say where a photograph was taken, when, and by which camera.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        image.load()
        known = bool(image.getexif()) or not image.info.keys() <= OF_PIXELS
        return known or _end(content, image.format) != len(content)
    except Exception:  # of as many kinds as in ``load_image``
        return True


def without_metadata(content: bytes) -> bytes:
    """Return a picture as a PNG of the same pixels that holds nothing else.

    Raises ImageError as ``load_image`` does.
    """
    buffer, image = io.BytesIO(), load_image(content)
    image.info.clear()  # Pillow would write its profile
    image.save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(image: Image.Image, side: int = 160, blur: bool = True) -> Image.Image:
    """Return a copy of at most ``side`` pixels per side, for display.

    ``blur`` leaves colours and layout; real pictures are blurred by default.
    """
    small = image.copy()
    small.thumbnail((side, side))
    return small.filter(ImageFilter.GaussianBlur(side / 16)) if blur else small


def file_inside(name: str, root: str | Path) -> Path:
    """Return the file of a relative path, which must be inside ``root`` after links are resolved.

    Raises ImageError for any other path (kind "path"), and if there is no such file ("missing").
    """
    if re.match(r"[A-Za-z]:[/\\]", name):
        raise ImageError("path", name, "a path of Windows; write it relative to the data folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|data:", name):
        raise ImageError("path", name, "a URL; pictures are read from the data folder only")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ImageError("path", name, "not a plain path relative to the data folder")
    try:
        root = Path(root).resolve()
        file = (root / path).resolve()
        is_file = file.is_file()
        if file.is_symlink():  # a loop, which is no error from Python 3.13 on
            raise RuntimeError
    except (OSError, RuntimeError, ValueError):
        raise ImageError("path", name, "too long, a loop of links, or a NUL byte") from None
    if not file.is_relative_to(root):
        raise ImageError("path", name, f"a link that leads out of {root}")
    if not is_file:
        raise ImageError("missing", name, f"no such file in {root}")
    return file


def _check_header(image: Image.Image, name: str) -> None:
    """Raise ImageError for a size or form that the header declares, before pixels are decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        why = f"{width} x {height} pixels, over the limit of {MAX_PIXELS // 10**6} Mpx"
        raise ImageError("image_too_large", name, why)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("aspect", name, f"{width} x {height}: sides differ by over {MAX_ASPECT}x")
    # MPO is a phone's JPEG with a preview or second view appended: one picture, not an animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError("animated", name, f"{image.n_frames} frames or pages; give one picture")


def _check_scans(file, name: str) -> None:
    """Raise ImageError for a JPEG of too many scans, each of which visits every block of pixels."""
    file.seek(0)
    scans, _ = _read_jpeg(file.read())
    if scans > MAX_SCANS:
        raise ImageError("image_too_large", name, f"{scans} scans, over the limit of {MAX_SCANS}")


def _read_jpeg(data: bytes) -> tuple[int, int]:
    """Return the number of scans of a JPEG, and where it ends."""
    at, scans = 2, 0
    while (marker := MARKER.search(data, at)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return scans, marker.end() if marker else -1


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and end of each chunk of a PNG."""
    at = len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at, end
        at = end if data[at + 4 : at + 8] != b"IEND" else len(data)


def _sound_png(data: bytes) -> tuple[IO[bytes], bytes | None]:
    """Return a PNG without its damaged ancillary chunks, as viewers read it, and its cICP.

    A file of another format is returned as it is.
    """
    if not data.startswith(PNG):
        return io.BytesIO(data), None
    kept, cicp = [PNG], None
    for name, start, end in _chunks(data):
        if name[:1].islower():
            if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                continue
            if name == b"cICP":
                cicp = data[start + 8 : end - 4]
        kept.append(memoryview(data)[start:end])
    return io.BytesIO(b"".join(kept)), cicp


def _end(content: bytes, format: str | None) -> int:
    """Return where a picture ends in its file; -1 where that cannot be told."""
    match format:
        case "JPEG":
            return _read_jpeg(content)[1]
        case "PNG":
            return max((end for name, _, end in _chunks(content) if name == b"IEND"), default=-1)
        case "WEBP":
            return 8 + int.from_bytes(content[4:8], "little")
    return -1


def _upright(image: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. ``ImageOps.exif_transpose`` fails where another tag is wrong."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # as many kinds as in ``load_image``; viewers show such a picture as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no agreed range of brightness")
    info = image.info
    if image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    grey = image.mode in ("1", "L", "LA")
    if not image.has_transparency_data:
        return _to_srgb(image, info, grey)
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(_to_srgb(image, info, grey), mask=image.getchannel("A"))
    return white


def _to_srgb(image: Image.Image, info: dict, grey: bool) -> Image.Image:
    """Return the colours as sRGB, by the ICC profile or else the PNG's gamma in ``info``."""
    if icc := info.get("icc_profile"):
        return _by_profile(image, icc, grey) or image.convert("RGB")
    gamma, image = info.get("gamma"), image.convert("RGB")
    if "srgb" in info:
        return image
    if np.abs(np.subtract(info.get("chromaticity", SRGB), SRGB)).max() > 0.02:
        raise ValueError("cHRM of other colours than sRGB; save it as sRGB")
    if not gamma:
        return image
    power = 1 / (2.2 * gamma)
    if abs(power - 1) < 0.05:  # libpng's own threshold
        return image
    return image.point([round(255 * (level / 255) ** power) for level in range(256)] * 3)


def _by_profile(image: Image.Image, icc: bytes, grey: bool) -> Image.Image | None:
    """Convert by a profile; None if it cannot be read, is of another mode, or is sRGB itself."""
    own = "L" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[profile.profile.xcolor_space]
        if mode != own and (mode, own) != ("RGB", "L"):
            return None
        convert = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError):
        return None
    if mode != "CMYK":
        # The name proves nothing: many a profile of sRGB has another, and any may be called sRGB.
        levels = np.indices((9, 9, 9), np.uint8).reshape(3, 1, -1).transpose(1, 2, 0) * 31
        probe = Image.fromarray(np.ascontiguousarray(levels)).convert(mode)
        change = np.asarray(convert.apply(probe), int) - np.asarray(probe.convert("RGB"), int)
        if np.abs(change).max() <= 2:
            return None
    return convert.apply(image.convert(mode))


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits (65535 -> 255); ``convert`` would clip at 255."""
    values = np.asarray(image)
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")  # PNG: one grey value that means transparent
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
