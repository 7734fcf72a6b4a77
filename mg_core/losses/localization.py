"""Localization losses (Sec. 3.4): what guidance minimises beside the classification loss.

A loss takes raw maps at input resolution. For finite maps, its value and gradient are finite: a map
without positive energy has a constant loss and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from mg_core.errors import InputError, check_shapes
from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOG_FLOOR = -100.0
"""Lower bound of the logarithm in PPCE, as in PyTorch's binary cross-entropy."""

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(attributions (B, H, W), at least float32; masks (B, H, W) bool) -> (B,)."""

LOSSES: Registry[Loss] = Registry("loss")


def localization_loss(name: str, attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of each map.

    Args:
        name: registered loss.
        attributions: (B, H, W) raw maps at input resolution; lower precision becomes float32.
        masks: (B, H, W) union of the boxes of the explained class, bool or 0/1.

    Returns:
        (B,) at least float32, differentiable with respect to the attributions.

    Raises:
        InputError: unknown loss, maps and masks of different shapes, or a loss that does not give
            one value a map.
    """
    loss = LOSSES[name]
    check_shapes("(B, H, W)", attributions=attributions, masks=masks)
    if attributions.dtype.itemsize < 8:
        attributions = attributions.float()
    found = loss(attributions, masks.bool())
    if found.shape != attributions.shape[:1]:
        raise InputError(f"loss {name!r} gives {tuple(found.shape)}, not one value a map")
    return found


@LOSSES.register("energy")
def energy(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise positive attribution outside the mask: 1 − EPG (Eq. 6 and 2)."""
    positive, empty = _scale(attributions, attributions.detach())
    positive = positive.relu()
    # Division by the maximum keeps sums of H·W entries from overflowing or vanishing. EPG does not
    # depend on the scale, so the maximum needs no gradient.
    total = positive.sum((1, 2)).masked_fill(empty, 1.0)
    return 1 - (positive * masks).sum((1, 2)) / total


@LOSSES.register("l1")
def l1(attributions: Tensor, masks: Tensor) -> Tensor:
    """Pull normalised positive attributions towards the mask (Eq. 3)."""
    positive, _ = _scale(attributions, attributions)
    return (masks.to(positive.dtype) - positive.relu()).abs().mean((1, 2))


@LOSSES.register("ppce")
def ppce(attributions: Tensor, masks: Tensor) -> Tensor:
    """Maximise normalised positive attributions inside the mask (Eq. 4); 0 for an empty mask."""
    positive, _ = _scale(attributions, attributions)
    # Below the smallest normal number the gradient 1 / Â would overflow, so it is cut there.
    visible = masks & (positive >= _tiny(positive))
    log = positive.masked_fill(~visible, 1.0).log()
    hidden = positive.detach().relu().log().clamp_min(LOG_FLOOR)
    log = log.clamp_min(LOG_FLOOR).where(visible, hidden)
    inside = masks.sum((1, 2))
    return -log.masked_fill(~masks, 0.0).sum((1, 2)) / inside.clamp_min(1)


@LOSSES.register("rrr")
def rrr(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise normalised attributions outside the mask, RRR* (Eq. 5)."""
    scaled, _ = _scale(attributions, attributions.abs())
    return scaled.square().masked_fill(masks, 0.0).sum((1, 2))


def _scale(attributions: Tensor, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each map by the maximum of its magnitudes.

    Returns:
        (B, H, W) scaled maps, and (B,) bool, which maps have no positive energy: their maximum is
        not above the smallest normal number. These are zero and have no gradient. A NaN stays NaN,
        and the training loop stops at it.
    """
    peak = magnitudes.amax((1, 2))
    empty = attributions.detach().amax((1, 2)) <= _tiny(attributions)
    peak = peak.masked_fill(empty, 1.0)
    return attributions.masked_fill(empty[:, None, None], 0.0) / peak[:, None, None], empty


def _tiny(values: Tensor) -> float:
    """Return the smallest normal number of a floating-point type."""
    import torch  # Imported here: a plan needs the names of the losses, but no PyTorch.

    return torch.finfo(values.dtype).tiny
