"""What each precision of a training step means: types of the forward pass, and kernels of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mg_core.config import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the forward pass where it is not that of the weights."""


@contextmanager
def kernels(precision: Precision) -> Iterator[None]:
    """Let a GPU round single-precision operands to TensorFloat-32 in any precision but fp32.

    TensorFloat-32 keeps 10 bits of 23, on the tensor cores of Ampere and later. PyTorch's own
    default rounds convolutions so and matrix products not: single precision is then none. Forward
    and backward passes both belong into this context. On a CPU it does nothing. It also serves as
    a decorator.

    Args:
        precision: precision of what runs in the context.

    Example:
        >>> import torch
        >>> from mg_core.guidance import kernels
        >>> with kernels("fp32"):
        ...     torch.backends.cudnn.allow_tf32
        False
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before
