"""Where the features of a layer keep images, channels and places.

Libraries disagree: (B, C, h, w), (B, h, w, C), (B, N, C) with or without class and register tokens,
(N, B, C). A shape alone does not tell them apart, and a wrong guess gives a wrong map without a
word. So the layout is found: a part of an image is changed, and the features that move most are
those of that place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mg_core.errors import InputError

LATTICE = 4
"""Each side of an image is cut into so many parts, which are changed one after another."""
LEAST_CORRELATION = 0.85
"""Between the place of a change and the places where features move, on both axes."""
LEAST_NEAR = 0.9
"""Share of the changed parts at which, or next to which, features move most.

Both were chosen on untrained networks of forty families: right layouts had correlations of 0.89 or
more and a share of 1, wrong ones 0.85 or less, or a share below 0.9.
"""
MOST_EXTRA_TOKENS = 64
"""Class, distillation and register tokens of one image."""
LEAST_LEAD = 1.02
"""By what factor the best layout must be ahead of the next."""


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's features.

    Attributes:
        batch: axis of the images.
        channels: axis of the channels.
        places: the two axes of the grid, or the one axis of the tokens.
        grid: height and width of the grid.
        first: number of class and register tokens before those of the grid.
    """

    batch: int
    channels: int
    places: tuple[int, ...]
    grid: tuple[int, int]
    first: int = 0

    def to_grid(self, values: Tensor) -> Tensor:
        """Return features or gradients as (B, C, h, w)."""
        values = values.permute(self.batch, self.channels, *self.places)
        if len(self.places) == 1:
            values = values[:, :, self.first : self.first + math.prod(self.grid)]
        grid: Tensor = values.reshape(*values.shape[:2], *self.grid)
        return grid


def certain(shape: torch.Size, n_images: int, size: tuple[int, int]) -> Layout | None:
    """Return (B, C, h, w) if the shape allows nothing else; none if features must be asked."""
    if len(shape) != 4 or shape[0] != n_images:
        return None
    _, first, second, third = shape
    is_last = _fits((first, second), size) and (second, third) != (1, 1)
    if is_last or not _fits((second, third), size):
        return None
    return Layout(0, 1, (2, 3), (second, third))


def find(
    features: Callable[[Tensor], Tensor], inputs: Tensor, shape: torch.Size, layer: str
) -> Layout:
    """Return the layout of a layer, from how its features follow changes of an image.

    Args:
        features: runs the model, without changing it, on inputs and returns the layer's features.
        inputs: (B, C, H, W), which gives size, type and device of the trial inputs.
        shape: the layer's features for these inputs.
        layer: name for messages.

    Raises:
        InputError: no layout fits, or several do.
    """
    size = (inputs.shape[-2], inputs.shape[-1])
    trials = _changed_images(inputs, avoiding={*shape, len(inputs)})
    moved = features(trials).detach().double()
    batch = _batch_axis(shape, moved.shape, len(inputs), len(trials), layer)
    differences = (moved - moved.select(batch, 0).unsqueeze(batch)).abs()
    rest = [axis for axis in range(len(shape)) if axis != batch]
    scored = []
    for candidate in _candidates(moved.shape, batch, rest, size):
        correlation, near, lift = _agreement(candidate.to_grid(differences))
        if correlation >= LEAST_CORRELATION and near >= LEAST_NEAR:
            scored.append((lift, candidate))
    scored.sort(key=lambda found: -found[0])
    if not scored or (len(scored) > 1 and scored[0][0] < LEAST_LEAD * scored[1][0]):
        raise InputError(
            f"layer {layer!r} gives no map: its output has shape {tuple(shape)}, and where its "
            f"places are cannot be told from how it follows changes of an image; choose a layer "
            f"with (B, C, h, w), (B, h, w, C) or (B, N, C) features"
        )
    return scored[0][1]


def _batch_axis(shape: torch.Size, moved: torch.Size, n: int, n_trials: int, layer: str) -> int:
    """Return the axis whose length is the number of images, whatever that is."""
    axes = [
        axis
        for axis, (length, other) in enumerate(zip(shape, moved, strict=True))
        if length == n and other == n_trials
    ]
    others = [
        a == b for axis, (a, b) in enumerate(zip(shape, moved, strict=True)) if axis not in axes
    ]
    if len(axes) != 1 or not all(others):
        raise InputError(
            f"layer {layer!r} gives no map: its output has shape {tuple(shape)}, {shape[0]} rows "
            f"for {n} images, as windows of an image do; choose the block around it"
        )
    return axes[0]


