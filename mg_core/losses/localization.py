"""Localization losses (Sec. 3.4): what guidance minimises beside the classification loss.

A loss sees raw maps at input resolution. None of them is ever NaN, in value or gradient, for
finite maps: one without positive energy has a constant cost and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from mg_core.errors import InputError
from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOG_FLOOR = -100.0
"""Where PPCE clamps the logarithm, as torch's binary cross-entropy does."""

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(attributions (B, H, W), at least float32; masks (B, H, W) bool) -> (B,)."""

LOSSES: Registry[Loss] = Registry("loss")


def localization_loss(name: str, attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of each map.

    Args:
        name: registered loss.
        attributions: (B, H, W) raw maps at input resolution, computed in at least float32.
        masks: (B, H, W) union of the boxes of the explained class, bool or 0/1.

    Returns:
        (B,), differentiable with respect to the attributions.

    Raises:
        InputError: unknown loss, or maps and masks of different shapes.
    """
    loss = LOSSES[name]
    if attributions.ndim != 3 or attributions.shape != masks.shape:
        raise InputError(
            "attributions and masks must both have shape (B, H, W), not "
            f"{tuple(attributions.shape)} and {tuple(masks.shape)}"
        )
    if attributions.dtype.itemsize < 8:
        attributions = attributions.float()
    return loss(attributions, masks.bool())


@LOSSES.register("energy")
def energy(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise positive attribution outside the mask: 1 − EPG (Eq. 6 and 2)."""
    positive, empty = _scale(attributions, attributions.detach())
    positive = positive.relu()
    # Scaled by the maximum, sums of H·W entries neither overflow nor vanish; EPG does not change,
    # so the maximum may count as a constant here.
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
    # Below the smallest normal number, 1 / Â would overflow: there the value has no gradient.
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
        The scaled maps, zero and without gradient for a map without positive energy, and (B,)
        which maps those are: their maximum is not above the smallest normal number. A NaN is
        passed on, for the training loop to stop at.
    """
    peak = magnitudes.amax((1, 2))
    empty = attributions.detach().amax((1, 2)) <= _tiny(attributions)
    peak = peak.masked_fill(empty, 1.0)
    return attributions.masked_fill(empty[:, None, None], 0.0) / peak[:, None, None], empty


def _tiny(values: Tensor) -> float:
    """Return the smallest normal number of a floating-point type."""
    import torch  # Here, so that a plan knows the losses by name without it.

    return torch.finfo(values.dtype).tiny
