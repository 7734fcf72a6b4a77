"""Localization losses (Sec. 3.4): what guidance minimises beside the classification loss.

A loss takes raw maps at input resolution. For finite maps, its value and gradient are finite: a map
without positive energy has a constant loss and no gradient. One that needs more than maps and masks
is declared by `informed`.

Here are the losses of the study; others are in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from mg_core.errors import InputError, check_shapes
from mg_core.losses.evidence import Evidence, Informed
from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOG_FLOOR = -100.0
"""Lower bound of the logarithm in PPCE, as in PyTorch's binary cross-entropy."""

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor] | Informed"
"""(attributions (B, H, W), at least float32; masks (B, H, W) bool) -> (B,), or what takes all of
the `Evidence`."""

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
        InputError: unknown loss, maps and masks of different shapes, a loss that does not give
            one value a map, or one that needs more than maps and masks.
    """
    loss = LOSSES[name]
    if isinstance(loss, Informed):
        raise InputError(
            f"loss {name!r} needs more than maps and masks; use mg_core.guided_loss, which has the "
            "network"
        )
    check_shapes("(B, H, W)", attributions=attributions, masks=masks)
    if attributions.dtype.itemsize < 8:
        attributions = attributions.float()
    return _one_a_map(name, loss(attributions, masks.bool()), len(masks))


def loss_of(name: str, evidence: Evidence) -> Tensor:
    """Return the loss of each explained image, whichever form the loss has.

    Args:
        name: registered loss.
        evidence: of R images.

    Returns:
        (R,) at least float32, with their graph.

    Raises:
        InputError: as `localization_loss`.
    """
    loss = LOSSES[name]
    if isinstance(loss, Informed):
        return _one_a_map(name, loss(evidence), len(evidence.masks))
    return localization_loss(name, evidence.attributions, evidence.masks)


def _one_a_map(name: str, found: Tensor, n_maps: int) -> Tensor:
    if found.shape != (n_maps,):
        raise InputError(f"loss {name!r} gives {tuple(found.shape)}, not one value a map")
    return found


@LOSSES.register("energy")
def energy(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise positive attribution outside the mask: 1 − EPG (Eq. 6 and 2)."""
    positive, empty = scaled(attributions, attributions.detach())
    positive = positive.relu()
    # Division by the maximum keeps sums of H·W entries from overflowing or vanishing. EPG does not
    # depend on the scale, so the maximum needs no gradient.
    total = positive.sum((1, 2)).masked_fill(empty, 1.0)
    return 1 - (positive * masks).sum((1, 2)) / total


@LOSSES.register("l1")
def l1(attributions: Tensor, masks: Tensor) -> Tensor:
    """Pull normalised positive attributions towards the mask (Eq. 3)."""
    positive, _ = scaled(attributions, attributions)
    return (masks.to(positive.dtype) - positive.relu()).abs().mean((1, 2))


@LOSSES.register("ppce")
def ppce(attributions: Tensor, masks: Tensor) -> Tensor:
    """Maximise normalised positive attributions inside the mask (Eq. 4); 0 for an empty mask."""
    positive, _ = scaled(attributions, attributions)
    return cost_of_logarithm(positive, masks)


@LOSSES.register("rrr")
def rrr(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise normalised attributions outside the mask, RRR* (Eq. 5)."""
    signed, _ = scaled(attributions, attributions.abs())
    return signed.square().masked_fill(masks, 0.0).sum((1, 2))


def cost_of_logarithm(values: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of −log over the places of a mask, (B,); 0 for an empty mask.

    The logarithm is at least `LOG_FLOOR`, and has no gradient where a value is 0 or tiny.
    """
    # Below the smallest normal number the gradient 1 / value would overflow, so it is cut there.
    visible = masks & (values >= _tiny(values))
    log = values.masked_fill(~visible, 1.0).log()
    hidden = values.detach().relu().log().clamp_min(LOG_FLOOR)
    log = log.clamp_min(LOG_FLOOR).where(visible, hidden)
    inside = masks.sum((1, 2))
    return -log.masked_fill(~masks, 0.0).sum((1, 2)) / inside.clamp_min(1)


def scaled(attributions: Tensor, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
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
