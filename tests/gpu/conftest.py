"""What needs a GPU: `pytest -m gpu`, see the README."""

from __future__ import annotations

import gc

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _gpu():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU here")


@pytest.fixture(autouse=True)
def _freed():
    """Give other test processes on the same GPU what a test held."""
    yield
    gc.collect()
    torch.cuda.empty_cache()
