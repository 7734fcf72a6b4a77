"""Losses that ask how well a map and a mask overlap, and how far they are from each other.

Maps are divided by their maximum, as in Eq. 3: Â⁺ = A⁺ / max A⁺. So no loss here depends on the
scale of a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.losses.localization import LOSSES, cost_of_logarithm, scaled

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("energy_density")
def energy_density(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise positive attribution outside the mask, whatever the size of the mask.

    EPG rises with the size of the boxes: a uniform map has the EPG |M| / HW. Here the energies
    inside and outside are divided by their areas (a power of 1), 1 − e / (e + o) with
    e = Σ A⁺M / |M| and o = Σ A⁺(1 − M) / (HW − |M|). It lies in [0, 1], and a uniform map costs ½
    for every mask that is neither empty nor full. A map without positive energy and an empty mask
    cost 1, a full mask 0.
    """
    positive, empty = scaled(attributions, attributions.detach())
    positive = positive.relu()
    inside = (positive * masks).sum((1, 2)) / masks.sum((1, 2)).clamp_min(1)
    outside = (positive * ~masks).sum((1, 2)) / (~masks).sum((1, 2)).clamp_min(1)
    return 1 - inside / (inside + outside).masked_fill(empty, 1.0)


@LOSSES.register("soft_dice")
def soft_dice(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return 1 − 2 Σ Â⁺M / (Σ Â⁺² + Σ M²), the Dice loss of V-Net (Milletari et al., 2016).

    It is 1 without any overlap, for empty masks and maps without positive energy too.
    """
    positive, _ = scaled(attributions, attributions)
    positive = positive.relu()
    both = (positive * masks).sum((1, 2))
    # The sum is at least 1 unless map and mask are both empty.
    return 1 - 2 * both / (positive.square() + masks).sum((1, 2)).clamp_min(1)


@LOSSES.register("soft_iou")
def soft_iou(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return 1 − Σ Â⁺M / Σ (Â⁺ + M − Â⁺M) (Rahman & Wang, 2016).

    It is 1 without any overlap, for empty masks and maps without positive energy too.
    """
    positive, _ = scaled(attributions, attributions)
    positive = positive.relu()
    both = positive * masks
    return 1 - both.sum((1, 2)) / (positive + masks - both).sum((1, 2)).clamp_min(1)


@LOSSES.register("gain")
def gain(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of (Â⁺ − M)², the external supervision of GAIN_ext (Li et al., 2018).

    A map without positive energy costs the share of the image that the mask covers.
    """
    positive, _ = scaled(attributions, attributions)
    return (positive.relu() - masks.to(positive.dtype)).square().mean((1, 2))


@LOSSES.register("kl")
def kl(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return KL(q ‖ p) from the map p = A⁺ / Σ A⁺ to a mask that is uniform, q = M / |M|.

    Up to log |M|, which no map changes, this is the cross-entropy by which attention is supervised
    (Liu et al., 2017): −mean of log p inside the mask − log |M|, with log p at least −100. It is 0
    for an empty mask, and 100 − log |M| for a map without positive energy.
    """
    positive, empty = scaled(attributions, attributions.detach())
    positive = positive.relu()
    total = positive.sum((1, 2)).masked_fill(empty, 1.0)
    area = masks.sum((1, 2)).clamp_min(1).to(positive.dtype)
    return cost_of_logarithm(positive / total[:, None, None], masks) - area.log()
