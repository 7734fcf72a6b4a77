from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mg_core.data.images import (
    ANIMATED,
    TRANSPARENT,
    file_print,
    read_class_ids,
    read_image,
)
from mg_core.errors import InputError

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (12, 16), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)


def resized(image):
    small = image.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
    return np.array(small).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("rgb.png", Image.fromarray(COLOUR)),
        ("rgb.jpg", Image.fromarray(COLOUR)),
        ("grey.jpg", Image.fromarray(GREY)),
        ("cmyk.jpg", Image.fromarray(COLOUR).convert("CMYK")),
        ("palette.png", Image.fromarray(COLOUR).quantize(16)),
        ("alpha.png", Image.fromarray(COLOUR).convert("RGBA")),
        ("bits.png", Image.fromarray(GREY).convert("1")),
    ],
)
def test_every_mode_becomes_rgb_as_in_pillow(tmp_path, name, image):
    image.save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        wanted = resized(stored)
    found, width, height, orientation, oddities = read_image(tmp_path / name, 8)
    assert (width, height, orientation, oddities) == (16, 12, 1, ())
    assert found.shape == (3, 8, 8)
    assert found.flags.c_contiguous
    assert np.array_equal(found, wanted)


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) << 8).save(tmp_path / "deep.png")
    found = read_image(tmp_path / "deep.png", 8).pixels
    assert np.array_equal(found, resized(Image.fromarray(GREY)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_sixteen_are_refused(tmp_path, bits):
    values = GREY.astype(np.uint16) << 8 >> (16 - bits)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with pytest.raises(
        InputError, match=rf"deep\.png holds values from .* to {values.max()}, which"
    ):
        read_image(tmp_path / "deep.png", 8)
    Image.fromarray(0 * values).save(tmp_path / "black.png")
    assert not read_image(tmp_path / "black.png", 8).pixels.any()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_that_are_no_picture_are_refused(tmp_path, kind):
    Image.fromarray(GREY.astype(kind) * 1000).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=r"deep\.tif holds .*; convert it to 8 bits"):
        read_image(tmp_path / "deep.tif", 8)


def test_dropped_transparency_and_frames_are_told(tmp_path):
    clear = Image.fromarray(np.dstack([COLOUR, GREY]))
    clear.save(tmp_path / "rgba.png")
    clear.convert("LA").save(tmp_path / "la.png")
    palette = Image.fromarray(COLOUR).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    for name in ("rgba.png", "la.png", "palette.png"):
        found = read_image(tmp_path / name, 8)
        assert found.oddities == (TRANSPARENT,)
        with Image.open(tmp_path / name) as stored:
            assert np.array_equal(found.pixels, resized(stored))
    first, second = (Image.fromarray(part) for part in (COLOUR, COLOUR[::-1]))
    for name in ("frames.gif", "frames.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
        found = read_image(tmp_path / name, 8)
        assert found.oddities == (ANIMATED,)
        with Image.open(tmp_path / name) as stored:
            assert np.array_equal(found.pixels, resized(stored))


def test_enormous_pictures_are_refused(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size // 2 - 1)
    with pytest.raises(InputError, match=r"huge\.png cannot be read as an image \(Decompression"):
        read_image(tmp_path / "huge.png", 8)


def test_a_print_follows_size_and_content(tmp_path):
    content = bytearray(range(256)) * 200
    path = tmp_path / "file"
    path.write_bytes(content)
    before = file_print(path)
    (tmp_path / "copy").write_bytes(content)
    assert file_print(tmp_path / "copy") == before
    for where in (0, len(content) // 2, -1):
        changed = bytearray(content)
        changed[where] ^= 1
        path.write_bytes(changed)
        assert file_print(path) != before
    path.write_bytes(content + b"x")
    assert file_print(path) != before
    with pytest.raises(InputError, match=r"cannot read .*gone"):
        file_print(tmp_path / "gone")


def test_exif_rotation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png", 8)
    assert found[1:] == (16, 12, 6, ())
    assert np.array_equal(found.pixels, resized(Image.fromarray(COLOUR)))


def test_class_ids_need_ids(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png is a RGB image; class ids need a palette"):
        read_class_ids(tmp_path / "mask.png", 8)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_hollow_files_are_named(tmp_path, content):
    (tmp_path / "hollow.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"hollow\.jpg cannot be read as an image"):
        read_image(tmp_path / "hollow.jpg", 8)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".ppm", ".png", ".jpg"])
def test_any_other_pixel_changes_the_print_of_a_file(tmp_path, suffix):
    pixels = RNG.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    file = tmp_path / f"a{suffix}"
    found = []
    for row in range(0, 160, 16):
        other = pixels.copy()
        other[row, :4] ^= 255
        Image.fromarray(other).save(file)
        found.append(file_print(file))
    assert len(set(found)) == len(found)
