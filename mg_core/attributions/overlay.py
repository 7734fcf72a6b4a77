"""Heat maps drawn over pictures; all figures use this function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mg_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILE = 99.5
"""Percentile of a map's positive values that is drawn at full strength, so that single peaks do not
make the rest invisible."""
FULL, HALF = np.array([0.86, 0.10, 0.12]), np.array([1.0, 0.72, 0.20])
"""Colours of full and half strength; the latter is lighter, so that they differ in grey print."""
BLEACH = 0.55
"""How much the picture under a map is lightened; 1 makes it white."""
BOX = (0, 183, 216)
"""Colour of the outline of a box."""


def overlay(
    image: NDArray[Any] | Tensor,
    attribution: NDArray[Any] | Tensor,
    boxes: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Draw positive attributions over an image, which becomes grey and lighter.

    Strength is relative to the map's own `PERCENTILE`: the drawing shows where evidence lies, but
    not how much there is.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor of uint8, or of floats in [0, 1].
        attribution: (h, w) signed map; it is upsampled bilinearly to the size of the image.
        boxes: (n, 4) xmin, ymin, xmax, ymax of boxes to outline, in pixels of the image.

    Returns:
        (H, W, 3) uint8 picture.

    Raises:
        InputError: the image or the attribution has another shape.

    Example:
        >>> import numpy, mg_core
        >>> image = numpy.full((4, 4, 3), 128, numpy.uint8)
        >>> drawn = mg_core.overlay(image, numpy.array([[1.0, -1.0], [0.0, 0.0]]), [(2, 2, 4, 4)])
        >>> drawn.shape, drawn[0, 0].tolist(), drawn[3, 3].tolist()
        ((4, 4, 3), [219, 25, 31], [0, 183, 216])
    """
    picture, values = _array(image), _array(attribution)
    if not isinstance(image, np.ndarray) and picture.ndim == 3:
        picture = np.moveaxis(picture, 0, 2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        shape = tuple(image.shape)
        raise InputError(f"an image is an array (H, W, 3) or a tensor (3, H, W), not {shape}")
    if values.ndim != 2:
        raise InputError(f"an attribution map has the shape (H, W), not {tuple(values.shape)}")
    grey = picture.astype(np.float64).mean(axis=2, keepdims=True)
    if picture.dtype == np.uint8:
        grey /= 255
    base = BLEACH + (1 - BLEACH) * grey
    strength = _strength(_resized(values, *picture.shape[:2]))[..., None]
    colour = np.where(strength < 0.5, HALF, HALF + (FULL - HALF) * (2 * strength - 1))
    drawn = base + np.minimum(1.0, 1.7 * strength) * (colour - base)
    found: NDArray[np.uint8] = np.rint(255 * np.clip(drawn, 0, 1)).astype(np.uint8)
    return found if boxes is None else outlined(found, boxes)


def outlined(image: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.uint8]:
    """Return a copy of an image in which the outermost pixels of boxes have the colour `BOX`.

    Args:
        image: (H, W, 3) uint8.
        boxes: (n, 4) xmin, ymin, xmax, ymax in pixels, the maxima exclusive. Fractions are cut,
            and so is what lies outside the image.
    """
    found: NDArray[np.uint8] = image.copy()
    height, width = image.shape[:2]
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    for left, top, right, bottom in corners.clip(0, [width, height] * 2):
        x0, y0 = int(left), int(top)
        x1, y1 = int(max(left, right - 1)), int(max(top, bottom - 1))
        frame = np.zeros((height, width), dtype=bool)
        frame[y0 : y1 + 1, x0 : x1 + 1] = True
        frame[y0 + 1 : y1, x0 + 1 : x1] = False
        found[frame] = BOX
    return found


def _array(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    tensor = values.detach().cpu()
    # NumPy has no bfloat16.
    return np.asarray(tensor.double() if tensor.is_floating_point() else tensor)


def _strength(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return positive attributions divided by their `PERCENTILE`, at most 1."""
    positive = np.maximum(values.astype(np.float64), 0)
    seen = positive[positive > 0]
    full = np.percentile(seen, PERCENTILE) if len(seen) else 1.0
    strength: NDArray[np.float64] = np.clip(positive / full, 0, 1)
    return strength


def _resized(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Interpolate a map bilinearly, as `mg_core.attributions.upsample` does."""
    if values.shape == (height, width):
        return values
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    resized: NDArray[np.float64] = rows @ values @ columns.T
    return resized


def _weights(old: int, new: int) -> NDArray[np.float64]:
    """Return the (new, old) share of each old position in the new ones along one axis."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    shares: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(centres[:, None] - np.arange(old)))
    return shares
