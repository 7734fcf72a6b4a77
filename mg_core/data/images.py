"""Image files as arrays, read the way the study reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mg_core.errors import InputError

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_image(path: Path, size: int) -> tuple[NDArray[np.uint8], int, int]:
    """Decode, convert to RGB and resize bilinearly, without keeping the aspect ratio.

    EXIF orientation is ignored, as published: boxes refer to stored pixels.

    Returns:
        (3, size, size) pixels, and the width and height of the stored image.

    Raises:
        InputError: the file is missing, truncated or no image.
    """
    with _opened(path) as image:
        image.load()
        width, height = image.size
        small = _rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1)), width, height


def read_class_ids(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a palette image of class ids, resized to the nearest pixel.

    Returns:
        (size, size) ids; 255 is void.

    Raises:
        InputError: the file is missing, broken, or holds colours instead of ids.
    """
    with _opened(path) as image:
        image.load()
        if image.mode not in ("P", "L"):
            raise InputError(
                f"{path} is a {image.mode} image; class ids need a palette or grey one"
            )
        ids = np.asarray(image.resize((size, size), Image.Resampling.NEAREST))
    return ids


def read_size(path: Path) -> tuple[int, int]:
    """Read width and height from an image's header.

    Raises:
        InputError: the file is missing or no image.
    """
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    # Pillow's decoders raise almost anything over broken bytes.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as an image ({reason})") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        # Pillow would clip 16 bits to white; their upper half is the picture.
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
