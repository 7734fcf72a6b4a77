from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mg_core.data.images import read_class_ids, read_image
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
    found, width, height = read_image(tmp_path / name, 8)
    assert (width, height) == (16, 12)
    assert found.shape == (3, 8, 8)
    assert found.flags.c_contiguous
    assert np.array_equal(found, wanted)


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) << 8).save(tmp_path / "deep.png")
    found, _, _ = read_image(tmp_path / "deep.png", 8)
    assert np.array_equal(found, resized(Image.fromarray(GREY)))


def test_exif_rotation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    found, width, height = read_image(tmp_path / "turned.png", 8)
    assert (width, height) == (16, 12)
    assert np.array_equal(found, resized(Image.fromarray(COLOUR)))


def test_class_ids_need_ids(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png is a RGB image; class ids need a palette"):
        read_class_ids(tmp_path / "mask.png", 8)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_hollow_files_are_named(tmp_path, content):
    (tmp_path / "hollow.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"hollow\.jpg cannot be read as an image"):
        read_image(tmp_path / "hollow.jpg", 8)
