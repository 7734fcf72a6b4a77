"""Image files as arrays, read as in the study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_image(path: Path, size: int) -> tuple[NDArray[np.uint8], int, int]:
    """Decode, convert to RGB and resize bilinearly, without keeping the aspect ratio.

    EXIF orientation is ignored, as published: boxes refer to stored pixels.

    Returns:
        (3, size, size) pixels, and the width and height of the stored image.
    """
    with opened(path) as image:
        image.load()
        width, height = image.size
        if image.mode in DEEP_MODES:
            # Pillow would clip values above 255 to white; the upper 8 of 16 bits are the picture.
            deep = np.asarray(image).astype(np.int64)
            image = Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8))
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1)), width, height


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

    pixels, _, _ = read_image(Path(path).expanduser(), size)
    return torch.from_numpy(pixels)[None]


def read_class_ids(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a palette image of class ids, resized by nearest neighbour to (size, size)."""
    with opened(path) as image:
        image.load()
        if image.mode not in ("P", "L"):
            raise InputError(
                f"{path} is a {image.mode} image; class ids need a palette or grey one"
            )
        return np.asarray(image.resize((size, size), Image.Resampling.NEAREST))


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
        raise InputError(f"{path} cannot be read as an image ({reason})") from None
