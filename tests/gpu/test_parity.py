"""A guided step on a GPU against the same on the CPU in double precision, for every variant."""

from __future__ import annotations

import pytest
import torch
from cases import OTHERS, STUDIED, WITH_LOSSES, batch_for, built, difference, step

from mg_core.guidance import Guidance, guided_loss

pytestmark = pytest.mark.gpu
EVERY = list(dict.fromkeys(STUDIED + OTHERS + WITH_LOSSES))
DOUBLE, SINGLE = 1e-9, 1e-2
"""Largest relative errors. In single precision, rounding turns some ReLU of a random network."""
ROUNDED = {"bcos": 2e-6, "torchvision/mobilenet": 2e-6}
"""The same in double precision for networks that agree to no more: it seems that PyTorch's kernels
of running statistics and of the hard sigmoid round constants to single precision."""


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_step_is_that_of_the_cpu(case, record_property):
    expected, single = (step(case, "cpu", dtype) for dtype in (torch.float64, torch.float32))
    double, found = (step(case, "cuda", dtype) for dtype in (torch.float64, torch.float32))
    bound = next((b for start, b in ROUNDED.items() if case.model.startswith(start)), DOUBLE)
    for name in ("loss", "maps", "gradient"):
        exact = getattr(expected, name)
        error, own, usual = (difference(getattr(f, name), exact) for f in (double, found, single))
        record_property(name, f"{error:.1e} {own:.1e} {usual:.1e}")
        assert error < bound, name
        assert own < max(SINGLE, 20 * usual), name


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_host_does_not_wait(case):
    model = built(case, "cuda")
    batch = batch_for(model, "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    guidance = Guidance(case.attribution, case.layer, case.loss, 1e-3)
    for mode in ("default", "error"):  # The first step may look around.
        torch.cuda.set_sync_debug_mode(mode)
        try:
            optimizer.zero_grad(set_to_none=True)
            loss, _ = guided_loss(model, batch, guidance)
            loss.backward()
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
