"""Real files, made here, of every kind that decodes wrong or must not be decoded."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sgvl.common.errors import InputError, one_line
from sgvl.data.images import (
    MAX_PIXELS,
    ImageError,
    file_inside,
    has_metadata,
    image_digest,
    load_image,
    thumbnail,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(mode="RGB", size=(24, 16), seed=0):
    shape = size[::-1] if len(mode) == 1 else (*size[::-1], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


def as_bytes(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing: a decompression bomb's first bytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(kind, *args, **kwargs):
    with pytest.raises(ImageError) as caught:
        load_image(*args, **kwargs)
    assert caught.value.kind == kind
    return str(caught.value)


def barred(kind, path, root):
    with pytest.raises(ImageError) as caught:
        file_inside(path, root)
    assert caught.value.kind == kind and isinstance(caught.value, InputError)
    return str(caught.value)


# ---- what decodes, decodes right ------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_rgb_comes_back_unchanged(format):
    image = noise()
    loaded = load_image(as_bytes(image, format))
    assert loaded.mode == "RGB" and loaded.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(mode):
    image = noise("L").convert(mode)
    assert load_image(as_bytes(image)).tobytes() == image.convert("RGB").tobytes()


def test_16_bit_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    loaded = np.asarray(load_image(as_bytes(Image.fromarray(ramp))))
    assert np.array_equal(loaded[..., 0].ravel(), np.arange(256))
    assert np.array_equal(loaded[..., 0], loaded[..., 2])


def test_16_bit_transparent_value_is_laid_on_white():
    image = Image.fromarray(np.array([[0, 40_000]], np.uint16))
    loaded = load_image(as_bytes(image, transparency=40_000))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_32_bit_has_no_agreed_range():
    image = Image.fromarray(np.ones((4, 4), np.float32))
    assert "no agreed range" in refused("image_decode", as_bytes(image, "TIFF"))


def test_cmyk_keeps_its_colour():
    red = Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK")
    pixel = load_image(as_bytes(red, "JPEG", quality=95)).getpixel((8, 8))
    assert max(abs(a - b) for a, b in zip(pixel, (200, 30, 30), strict=True)) <= 6


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_colour_hidden_under_transparency_stays_hidden(format):
    hidden = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    loaded = load_image(as_bytes(hidden, format, **({"exact": True} if format == "WEBP" else {})))
    assert loaded.getcolors() == [(64, (255, 255, 255))]


def test_half_transparent_is_mixed_with_white():
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert load_image(as_bytes(half)).getpixel((0, 0)) == (127, 127, 127)


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    loaded = load_image(as_bytes(image, transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


STORED = {  # EXIF orientation -> how a camera that writes this tag turned the pixels
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_undone_once(orientation):
    upright, exif = noise(), Image.Exif()
    exif[0x0112] = orientation
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    loaded = load_image(as_bytes(stored, exif=exif))
    assert loaded.size == upright.size and loaded.tobytes() == upright.tobytes()


def test_one_pixel_is_a_picture():
    assert load_image(as_bytes(Image.new("RGB", (1, 1)))).size == (1, 1)


def test_phone_jpeg_with_a_second_view_is_one_picture():
    two_views = as_bytes(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    assert load_image(two_views).tobytes() == load_image(as_bytes(noise(), "JPEG")).tobytes()


# ---- what does not ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated(format):
    whole = as_bytes(noise(size=(64, 64)), format)
    for share in (0.0, 0.1, 0.5, 0.9):
        refused("image_decode", whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    "junk", [b"", b"<html>404</html>", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_not_a_picture(junk):
    assert refused("image_decode", junk, name="s17").startswith("s17: not a PNG, JPEG")


@pytest.mark.parametrize("format", ["PPM", "ICO", "EPS", "TGA"])
def test_a_format_that_nobody_asked_for_is_not_opened(format):
    assert "not a PNG" in refused("image_decode", as_bytes(noise(), format))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_damage_never_escapes_as_another_error(format):
    whole, random = bytearray(as_bytes(noise(), format)), np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 4):
            damaged[position] = random.integers(256)
        try:
            assert load_image(bytes(damaged)).mode == "RGB"
        except ImageError as error:
            assert error.kind


@pytest.mark.parametrize("size", [(8001, 8001), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bomb_is_refused_by_its_header(size, monkeypatch):
    assert size[0] * size[1] > MAX_PIXELS
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded a pixel"))
    refused("image_too_large", png_header(*size))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_is_refused(format):
    film = as_bytes(noise(), format, save_all=True, append_images=[noise(seed=1), noise(seed=2)])
    assert "3 frames" in refused("animated", film)
    assert load_image(as_bytes(noise(), format)).size == (24, 16)


def test_aspect_ratio():
    assert load_image(as_bytes(Image.new("RGB", (200, 1)))).size == (200, 1)
    refused("aspect", as_bytes(Image.new("RGB", (201, 1))))
    refused("aspect", as_bytes(Image.new("RGB", (3, 601))))


# ---- metadata: pixels are whole without it, but not colours ------------------------------------


def swapped_profile():
    """sRGB with red and blue exchanged, still called sRGB."""
    profile = SRGB
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
        profile = profile.replace(old, new)
    return profile


def with_chunk(png, kind, content):
    """Insert a chunk after the header of a PNG."""
    chunk = kind + content
    return png[:33] + struct.pack(">I", len(content)) + chunk + crc(chunk) + png[33:]


def crc(chunk):
    return struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_of_another_profile_become_srgb(format):
    red = Image.new("RGB", (8, 8), (200, 30, 30))
    lossless = {"lossless": True} if format == "WEBP" else {}
    loaded = load_image(as_bytes(red, format, icc_profile=swapped_profile(), **lossless))
    assert np.abs(np.subtract(loaded.getpixel((3, 3)), (30, 30, 200))).max() <= 3


def test_colours_under_a_transparent_part_and_of_a_palette_become_srgb_too():
    red = Image.new("RGBA", (8, 8), (200, 30, 30, 255))
    red.putpixel((0, 0), (0, 0, 0, 0))
    loaded = load_image(as_bytes(red, icc_profile=swapped_profile()))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (30, 30, 200)]
    palette = red.convert("RGB").quantize(4)
    assert load_image(as_bytes(palette, icc_profile=swapped_profile())).getpixel((1, 0))[2] > 190


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "profile", [SRGB, b"no profile", SRGB[:16] + b"\xff\xfe\xfd\xfc" + SRGB[20:], SRGB[:300]]
)
def test_a_profile_of_srgb_or_of_nothing_changes_no_pixel(mode, profile):
    image = noise(mode)
    loaded = load_image(as_bytes(image, icc_profile=profile))
    assert loaded.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("gamma, level", [(45455, 128), (100000, 186), (22727, 64)])
def test_a_gamma_without_a_profile_is_applied(gamma, level):
    png = as_bytes(Image.new("RGB", (8, 8), (128, 128, 128)))
    loaded = load_image(with_chunk(png, b"gAMA", struct.pack(">I", gamma)))
    assert loaded.getpixel((0, 0)) == (level,) * 3
    both = with_chunk(with_chunk(png, b"gAMA", struct.pack(">I", gamma)), b"sRGB", b"\0")
    assert load_image(both).getpixel((0, 0)) == (128,) * 3  # which counts before gAMA


def test_a_gamma_for_other_colours_is_refused_by_name():
    png = as_bytes(noise())
    colours = struct.pack(">8I", 31270, 32900, 15000, 6000, 30000, 60000, 64000, 33000)
    png = with_chunk(with_chunk(png, b"gAMA", struct.pack(">I", 45455)), b"cHRM", colours)
    assert "cHRM" in refused("image_decode", png)
    assert "cHRM" in refused("image_decode", with_chunk(as_bytes(noise()), b"cHRM", colours))
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert load_image(with_chunk(as_bytes(noise()), b"cHRM", srgb)).tobytes() == noise().tobytes()


def test_colours_by_code_are_srgb_or_refused_by_name():
    png = with_chunk(as_bytes(noise()), b"gAMA", struct.pack(">I", 100000))
    assert load_image(png).tobytes() != noise().tobytes()
    assert load_image(with_chunk(png, b"cICP", b"\1\15\0\1")).tobytes() == noise().tobytes()
    for code in (b"\x09\x10\0\1", b"\x0c\15\0\1", b"\1\15\0\0", b""):  # PQ, P3, narrow, cut
        assert "cICP" in refused("image_decode", with_chunk(png, b"cICP", code))


@pytest.mark.parametrize("kind", [b"tEXt", b"gAMA", b"cICP", b"iCCP"])
def test_a_damaged_chunk_without_pixels_is_passed_over(kind):
    png = with_chunk(as_bytes(noise()), kind, b"Note\0text")
    at = png.index(kind) + 6
    damaged = png[:at] + bytes([png[at] ^ 255]) + png[at + 1 :]
    assert load_image(damaged).tobytes() == noise().tobytes()
    at = png.index(b"IDAT") + 6
    refused("image_decode", png[:at] + bytes([png[at] ^ 255]) + png[at + 1 :])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_bytes_behind_the_end_of_a_picture_are_metadata(format):
    content = as_bytes(noise(), format)
    assert not has_metadata(content)
    behind = as_bytes(noise(), "JPEG")  # as a phone appends a preview, or a film
    assert has_metadata(content + behind) and has_metadata(content + b"GPS")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_metadata_of_three_megabytes_is_no_damage(kind):
    head = {b"zTXt": b"Note\0\0", b"iTXt": b"Note\0\1\0\0\0", b"iCCP": b"Note\0\0"}[kind]
    png = with_chunk(as_bytes(noise()), kind, head + zlib.compress(b"x" * 3_000_000))
    assert load_image(png).tobytes() == noise().tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_tag_of_a_wrong_type_does_not_cost_the_orientation(format):
    # Little-endian TIFF: orientation 6, and a width that is a text of four letters.
    tags = struct.pack("<HHI4s", 0x0100, 2, 4, b"wide") + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + b"\0" * 4
    if format == "TIFF":
        stored = Image.Exif()
        stored[0x0112], stored[0x010E] = 6, "no such description"
        data = as_bytes(noise(), format, exif=stored).replace(b"no such", b"\xff\xfe\0 such")
    else:
        data = as_bytes(noise(), format, exif=exif)
    assert load_image(data).size == noise().size[::-1]


def test_an_empty_text_for_dots_per_inch_is_no_damage():
    turned, inch = (
        struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in ((274, 6), (296, 2))
    )
    tags = turned + struct.pack("<HHI4s", 282, 2, 1, b"") + inch
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 3) + tags + b"\0" * 4
    jpeg = as_bytes(noise(), "JPEG", exif=exif).replace(b"JFIF", b"JFXX")  # whose own would do
    assert load_image(jpeg).size == noise().size[::-1]


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded():
    jpeg = as_bytes(noise(), "JPEG", progressive=True)
    first = jpeg.index(b"\xff\xda")
    second = jpeg.index(b"\xff\xc4", first)
    scan = jpeg[first:second]
    many = jpeg[:first] + scan * 200 + jpeg[second:]
    assert "scans, over the limit of 100" in refused("image_too_large", many)
    # Bytes behind the picture, as of a phone's video, are no scans.
    assert load_image(jpeg + scan * 200).tobytes() == load_image(jpeg).tobytes()


# ---- paths -----------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.png").write_bytes(as_bytes(noise()))
    (tmp_path / "secret.png").write_bytes(as_bytes(noise()))
    return root


def test_relative_path(root):
    assert file_inside("sub/a.png", root) == root / "sub" / "a.png"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "sub/../sub/a.png",
        "sub/../../secret.png",
        "..\\secret.png",
        "/etc/hostname",
        "~/../../etc/hostname\0",
        "http://localhost/a.png",
        "file:///etc/hostname",
        "data:image/png;base64,iVBORw0KGgo=",
        "C:/a.png",
        "iVBORw0KGgoAAAANSUhEUgAA" * 1000,
    ],
)
def test_path_outside_root_is_refused(root, path):
    message = barred("path", path, root)
    assert message.startswith(one_line(path)[:70]) and len(message) < 500


def test_absolute_path_inside_root_is_refused_too(root):
    barred("path", str(root / "sub" / "a.png"), root)


def test_a_colon_is_no_url_and_windows_is_named(root):
    (root / "shot-12:30.png").write_bytes(as_bytes(noise()))
    assert file_inside("shot-12:30.png", root).exists()
    assert "a path of Windows" in barred("path", "C:\\photos\\a.png", root)


def test_symlinks(root):
    os.symlink(root / ".." / "secret.png", root / "out.png")
    os.symlink("sub/a.png", root / "in.png")
    os.symlink(root.parent, root / "up")
    os.symlink("loop.png", root / "loop.png")
    barred("path", "out.png", root)
    barred("path", "up/secret.png", root)
    barred("path", "loop.png", root)
    assert file_inside("in.png", root) == root / "sub" / "a.png"


def test_no_such_file(root):
    assert barred("missing", "sub/b.png", root).startswith("sub/b.png: ")
    barred("missing", "sub", root)
    os.mkfifo(root / "pipe.png")  # would wait for ever
    barred("missing", "pipe.png", root)


# ---- digest ----------------------------------------------------------------------------------


def test_digest_sees_pixels_size_and_mode():
    image = noise(size=(30, 150))
    assert image_digest(image) == image_digest(noise(size=(30, 150)))
    turned = Image.frombytes("RGB", (150, 30), image.tobytes())
    grey = Image.frombytes("L", (90, 150), image.tobytes())
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert len({image_digest(i) for i in (image, turned, grey, other)}) == 4


def test_digest_is_of_the_picture_not_of_the_file():
    a, b = as_bytes(noise()), as_bytes(noise(), compress_level=0)
    assert a != b and image_digest(load_image(a)) == image_digest(load_image(b))


def test_a_thumbnail_is_small_and_blurred_unless_asked_for():
    image = noise(size=(640, 320))
    blurred, clear = thumbnail(image, side=64), thumbnail(image, side=64, blur=False)
    assert blurred.size == clear.size == (64, 32) and image.size == (640, 320)
    assert np.std(np.asarray(blurred)) < np.std(np.asarray(clear)) / 4
