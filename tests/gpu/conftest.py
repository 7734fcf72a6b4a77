"""What needs a GPU: `pytest -m gpu`, see the README."""

from __future__ import annotations

import gc
import os

import pytest
import torch

# cuBLAS reads it once, before its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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
