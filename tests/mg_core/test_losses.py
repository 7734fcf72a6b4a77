"""Losses against plain loops in float64, their gradients against finite differences."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mg_core.errors import InputError
from mg_core.losses import LOSSES, Informed, localization_loss

PLAIN = [name for name, loss in LOSSES.items() if not isinstance(loss, Informed)]
TINY = float(torch.finfo(torch.float32).tiny)


def reference(name: str, attribution: np.ndarray, mask: np.ndarray) -> float:
    """Return a loss of one map as its equation says it, pixel by pixel."""
    peak = attribution.max()
    if name in ("rrr", "hint"):
        peak = np.abs(attribution).max()
    empty = attribution.max() <= TINY
    # Maps are divided in their own precision, in which pixels may become equal.
    values = np.zeros_like(attribution) if empty else attribution / peak
    if name not in ("rrr", "hint"):
        values = np.maximum(values, 0)
    pixels = list(zip(map(float, values.ravel()), map(bool, mask.ravel()), strict=True))
    inside = [a for a, m in pixels if m]
    outside = [a for a, m in pixels if not m]
    return float(EQUATIONS[name](inside, outside, values, mask, empty))


def floored(share: float) -> float:
    return max(math.log(share), -100) if share > 0 else -100.0


def mean_over(values, area):
    return sum(values) / area if area else 0.0


def energy(inside, outside, values, mask, empty):
    return 1.0 if empty else 1 - sum(inside) / (sum(inside) + sum(outside))


def energy_density(inside, outside, values, mask, empty):
    densities = [mean_over(inside, len(inside)), mean_over(outside, len(outside))]
    return 1.0 if empty else 1 - densities[0] / sum(densities)


def soft_dice(inside, outside, values, mask, empty):
    total = sum(a * a for a in inside + outside) + len(inside)
    return 1 - 2 * sum(inside) / total if total else 1.0


def soft_iou(inside, outside, values, mask, empty):
    union = len(inside) + sum(outside)
    return 1 - sum(inside) / union if union else 1.0


def kl(inside, outside, values, mask, empty):
    if not inside:
        return 0.0
    total = sum(inside) + sum(outside)
    q = 1 / len(inside)
    return sum(q * (math.log(q) - (-100 if empty else floored(a / total))) for a in inside)


def hint(inside, outside, values, mask, empty):
    pairs = [max(o - i, 0) for i in inside for o in outside]
    return mean_over(pairs, len(pairs))


@lru_cache
def blurred(mask: bytes, height: int, width: int) -> np.ndarray:
    """Return a mask under its Gaussian, pixel by pixel."""

    def kernel(at, place, length):
        def bell(other):
            return math.exp(-(((other - at) / (0.8 / 7 * length)) ** 2) / 2)

        return bell(place) / sum(bell(other) for other in range(length))

    soft = np.zeros((height, width))
    for h, w in np.ndindex(height, width):
        for y, x in np.ndindex(height, width):
            soft[h, w] += kernel(h, y, height) * kernel(w, x, width) * mask[y * width + x]
    return soft / soft.max() if soft.any() else soft


def res(inside, outside, values, mask, empty):
    height, width = mask.shape
    best, threshold = -1, 0.0
    for value in sorted(inside):
        kept = sum(a >= value for a in inside) * len(outside)
        agreement = kept + sum(a < value for a in outside) * len(inside)
        if agreement > best:
            best, threshold = agreement, value
    threshold = threshold if inside else max(outside)

    soft = blurred(mask.tobytes(), height, width)
    sign = np.tanh(5 * (values.astype(float) - threshold))
    return np.mean(np.abs(sign - (2.0 * mask - 1))) + np.mean(np.abs(values - soft))


EQUATIONS = {
    "energy": energy,
    "l1": lambda i, o, values, mask, empty: np.mean(np.abs(values.astype(float) - mask)),
    "ppce": lambda i, *others: mean_over([-floored(a) for a in i], len(i)),
    "rrr": lambda inside, outside, *others: sum(a * a for a in outside),
    "energy_density": energy_density,
    "soft_dice": soft_dice,
    "soft_iou": soft_iou,
    "gain": lambda i, o, values, mask, empty: np.mean((values.astype(float) - mask) ** 2),
    "kl": kl,
    "hint": hint,
    "res": res,
}


def value_and_gradient(name, attributions, masks):
    leaf = attributions.clone().requires_grad_()
    value = localization_loss(name, leaf, masks)
    value.sum().backward()
    return value.detach(), leaf.grad


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(4, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks() -> torch.Tensor:
    masks = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(2)) > 0.6
    masks[2], masks[3] = False, True
    return masks


@pytest.mark.parametrize("name", PLAIN)
def test_value_agrees_with_loops(name, maps, masks):
    expected = [reference(name, a.numpy(), m.numpy()) for a, m in zip(maps, masks, strict=True)]
    assert localization_loss(name, maps, masks).numpy() == pytest.approx(expected, abs=1e-12)
    assert localization_loss(name, maps.float(), masks).numpy() == pytest.approx(expected, abs=1e-5)
    assert localization_loss(name, maps, masks.double()).numpy() == pytest.approx(expected)


@pytest.mark.parametrize("name", PLAIN)
def test_gradient_agrees_with_finite_differences_of_the_loops(name, maps, masks):
    _, gradient = value_and_gradient(name, maps, masks)
    step = 1e-6
    for index in np.ndindex(*maps.shape):
        image = index[0]
        sides = []
        for sign in (1, -1):
            moved = maps[image].clone()
            moved[index[1:]] += sign * step
            sides.append(reference(name, moved.numpy(), masks[image].numpy()))
        expected = (sides[0] - sides[1]) / (2 * step)
        assert float(gradient[index]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, -1.0, -1e-30, 1e-40])
@pytest.mark.parametrize("mask", ["empty", "full", "half"])
@pytest.mark.parametrize("name", PLAIN)
def test_map_without_positive_energy_costs_a_constant(name, mask, value, dtype):
    if dtype == torch.float64 and value > 0:
        value = 1e-310
    maps = torch.full((1, 4, 4), value, dtype=dtype)
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[:, : {"empty": 0, "half": 2, "full": 4}[mask]] = True
    cost, gradient = value_and_gradient(name, maps, masks)
    inside = float(masks.double().mean())
    expected = {"energy": 1.0, "l1": inside, "ppce": 100.0 * (inside > 0), "rrr": 0.0}
    expected |= {"energy_density": 1.0, "soft_dice": 1.0, "soft_iou": 1.0, "gain": inside}
    expected |= {"kl": 100 - math.log(16 * inside) if inside else 0.0, "hint": 0.0}
    if name == "res":  # |tanh(0) − F| is 1, and the zero map misses the mask under its Gaussian.
        expected["res"] = reference("res", np.zeros((4, 4)), masks[0].numpy())
        assert 1 <= expected["res"] <= 2
    assert float(cost) == pytest.approx(expected[name])
    assert not gradient.any()


@pytest.mark.parametrize("name", PLAIN)
def test_one_map_without_energy_leaves_the_others_alone(name, maps, masks):
    with_zero = maps.clone()
    with_zero[1] = -with_zero[1].abs()
    cost, gradient = value_and_gradient(name, with_zero, masks)
    alone, gradient_alone = value_and_gradient(name, maps, masks)
    keep = [0, 2, 3]
    assert torch.equal(cost[keep], alone[keep])
    assert torch.equal(gradient[keep], gradient_alone[keep])
    assert not gradient[1].any()


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1.0, 1e20, 3e37])
@pytest.mark.parametrize("name", PLAIN)
def test_float32_maps_of_any_scale_cost_the_same(name, scale, masks):
    maps = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(3)) - 0.3
    expected = localization_loss(name, maps, masks)
    cost, gradient = value_and_gradient(name, maps * scale, masks)
    torch.testing.assert_close(cost, expected, rtol=1e-4, atol=1e-5)
    assert not gradient.isnan().any()


def test_ppce_clamps_the_logarithm_without_gradient():
    maps = torch.tensor([[[1.0, 0.0, 1e-60]]], dtype=torch.float64)
    cost, gradient = value_and_gradient("ppce", maps, torch.ones(1, 1, 3, dtype=torch.bool))
    assert float(cost) == pytest.approx(200 / 3)
    assert gradient[0, 0, 1:].tolist() == [0, 0]


def test_energy_is_one_minus_its_share_and_ignores_negative_attribution():
    maps = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
    masks = torch.tensor([[[True, False], [True, True]]])
    assert float(localization_loss("energy", maps, masks)) == pytest.approx(0.25)


@pytest.mark.parametrize("name", PLAIN)
def test_nan_is_passed_on(name, masks):
    maps = torch.ones(4, 5, 7)
    maps[0, 0, 0] = float("nan")
    cost = localization_loss(name, maps, ~masks)
    assert cost.isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize("name", PLAIN)
def test_half_precision_maps_are_judged_in_float32(name, maps, masks):
    maps = maps.to(torch.bfloat16)
    cost = localization_loss(name, maps, masks)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, localization_loss(name, maps.float(), masks))


PIXELS = st.sampled_from([0.0, -1.0, 1.0, 0.5, 1e-3, -2.0, 1e-45, 1e-38, 1e30, -1e30])


@given(
    attributions=arrays(np.float32, (2, 3, 4), elements=PIXELS),
    masks=arrays(np.bool_, (2, 3, 4)),
    name=st.sampled_from(sorted(PLAIN)),
)
@settings(max_examples=100, deadline=None)
def test_never_nan_for_finite_maps(attributions, masks, name):
    cost, gradient = value_and_gradient(
        name, torch.from_numpy(attributions), torch.from_numpy(masks)
    )
    expected = [reference(name, a, m) for a, m in zip(attributions, masks, strict=True)]
    # A ratio of two pixels below float32's normal numbers keeps few digits.
    assert cost.numpy() == pytest.approx(expected, rel=1e-2, abs=1e-5)
    assert not gradient.isnan().any()


def test_errors_name_the_choices_and_the_shapes(maps, masks):
    with pytest.raises(InputError, match=r"unknown loss 'enrgy'.*did you mean 'energy'.*rrr"):
        localization_loss("enrgy", maps, masks)
    with pytest.raises(InputError, match=r"\(4, 5, 7\) and \(4, 5, 6\)"):
        localization_loss("energy", maps, masks[:, :, 1:])


def test_a_loss_of_ones_own_gives_one_value_a_map(maps, masks, monkeypatch):
    monkeypatch.setattr(LOSSES, "_variants", dict(LOSSES))
    LOSSES.register("scalar")(lambda attributions, masks: attributions.sum())
    with pytest.raises(InputError, match=r"loss 'scalar' gives \(\), not one value a map"):
        localization_loss("scalar", maps, masks)
