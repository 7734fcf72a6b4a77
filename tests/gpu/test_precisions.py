"""Faster precisions against single precision, and the memory format that they are run in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import OTHERS, TINY, difference, step

from mg_core.guidance import kernels
from mg_core.training.trial import memory_format

pytestmark = pytest.mark.gpu
CASES = [case for case in TINY if case.layer in ("input", "mid2", "final")]
CASES += [case for case in OTHERS if case.layer in ("input", "final")]
PRECISIONS = {"tf32": 0.1, "bf16": 0.5, "fp16": 0.2}
"""The largest relative error of maps that a precision may make on networks of random weights."""


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("precision", "bound"), PRECISIONS.items())
def test_maps_and_gradients_are_close(case, precision, bound, record_property):
    exact = step(case, "cuda")
    layout = memory_format(torch.device("cuda"), precision)
    assert layout == torch.channels_last
    found = step(case, "cuda", precision=precision, memory_format=layout)
    angle = float(F.cosine_similarity(found.gradient, exact.gradient, dim=0))
    record_property("loss", difference(found.loss, exact.loss))
    record_property("maps", difference(found.maps, exact.maps))
    record_property("cosine", angle)
    assert bool(found.gradient.isfinite().all())
    assert difference(found.loss, exact.loss) < bound
    assert angle > 1 - bound


@pytest.mark.parametrize("case", CASES, ids=str)
def test_channels_last_changes_nothing_but_the_order(case):
    exact, single = step(case, "cpu", torch.float64), step(case, "cpu")
    found = step(case, "cuda", memory_format=torch.channels_last)
    for name in ("maps", "gradient"):
        error, usual = (difference(getattr(f, name), getattr(exact, name)) for f in (found, single))
        assert error < max(1e-2, 20 * usual), name


def test_single_precision_is_single_and_tf32_is_not():
    torch.manual_seed(0)
    image, weight = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
    exact = F.conv2d(image.double(), weight.double())
    errors = {}
    for precision in ("fp32", "tf32"):
        with kernels(precision):
            found = F.conv2d(image.cuda(), weight.cuda()).double().cpu()
            product = image.cuda().flatten(1) @ image.cuda().flatten(1).T
        plain = image.double().flatten(1) @ image.double().flatten(1).T
        errors[precision] = (
            difference(found, exact),
            difference(product.double().cpu(), plain),
        )
    assert max(errors["fp32"]) < 1e-5
    assert errors["tf32"][0] > 5e-5
