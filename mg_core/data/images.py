"""Image files as arrays, read as in the study."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mg_core.errors import InputError
from mg_core.paths import with_home

if TYPE_CHECKING:
    from torch import Tensor

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
DEEP_RANGE = range(2**14, 2**16)
"""The highest value of a picture of 16 bits. A lower one speaks of fewer bits in use, such as 12,
and the picture would turn nearly black."""
ORIENTATION = 0x0112
"""EXIF tag: 1 for a picture that is stored upright, from 5 on it is turned by a quarter."""
BLOCK = 4096
"""Bytes at the start, in the middle and at the end of a compressed file that stand for it."""
COMPRESSED = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"}
"""Formats in which any other pixel moves what comes after it, or changes a checksum at the end."""

TRANSPARENT = "with transparent pixels, whose hidden colours are trained on"
ANIMATED = "with several frames, of which the first is used"


class Picture(NamedTuple):
    """A decoded image file."""

    pixels: NDArray[np.uint8]  # (3, S, S) RGB at the trained size
    width: int  # of the stored image
    height: int
    orientation: int  # EXIF orientation, which is not applied; 1 if there is none
    oddities: tuple[str, ...]  # of `TRANSPARENT` and `ANIMATED`


def read_image(path: Path, size: int) -> Picture:
    """Decode, convert to RGB and resize bilinearly, without keeping the aspect ratio.

    EXIF orientation is ignored, as published: boxes refer to stored pixels. Transparency is
    dropped. Of 16 bits, the upper 8 are kept.

    Raises:
        InputError: the file is no image, or its values do not fill the range of its type.
    """
    with opened(path) as image:
        oddities = []
        if getattr(image, "is_animated", False) and image.format != "MPO":
            oddities.append(ANIMATED)
        image.load()
        width, height = image.size
        if image.has_transparency_data and _is_transparent(image):
            oddities.append(TRANSPARENT)
        # Read after the pixels: in a PNG file the tags may come last.
        orientation = image.getexif().get(ORIENTATION, 1)
        if image.mode == "F":
            raise InputError(f"{path} holds floating-point values; convert it to 8 bits")
        if image.mode in DEEP_MODES:
            # Pillow would clip values above 255 to white.
            image = Image.fromarray(_upper_bits(np.asarray(image).astype(np.int64), path))
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
    turn = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return Picture(pixels, width, height, turn, tuple(oddities))


def _is_transparent(image: Image.Image) -> bool:
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return isinstance(lowest, int) and lowest < 255


def _upper_bits(values: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or (highest and highest not in DEEP_RANGE):
        raise InputError(
            f"{path} holds values from {lowest} to {highest}, which do not fill 16 bits; convert "
            f"it to 8 bits"
        )
    return (values >> 8).astype(np.uint8)


def load_image(path: str | Path, size: int) -> Tensor:
    """Read an image file as training does: RGB, resized bilinearly to a square.

    Args:
        path: image in any format of Pillow.
        size: side of the returned image in pixels.

    Returns:
        (1, 3, size, size) uint8.

    Raises:
        InputError: the file is missing, truncated or not an image.

    Example:
        >>> import mg_core
        >>> from PIL import Image
        >>> Image.new("RGB", (50, 30), "red").save("photo.png")
        >>> mg_core.load_image("photo.png", size=32).shape
        torch.Size([1, 3, 32, 32])
    """
    import torch  # Here, so that decoding needs none.

    return torch.from_numpy(read_image(with_home(path), size).pixels)[None]


def read_class_ids(path: Path, size: int) -> tuple[NDArray[np.uint8], int, int]:
    """Read a palette image of class ids, resized by nearest neighbour to (size, size).

    Returns:
        (size, size) ids, and the width and height of the stored image.
    """
    with opened(path) as image:
        image.load()
        if image.mode not in ("P", "L"):
            raise InputError(
                f"{path} is a {image.mode} image; class ids need a palette or grey one"
            )
        ids = np.asarray(image.resize((size, size), Image.Resampling.NEAREST))
        return ids, *image.size


def file_print(path: str | Path) -> int:
    """Return 64 bits of a hash of a file's size and content, of a compressed one three blocks.

    Two images with the same number are taken for copies. Reading all of a large data set would
    take minutes. Where each pixel has its own bytes, as in BMP and most TIFF, all are read.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size
            total = hashlib.sha256(b"%d" % length)
            starts = {0, max(0, (length - BLOCK) // 2), max(0, length - BLOCK)}
            if Path(path).suffix.lower() not in COMPRESSED:
                starts = set(range(0, length, BLOCK))
            for start in sorted(starts):
                file.seek(start)
                total.update(file.read(BLOCK))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return int.from_bytes(total.digest()[:8], "big")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file, and turn what Pillow raises in the block into an InputError."""
    try:
        with Image.open(path) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    # Pillow's decoders raise exceptions of many types for broken files.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as an image ({' '.join(reason.split())})"
        ) from None
