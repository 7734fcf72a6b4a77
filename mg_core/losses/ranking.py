"""Losses that compare places inside the mask with places outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.losses.localization import LOSSES, scaled

if TYPE_CHECKING:
    from torch import Tensor

SHARPNESS = 5.0
"""Slope of the tanh by which RES replaces the sign of a map."""
BLUR = 0.8 / 7
"""Deviation of the Gaussian of RES-G as a share of the image's side: OpenCV's for its kernel of
3 × 3, on the 7 × 7 places of the published maps."""


@LOSSES.register("hint")
def hint(attributions: Tensor, masks: Tensor) -> Tensor:
    """Penalise places outside the mask that matter more than places inside it.

    The ranking loss of HINT (Selvaraju et al., 2019) sums |a − a'| over all pairs of regions
    that the network ranks otherwise than people do. People rank here every pixel of the mask above
    every other one: the mean over all pairs (inside i, outside o) of max(Â_o − Â_i, 0), with
    Â = A / max|A|. It is 0 for empty and full masks, and for a map without positive energy.
    """
    values, _ = scaled(attributions, attributions.abs())
    # The sum over pairs is linear in each value: it counts with the number of pixels that it ought
    # to be below and is not, and against those that it ought to be above and is not.
    coefficients = _below(values, masks).where(~masks, -_below(-values, ~masks))
    n_pairs = masks.sum((1, 2)) * (~masks).sum((1, 2))
    weights = coefficients / n_pairs.clamp_min(1)[:, None, None].to(values.dtype)
    return (weights * values).sum((1, 2))


@LOSSES.register("res")
def res(attributions: Tensor, masks: Tensor) -> Tensor:
    """Return the robust explanation loss of RES-G (Gao et al., 2022), for masks that are rough.

    With F = 2M − 1 it is mean |tanh(5 (Â⁺ − a)) − F| + mean |Â⁺ − G(M)|. The threshold a is the
    value at which Â⁺ ≥ a agrees with the mask best, by the mean of the shares of both sides; the
    lowest of several, a value inside the mask, and the maximum for an empty mask. G is the fixed
    imputation: the mask under a Gaussian of 0.8/7 of the image's sides, divided by its maximum. The
    learned imputations of RES-L have weights of their own and are left out; the slack η is 0. The
    gradient passes through a. A map without positive energy is zero, and has no gradient.
    """
    positive, _ = scaled(attributions, attributions)
    positive = positive.relu()
    threshold = positive.flatten(1).gather(1, _best_threshold(positive.detach(), masks))
    signed = masks.to(positive.dtype) * 2 - 1
    surrogate = (SHARPNESS * (positive - threshold[:, :, None])).tanh()
    return ((surrogate - signed).abs() + (positive - _blurred(masks, positive)).abs()).mean((1, 2))


def _best_threshold(positive: Tensor, masks: Tensor) -> Tensor:
    """Return the index (B, 1) of the pixel whose value is the threshold of RES."""
    n_inside, n_outside = masks.sum((1, 2)), (~masks).sum((1, 2))
    kept = n_inside[:, None, None] - _below(positive, masks)
    rejected = _below(positive, ~masks)
    # Whole numbers: both sides are weighed without rounding. The best value is always one inside.
    agreement = kept * n_outside[:, None, None] + rejected * n_inside[:, None, None]
    agreement = agreement.masked_fill(~masks, -1).flatten(1)
    best = agreement == agreement.amax(1, keepdim=True)
    values = positive.flatten(1)
    lowest = values.masked_fill(~best, float("inf")).argmin(1, keepdim=True)
    is_empty = (n_inside == 0)[:, None]
    return values.argmax(1, keepdim=True).where(is_empty, lowest)


def _below(values: Tensor, among: Tensor) -> Tensor:
    """Return, for each pixel (B, H, W), how many pixels of a mask have a smaller value (int64)."""
    import torch

    flat = values.detach().flatten(1)
    line = flat.masked_fill(~among.flatten(1), float("inf")).sort(1).values
    return torch.searchsorted(line, flat.contiguous()).view_as(values)


def _blurred(masks: Tensor, like: Tensor) -> Tensor:
    """Return masks (B, H, W) under a Gaussian, divided by their maxima; empty ones are zero."""
    rows, columns = (_gaussian(length, like) for length in masks.shape[1:])
    found = rows @ masks.to(like.dtype) @ columns.T
    peak = found.amax((1, 2), keepdim=True)
    return found / peak.masked_fill(peak == 0, 1.0)


def _gaussian(length: int, like: Tensor) -> Tensor:
    """Return the matrix that blurs a line; its rows sum to 1, at the borders too."""
    import torch

    places = torch.arange(length, device=like.device, dtype=like.dtype)
    distance = (places[:, None] - places) / (BLUR * length)
    return (-distance.square() / 2).softmax(1)