def _candidates(
    shape: torch.Size, batch: int, rest: list[int], size: tuple[int, int]
) -> Iterator[Layout]:
    if len(rest) == 3:
        for channels, places in ((rest[0], rest[1:]), (rest[2], rest[:2])):
            grid = (shape[places[0]], shape[places[1]])
            if channels == rest[0] or _fits(grid, size):
                yield Layout(batch, channels, tuple(places), grid)
        return
    for tokens, channels in (rest, rest[::-1]):
        for grid in _grids(shape[tokens], size):
            more = shape[tokens] - math.prod(grid)
            for first in {0, more}:
                yield Layout(batch, channels, (tokens,), grid, first)


def _grids(n_tokens: int, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the grids with an image's aspect that all but a few tokens belong to."""
    for height in range(2, n_tokens + 1):
        for width in {height * size[1] // size[0], -(-height * size[1] // size[0])}:
            extra = n_tokens - height * width
            if width > 1 and 0 <= extra <= min(MOST_EXTRA_TOKENS, height * width):
                yield height, width


def _fits(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Say whether a grid has an image's aspect, up to rounding."""
    if size[0] == size[1]:
        return grid[0] == grid[1] <= size[0]
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


def _changed_images(inputs: Tensor, avoiding: set[int]) -> Tensor:
    """Return noise (P, C, H, W), followed by copies with another part changed in each.

    P is none of the lengths to avoid, so that it tells the axis of the images.
    """
    generator = torch.Generator().manual_seed(0)
    n_parts = LATTICE**2
    while n_parts + 1 in avoiding:
        n_parts -= 1
    _, channels, height, width = inputs.shape
    draw = torch.rand(2, channels, height, width, generator=generator) * 2 - 1
    plain, other = draw.to(inputs.device, inputs.dtype)
    copies: Tensor = plain.repeat(n_parts + 1, 1, 1, 1)
    for part in range(n_parts):
        rows, columns = _part(part, height, width)
        copies[part + 1, :, rows, columns] = other[:, rows, columns]
    return copies


def _part(part: int, height: int, width: int) -> tuple[slice, slice]:
    row, column = divmod(part, LATTICE)
    return (
        slice(row * height // LATTICE, (row + 1) * height // LATTICE),
        slice(column * width // LATTICE, (column + 1) * width // LATTICE),
    )


def _agreement(differences: Tensor) -> tuple[float, float, float]:
    """Return how well the features that move are those of the changed places.

    Args:
        differences: (1 + parts, C, h, w) absolute changes, the first row zero.

    Returns:
        The lower of two correlations, of the rows and of the columns of changed parts with those
        of the features that move; the share of parts at or next to which they move most; and how
        many times as much as an average place the changed one moves.
    """
    moved = differences[1:].sum(1, keepdim=True)
    moved = moved / moved.mean((2, 3), keepdim=True).clamp_min(torch.finfo(moved.dtype).tiny)
    if min(moved.shape[-2:]) < LATTICE:
        moved = F.interpolate(moved, scale_factor=float(LATTICE), mode="nearest")
    by_part = F.adaptive_avg_pool2d(moved, LATTICE).flatten(1)
    parts = torch.arange(len(by_part), device=by_part.device)
    lift = float(by_part[parts, parts].mean())
    excess = by_part - by_part.amin(1, keepdim=True)
    most = by_part.argmax(1)
    places = torch.arange(LATTICE**2, device=by_part.device)
    correlations, distances = [], []
    for axis in (places // LATTICE, places % LATTICE):
        own = axis[: len(parts)]
        centre = (excess * axis).sum(1) / excess.sum(1)
        correlations.append(float(torch.corrcoef(torch.stack([centre, own.to(centre)]))[0, 1]))
        distances.append((axis[most] - own).abs())
    near = (torch.maximum(*distances) <= 1).double().mean()
    return min(correlations), float(near), lift
