"""EPG, IoU and on-object share against plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mg_core.errors import InputError
from mg_core.metrics import IOU_THRESHOLDS, epg, has_energy, iou, on_object, pointing_game

TINY = float(torch.finfo(torch.float32).tiny)


def reference_epg(attribution, mask):
    flat = [(max(float(a), 0.0), bool(m)) for a, m in zip(attribution.flat, mask.flat, strict=True)]
    if max(a for a, _ in flat) <= TINY:
        return 0.0
    return math.fsum(a for a, m in flat if m) / math.fsum(a for a, _ in flat)


def reference_iou(attribution, mask, threshold):
    values = [max(float(a), 0.0) for a in attribution.flat]
    peak = max(values)
    if peak <= TINY or not mask.any():
        return 0.0
    chosen = [v / peak > threshold for v in values]
    pairs = list(zip(chosen, mask.flat, strict=True))
    return sum(c and m for c, m in pairs) / sum(c or m for c, m in pairs)


def reference_pointing_game(attribution, mask):
    peak = max(float(a) for a in attribution.flat)
    if peak <= TINY:
        return 0.0
    hits = [bool(m) for a, m in zip(attribution.flat, mask.flat, strict=True) if float(a) == peak]
    return sum(hits) / len(hits)


# Quotients such as 0.3/1 and 0.1/0.2 fall on thresholds, or a rounding error away from them.
PIXELS = st.sampled_from([0.0, -1.0, 1.0, 0.5, 0.05, 0.1, 0.2, 0.3, 0.25, 0.005, 3.0, -7.0, 1e-40])
MAPS = arrays(np.float32, (2, 3, 5), elements=PIXELS)
MASKS = arrays(np.bool_, (2, 3, 5))


@given(attributions=MAPS, masks=MASKS)
@settings(max_examples=100, deadline=None)
def test_epg_agrees_with_loops(attributions, masks):
    expected = [reference_epg(a, m) for a, m in zip(attributions, masks, strict=True)]
    found = epg(torch.from_numpy(attributions), torch.from_numpy(masks))
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(expected, rel=1e-6)


@given(attributions=MAPS, masks=MASKS, thresholds=st.permutations(IOU_THRESHOLDS))
@settings(max_examples=100, deadline=None)
def test_iou_agrees_with_loops_at_every_threshold_in_any_order(attributions, masks, thresholds):
    expected = [
        [reference_iou(a, m, t) for t in thresholds]
        for a, m in zip(attributions, masks, strict=True)
    ]
    found = iou(torch.from_numpy(attributions), torch.from_numpy(masks), thresholds)
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-6)


@given(attributions=MAPS, masks=MASKS)
@settings(max_examples=100, deadline=None)
def test_pointing_game_agrees_with_loops(attributions, masks):
    expected = [reference_pointing_game(a, m) for a, m in zip(attributions, masks, strict=True)]
    found = pointing_game(torch.from_numpy(attributions), torch.from_numpy(masks))
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(expected, rel=1e-6)


def test_pointing_game_has_no_tolerance_and_shares_ties():
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 0] = 1.0  # beside the mask
    maps[1, 1, 1] = maps[1, 3, 3] = 1.0
    maps[2] = 1.0
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    assert pointing_game(maps, masks).tolist() == [0.0, 0.5, 0.25]


@pytest.mark.parametrize("scale", [1e-37, 1e30, 1e37])
def test_metrics_do_not_depend_on_the_scale_of_a_map(scale):
    maps = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    scaled = (maps * scale).float()
    assert epg(scaled, masks).numpy() == pytest.approx(epg(maps, masks).numpy(), rel=1e-5)
    assert torch.equal(iou(scaled, masks, (0.123, 0.5)), iou(maps, masks, (0.123, 0.5)).float())


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-45])
def test_maps_without_energy_and_empty_masks_count_zero(value):
    maps = torch.stack([torch.full((4, 4), value), torch.ones(4, 4)])
    masks = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]).bool()
    assert has_energy(maps).tolist() == [False, True]
    assert epg(maps, masks).tolist() == [0, 0]
    assert pointing_game(maps, masks).tolist() == [0, 0]
    assert iou(maps, masks, IOU_THRESHOLDS).count_nonzero() == 0


def test_uniform_map_scores_the_box_area():
    masks = torch.zeros(1, 10, 10, dtype=torch.bool)
    masks[:, :3] = True
    assert float(epg(torch.ones(1, 10, 10), masks)) == pytest.approx(0.3)
    assert iou(torch.ones(1, 10, 10), masks, (0.5, 0.999)).tolist() == [pytest.approx([0.3, 0.3])]


def test_perfect_map_scores_one():
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[:, 1:3, 2:5] = True
    assert epg(masks.double(), masks).tolist() == [1, 1]
    assert iou(masks.double(), masks, IOU_THRESHOLDS).eq(1).all()


def test_threshold_is_exclusive():
    maps = torch.tensor([[[1.0, 0.5]]])
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    assert iou(maps, mask, (0.5, 0.499)).tolist() == [[0.5, 1.0]]


def test_threshold_grid_holds_what_input_layer_maps_need():
    assert 0.5 in IOU_THRESHOLDS
    assert sum(t <= 0.025 for t in IOU_THRESHOLDS) >= 3
    assert list(IOU_THRESHOLDS) == sorted(set(IOU_THRESHOLDS))


def test_on_object_is_the_share_of_in_box_energy():
    maps = torch.tensor([[[4.0, 1.0, -9.0, 5.0]], [[0.0, -1.0, 0.0, 1.0]]])
    boxes = torch.tensor([[[True, True, True, False]]] * 2)
    segmentation = torch.tensor([[[False, True, True, True]]] * 2)
    share = on_object(maps, boxes, segmentation)
    assert float(share[0]) == pytest.approx(0.2)
    assert share[1].isnan()


def test_nan_maps_score_nan_and_carry_no_gradient():
    maps = torch.ones(2, 3, 3, requires_grad=True) * torch.tensor([1.0, math.nan])[:, None, None]
    masks = torch.ones(2, 3, 3, dtype=torch.bool)
    for score in (
        epg(maps, masks),
        iou(maps, masks, (0.5,))[:, 0],
        pointing_game(maps, masks),
    ):
        assert score.isnan().tolist() == [False, True]
        assert not score.requires_grad


@pytest.mark.parametrize("metric", [epg, pointing_game, lambda a, m: iou(a, m, (0.5,))])
def test_shapes_are_checked(metric):
    with pytest.raises(InputError, match=r"\(2, 3, 3\) and \(2, 3, 4\)"):
        metric(torch.ones(2, 3, 3), torch.ones(2, 3, 4))
