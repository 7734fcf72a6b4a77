"""Deletion and insertion against one image, one step and one pixel at a time in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from mg_core.counter import permutation
from mg_core.errors import InputError
from mg_core.metrics.perturbation import BLUR, blur, deletion_insertion

SIDE = 9


def slow_blur(image):
    """Convolve (3, S, S) with a Gaussian pixel by pixel, mirrored without repeating the border."""
    side, deviation = image.shape[-1], BLUR * image.shape[-1]
    reach = int(3 * deviation + 0.5)
    weights = [math.exp(-((d / deviation) ** 2) / 2) for d in range(-reach, reach + 1)]

    def mirrored(place):
        place = abs(place)
        return 2 * (side - 1) - place if place >= side else place

    found = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    weight = weights[dy + reach] * weights[dx + reach]
                    found[:, y, x] += weight * image[:, mirrored(y + dy), mirrored(x + dx)]
    return found / sum(weights) ** 2


def slow_areas(probability, image, attribution, steps):
    drawn = permutation(SIDE * SIDE, 0, "equal attributions").tolist()
    place = {pixel: number for number, pixel in enumerate(drawn)}
    order = sorted(range(SIDE * SIDE), key=lambda p: (-attribution.flat[p], place[p]))
    blurred = slow_blur(image)
    curves = []
    for start, end in ((image, blurred), (blurred, image)):
        heights = []
        for step in range(steps + 1):
            changed = start.copy()
            for pixel in order[: math.floor(step * SIDE * SIDE / steps)]:
                y, x = divmod(pixel, SIDE)
                changed[:, y, x] = end[:, y, x]
            heights.append(probability(changed))
        curves.append(sum((a + b) / 2 / steps for a, b in itertools.pairwise(heights)))
    return curves


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, SIDE, SIDE, dtype=torch.float64, generator=generator)

    def probability(images):
        return ((images - 0.5) * weights).sum((-3, -2, -1)).div(4).sigmoid()

    return probability


def batch(n_images=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(n_images, 3, SIDE, SIDE, dtype=torch.float64, generator=generator)
    maps = torch.randn(n_images, SIDE, SIDE, dtype=torch.float64, generator=generator)
    # Ties, as upsampled and rectified maps have them.
    return images, maps.mul(2).round().relu_() - 0.5


@pytest.mark.parametrize("steps", [1, 4, 10, SIDE * SIDE])
def test_areas_agree_with_pixels_exchanged_one_by_one(network, steps):
    images, maps = batch()
    found = deletion_insertion(network, images, maps, steps)
    expected = [
        slow_areas(lambda i: float(network(torch.from_numpy(i))), i.numpy(), a.numpy(), steps)
        for i, a in zip(images, maps, strict=True)
    ]
    for areas, column in zip(found, zip(*expected, strict=True), strict=True):
        assert areas.dtype == torch.float64
        assert areas.numpy() == pytest.approx(column, rel=1e-9)


def test_the_blur_is_a_gaussian_that_is_mirrored():
    images, _ = batch(1)
    assert blur(images)[0].numpy() == pytest.approx(slow_blur(images[0].numpy()), rel=1e-9)
    flat = torch.full((1, 3, SIDE, SIDE), 0.25, dtype=torch.float64)
    assert blur(flat).numpy() == pytest.approx(flat.numpy(), rel=1e-12)


def test_the_map_of_what_decides_has_the_smaller_deletion_and_the_larger_insertion_area():
    images = torch.full((1, 3, SIDE, SIDE), 0.2, dtype=torch.float64)
    images[:, :, 2:5, 2:5] = 1.0
    telling = torch.zeros(1, SIDE, SIDE, dtype=torch.float64)
    telling[:, 2:5, 2:5] = 1.0

    def probability(changed):
        return (changed[:, 0] * telling).sum((1, 2)) / 9

    (good, better), (bad, worse) = (
        deletion_insertion(probability, images, sign * telling) for sign in (1, -1)
    )
    assert float(good) < float(bad)
    assert float(better) > float(worse)


def test_the_batch_and_the_scale_of_a_map_do_not_matter(network):
    images, maps = batch()
    whole = deletion_insertion(network, images, maps)
    scaled = deletion_insertion(network, images, maps * 1e-6)
    alone = [deletion_insertion(network, images[i : i + 1], maps[i : i + 1]) for i in range(4)]
    for area, other, single in zip(whole, scaled, zip(*alone, strict=True), strict=True):
        assert torch.equal(area, other)
        assert torch.allclose(area, torch.cat(single), rtol=1e-12)


def test_a_map_that_puts_no_pixel_first_has_no_area(network):
    images, maps = batch()
    maps[0], maps[1], maps[2, 0, 0] = 0.0, 3.0, math.nan
    for areas in deletion_insertion(network, images, maps):
        assert areas.isnan().tolist() == [True, True, True, False]


def test_what_does_not_fit_is_refused(network):
    images, maps = batch()
    with pytest.raises(InputError, match=r"\(4, 9, 9\) and \(4, 9, 8\)"):
        deletion_insertion(network, images, maps[:, :, 1:])
    with pytest.raises(InputError, match="at least one step, not 0"):
        deletion_insertion(network, images, maps, 0)
