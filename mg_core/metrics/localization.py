"""Agreement of maps with boxes (Sec. 3.3), one number for each map.

A metric takes raw maps at input resolution; it takes their positive part and normalises it itself.
A map has positive energy if its maximum is above the smallest normal number of its type.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mg_core.errors import check_shapes

IOU_THRESHOLDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9),
)
"""Thresholds at which IoU is computed; maps at the input are sparse and need the small ones."""


TIE = 1e-6
"""Share of a map's maximum by which a pixel may be lower and still be the highest, too.

Upsampling gives equal neighbours values that differ by rounding.
"""


def has_energy(attributions: Tensor) -> Tensor:
    """Return (B,) bool, which of the maps (B, H, W) have positive energy; others score 0."""
    # A NaN counts as energy, so that a diverged model scores NaN and never enters a front.
    tiny = torch.finfo(_at_least_float32(attributions)).tiny
    return ~(attributions.detach().amax((1, 2)) <= tiny)


def is_anywhere(attributions: Tensor) -> Tensor:
    """Return (B,) bool, which of the maps (B, H, W) are other than zero at one place at least."""
    return (attributions.detach() != 0).flatten(1).any(1)


@torch.no_grad()
def epg(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the energy-based pointing game (Eq. 2): the share of positive attribution in the mask.

    Args:
        attributions: (B, H, W) raw maps at input resolution.
        masks: (B, H, W) union of the boxes, bool or 0/1.

    Returns:
        (B,) in [0, 1]; 0 without positive energy and for an empty mask.

    Raises:
        InputError: maps and masks of different shapes.

    Example:
        >>> import torch, mg_core
        >>> maps = torch.tensor([[[3.0, 1.0], [-2.0, 0.0]]])
        >>> masks = torch.tensor([[[True, False], [True, False]]])
        >>> mg_core.epg(maps, masks)
        tensor([0.7500])
    """
    positive, masks = _normalised(attributions, masks)
    inside, total = (positive * masks).sum((1, 2)), positive.sum((1, 2))
    return (inside / total.masked_fill(total == 0, 1.0)).to(_at_least_float32(attributions))


@torch.no_grad()
def iou(attributions: Tensor, masks: Tensor, thresholds: Sequence[float] | Tensor) -> Tensor:
    """Return the intersection over union of mask and Â⁺ > t at every threshold t.

    Args:
        attributions: (B, H, W) raw maps at input resolution.
        masks: (B, H, W) union of the boxes, bool or 0/1.
        thresholds: T numbers of at least 0, in any order.

    Returns:
        (B, T) in [0, 1]; 0 without positive energy and for an empty mask.

    Raises:
        InputError: maps and masks of different shapes.

    Example:
        >>> import torch, mg_core
        >>> maps = torch.tensor([[[4.0, 1.0], [-2.0, 0.0]]])
        >>> masks = torch.tensor([[[True, False], [False, False]]])
        >>> mg_core.iou(maps, masks, thresholds=[0.1, 0.5])
        tensor([[0.5000, 1.0000]])
    """
    positive, masks = _normalised(attributions, masks)
    levels = torch.as_tensor(thresholds, dtype=torch.float64, device=positive.device)
    levels, order = levels.sort()
    # For each pixel, the number of thresholds below it is found once, without T comparisons.
    images, bins = len(positive), len(levels) + 1
    level = torch.bucketize(positive.flatten(1), levels)
    offset = torch.arange(0, 2 * images * bins, 2 * bins, device=level.device)[:, None]
    cell = level + offset + bins * masks.flatten(1)
    counts = torch.bincount(cell.flatten(), minlength=2 * images * bins).view(images, 2, bins)
    above = counts.flip(2).cumsum(2).flip(2)[:, :, 1:]
    outside, inside = above.unbind(1)
    union = outside + masks.sum((1, 2))[:, None]
    result = torch.zeros_like(inside, dtype=_at_least_float32(attributions))
    result[:, order] = (inside / union.clamp_min(1)).to(result.dtype)
    return result.masked_fill_(positive.flatten(1)[:, :1].isnan(), float("nan"))


@torch.no_grad()
def pointing_game(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the pointing game (Zhang et al., 2016): whether the map is highest in the mask.

    Where several pixels share the maximum, up to rounding (`TIE`), this is the share of them that
    lie in the mask: the chance of a hit if one of them is drawn. There is no tolerance around the
    mask: the original one of 15 pixels belongs to images of one size.

    Args:
        attributions: (B, H, W) raw maps at input resolution.
        masks: (B, H, W) union of the boxes, bool or 0/1.

    Returns:
        (B,) in [0, 1]; 0 without positive energy and for an empty mask.

    Raises:
        InputError: maps and masks of different shapes.

    Example:
        >>> import torch, mg_core
        >>> maps = torch.tensor([[[3.0, 1.0], [3.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]]])
        >>> masks = torch.tensor([[[True, False], [False, False]]]).expand(2, 2, 2)
        >>> mg_core.pointing_game(maps, masks)
        tensor([0.5000, 0.0000])
    """
    positive, masks = _normalised(attributions, masks)
    # The maximum of a map with energy is 1.
    highest = positive >= 1 - TIE
    hits, chosen = (highest & masks).sum((1, 2)), highest.sum((1, 2))
    share = (hits / chosen.clamp_min(1)).to(_at_least_float32(attributions))
    return share.masked_fill(positive.flatten(1)[:, 0].isnan(), float("nan"))


@torch.no_grad()
def on_object(attributions: Tensor, masks: Tensor, segmentation: Tensor) -> Tensor:
    """Return the share of in-box positive attribution that lies on the object itself (R3).

    Args:
        attributions: (B, H, W) raw maps at input resolution.
        masks: (B, H, W) union of the boxes, bool or 0/1.
        segmentation: (B, H, W) pixels of the class, bool or 0/1.

    Returns:
        (B,) in [0, 1]; NaN where the boxes hold no positive attribution.

    Raises:
        InputError: maps, masks and segmentation of different shapes.
    """
    positive, masks = _normalised(attributions, masks)
    check_shapes("(B, H, W)", attributions=attributions, segmentation=segmentation)
    in_box = positive * masks
    share = (in_box * segmentation.bool()).sum((1, 2)) / in_box.sum((1, 2))
    return share.to(_at_least_float32(attributions))


def _normalised(attributions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return Â⁺ in float64, all zero for a map without positive energy, and masks as bool."""
    check_shapes("(B, H, W)", attributions=attributions, masks=masks)
    # In float64, Â⁺ > t is not affected by rounding.
    energy = has_energy(attributions)[:, None, None]
    positive = attributions.double().relu().masked_fill(~energy, 0.0)
    peak = positive.amax((1, 2), keepdim=True).masked_fill(~energy, 1.0)
    return positive.div_(peak), masks.bool()


def _at_least_float32(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
