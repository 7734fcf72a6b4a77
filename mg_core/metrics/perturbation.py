"""Deletion and insertion: whether the pixels that a map marks decide the prediction.

Petsiuk et al., 2018 (RISE). Both start and end at the same two images, the image itself and its
blurred copy. A constant canvas would leave the outline of what is deleted, which can be what tells
a class, so blurred pixels take the place of deleted ones in both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mg_core.counter import permutation
from mg_core.errors import InputError, check_shapes

STEPS = 10
"""Steps in which all pixels are exchanged; each takes one forward pass for either area."""
BLUR = 0.1
"""Standard deviation of the blur, as a share of the image's side."""

Probability = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to one number for each, (B,)."""


@torch.no_grad()
def deletion_insertion(
    probability: Probability, images: Tensor, attributions: Tensor, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Return the areas under a probability while pixels are blurred, and while they are restored.

    After step i of n, floor(i · H · W / n) pixels have been exchanged, those of the highest raw
    attribution first; equal ones come in an order that is drawn once for each size. Areas are by
    the trapezoid rule over the share of exchanged pixels.

    Args:
        probability: of the class that each map explains.
        images: (B, 3, H, W), floating point.
        attributions: (B, H, W) raw maps at input resolution.
        steps: n, at least 1.

    Returns:
        Deletion area, of which less is better, and insertion area, of which more is, both (B,)
        float64. NaN for a map that is the same everywhere, which puts no pixel first, and for one
        with a NaN.

    Raises:
        InputError: images and maps of different sizes, or no step.
    """
    check_shapes("(B, H, W)", images=images[:, 0], attributions=attributions)
    if steps < 1:
        raise InputError(f"deletion and insertion take at least one step, not {steps}")
    blurred, ranks = blur(images), _ranks(attributions)
    n_pixels = ranks[0].numel()
    whole, canvas = probability(images).double(), probability(blurred).double()
    # Both ends count half by the trapezoid rule.
    deletion = insertion = (whole + canvas) / 2
    for step in range(1, steps):
        is_exchanged = (ranks < step * n_pixels // steps)[:, None]
        deletion = deletion + probability(torch.where(is_exchanged, blurred, images)).double()
        insertion = insertion + probability(torch.where(is_exchanged, images, blurred)).double()
    flat = attributions.flatten(1)
    has_order = flat.amax(1) > flat.amin(1)  # False for NaN
    nan = torch.full_like(whole, torch.nan)
    return (
        torch.where(has_order, deletion / steps, nan),
        torch.where(has_order, insertion / steps, nan),
    )


def blur(images: Tensor) -> Tensor:
    """Blur images (B, 3, S, S) by a Gaussian of `BLUR` · S pixels, mirrored at the border."""
    from torchvision.transforms.v2.functional import gaussian_blur

    deviation = BLUR * images.shape[-1]
    # Three deviations to each side hold all of it, and a mirror image has as many pixels at least.
    reach = min(int(3 * deviation + 0.5), images.shape[-1] - 1, images.shape[-2] - 1)
    blurred: Tensor = gaussian_blur(images, [2 * reach + 1, 2 * reach + 1], [deviation, deviation])
    return blurred


def _ranks(attributions: Tensor) -> Tensor:
    """Return the place of each pixel (B, H, W) in the order of falling attribution."""
    values = attributions.flatten(1)
    drawn = permutation(values.shape[1], 0, "equal attributions")
    drawn_order = torch.from_numpy(drawn).to(values.device)
    order = drawn_order[values[:, drawn_order].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(attributions)
