"""Heat maps over pictures."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch

from mg_core.attributions import overlay as module
from mg_core.attributions import upsample
from mg_core.attributions.overlay import BOX, overlay
from mg_core.errors import InputError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def attribution():
    return np.random.default_rng(1).normal(0, 1, (12, 16)).astype(np.float32)


def test_the_example_runs():
    assert doctest.testmod(module).failed == 0


def test_tensors_are_drawn_as_arrays_are(image, attribution):
    drawn = overlay(image, attribution)
    assert drawn.shape == (12, 16, 3)
    assert drawn.dtype == np.uint8
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    values = torch.from_numpy(attribution).requires_grad_()
    assert (overlay(tensor, values) == drawn).all()
    for picture in (tensor.double() / 255, tensor.float() / 255, image / 255):
        assert np.abs(overlay(picture, values).astype(int) - drawn).max() <= 1
    assert overlay(tensor.bfloat16() / 255, values.bfloat16()).shape == drawn.shape


def test_only_positive_attributions_have_a_colour(image, attribution):
    spread = np.ptp(overlay(image, attribution).astype(int), axis=2)
    assert (spread[attribution <= 0] == 0).all()
    assert (spread[attribution > 0.1] > 0).all()
    assert (overlay(image, attribution) == overlay(image, 7 * attribution)).all(), "relative"


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (12, 8), (24, 32)])
def test_maps_of_another_size_are_upsampled_bilinearly(size, image):
    values = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = overlay(image, upsample(values[None], (12, 16))[0])
    difference = overlay(image, values).astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 1


def test_boxes_are_outlined_and_nothing_else_changes(image, attribution):
    drawn = overlay(image, attribution)
    outlined = overlay(image, attribution, boxes=[(2, 1, 6, 5), (15, 11, 30, 30), (-9, 8, 1, 9)])
    is_box = (outlined == BOX).all(axis=2)
    expected = np.zeros((12, 16), bool)
    expected[1:5, 2:6] = True
    expected[2:4, 3:5] = False
    expected[11, 15] = expected[8, 0] = True
    assert (is_box == expected).all()
    assert (outlined[~expected] == drawn[~expected]).all()
    assert (overlay(image, attribution, boxes=[]) == drawn).all()


@pytest.mark.parametrize(
    ("picture", "values"),
    [
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.zeros((3, 4, 4)), np.zeros((4, 4))),
        (torch.zeros(6, 4, 4), np.zeros((4, 4))),
        (np.zeros((4, 4, 3)), torch.zeros(1, 4, 4)),
    ],
)
def test_other_shapes_are_refused_in_a_sentence(picture, values):
    with pytest.raises(InputError, match=r"an (image|attribution map) .*not \("):
        overlay(picture, values)


def test_arrays_need_no_torch():
    code = "import sys, mg_core.attributions.overlay; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
