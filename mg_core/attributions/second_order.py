"""Convolution and batch norm with cheap second derivatives, attention and others with any.

A loss on an explanation differentiates a backward pass. PyTorch's double backward of batch norm
takes some fifteen elementwise passes; that of a convolution computes the gradient of the weights as
another convolution with huge kernels. A forward pass inside `second_order` uses functions with the
same values and first derivatives (from the same kernels), whose second derivatives take a few
passes and the ordinary weight-gradient kernel. Fused attention and the hard sigmoid have no second
derivative in PyTorch, and are computed by operations that have one. Models need no change. The code
does not depend on the device, but has been tested and measured on CPUs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
ATTENTION = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
"""Functions whose fused kernels have no second derivative; attention written out has one."""
Pair = tuple[int, int]


class Explaining:
    """A switch that is on while an explanation is computed, which needs no gradients of weights.

    Autograd does not tell a Python function which gradients it may leave out. The switch is a plain
    attribute and no context variable, because autograd runs the backward pass of a GPU in another
    thread.
    """

    def __init__(self) -> None:
        self.is_active = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Skip the gradients of weights in backward passes inside the block."""
        self.is_active = True
        try:
            yield
        finally:
            self.is_active = False


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: tuple[Pair, Pair, Pair, int],
        explaining: Explaining,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.bias_size = None if bias is None else list(bias.shape)
        ctx.geometry, ctx.explaining = geometry, explaining
        return _convolve(inputs, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs = of_weight = of_bias = None
        wants_inputs, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        if wants_inputs:
            of_inputs = _InputGradient.apply(gradient, weight, inputs.detach(), ctx.geometry)
        if (wants_weight or wants_bias) and not ctx.explaining.is_active:
            mask = [False, wants_weight, wants_bias]
            _, of_weight, of_bias = _convolve_backward(
                gradient, inputs, weight, ctx.bias_size, ctx.geometry, mask
            )
        return of_inputs, of_weight, of_bias, None, None


class _InputGradient(torch.autograd.Function):
    """The gradient of a convolution by its inputs; linear in output gradient and weight."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        weight: Tensor,
        inputs: Tensor,
        geometry: tuple[Pair, Pair, Pair, int],
    ) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        mask = [True, False, False]
        return _convolve_backward(gradient, inputs, weight, None, geometry, mask)[0]

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        of_gradient = of_weight = None
        if ctx.needs_input_grad[0]:
            of_gradient = _convolve(direction, weight, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            mask = [False, True, False]
            of_weight = _convolve_backward(gradient, direction, weight, None, ctx.geometry, mask)[1]
        return of_gradient, of_weight, None, None


def _convolve(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Pair, Pair, Pair, int]
) -> Tensor:
    stride, padding, dilation, groups = geometry
    return torch.convolution(inputs, weight, bias, stride, padding, dilation, False, (0, 0), groups)


def _convolve_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_size: list[int] | None,
    geometry: tuple[Pair, Pair, Pair, int],
    mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, dilation, groups = geometry
    found: tuple[Tensor, Tensor, Tensor] = aten.convolution_backward(
        gradient, inputs, weight, bias_size, stride, padding, dilation, False, (0, 0), groups, mask
    )
    return found


class _BatchNorm(torch.autograd.Function):
    """Batch norm with the statistics of the batch."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
    ) -> Tensor:
        outputs, mean, inverse_std = torch.native_batch_norm(
            inputs, weight, bias, *running, True, momentum, eps
        )
        ctx.save_for_backward(inputs, weight, mean, inverse_std)
        ctx.eps = eps
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = _BatchNormGradient.apply(gradient, *ctx.saved_tensors, ctx.eps)
        return *found, None, None, None


class _BatchNormGradient(torch.autograd.Function):
    """The gradients of batch norm with respect to inputs x, weight γ and bias.

    With x̂ = (x − μ) r and gradient g: ∂x = γ r (g − mean g − x̂ mean gx̂), ∂γ = Σ gx̂, ∂bias = Σ g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        inputs: Tensor,
        weight: Tensor,
        mean: Tensor,
        inverse_std: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        of_inputs, of_weight, of_bias = _batch_norm_backward(
            gradient, inputs, weight, mean, inverse_std, eps
        )
        ctx.save_for_backward(gradient, inputs, weight, mean, inverse_std, of_weight, of_bias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return of_inputs, of_weight, of_bias

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, v: Tensor | None, along_weight: Tensor | None, along_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, r, g_dot_x, sum_g = ctx.saved_tensors
        count = x.numel() // len(mean)
        v = torch.zeros_like(g) if v is None else v
        # ∂x is a symmetric linear map of g, so its adjoint is the same kernel, which also returns
        # the reductions over v.
        of_gradient, v_dot_x, sum_v = _batch_norm_backward(v, x, weight, mean, r, ctx.eps)
        dot = channel_dot(v, g)
        remainder = dot - sum_g * sum_v / count - g_dot_x * v_dot_x / count
        of_weight = r * remainder
        # The derivative of Σ v ∂x by x combines x, g and v with one coefficient for each channel.
        scale = -weight * r * r / count
        by_x = scale * r * (remainder - 2 * g_dot_x * v_dot_x / count)
        by_g, by_v = scale * v_dot_x, scale * g_dot_x
        if along_weight is not None:
            by_x = by_x - along_weight * r * r * g_dot_x / count
            by_g = by_g + along_weight * r
            of_gradient = of_gradient + combination(
                [(x, along_weight * r)], -along_weight * r * mean
            )
        if along_bias is not None:
            of_gradient = of_gradient + _per_channel(along_bias, g)
        constant = -by_x * mean - by_g * sum_g / count - by_v * sum_v / count
        of_inputs = combination([(x, by_x), (g, by_g), (v, by_v)], constant)
        return of_gradient, of_inputs, of_weight, None, None, None


def _batch_norm_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
        gradient, inputs, weight, None, None, mean, inverse_std, True, eps, [True, True, True]
    )
    return found


def channel_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ ab for each channel in one pass, by the kernel of batch norm at mean 0 and std 1."""
    zeros = a.new_zeros(a.shape[1], dtype=torch.promote_types(a.dtype, torch.float32))
    found: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
        a, b, zeros, None, None, zeros, torch.ones_like(zeros), True, 0.0, [False, True, False]
    )
    return found[1]


def combination(terms: Sequence[tuple[Tensor, Tensor]], constant: Tensor) -> Tensor:
    """Return constant + Σ tensor · coefficient; constant and coefficients are per channel."""
    (first, coefficient), *others = terms
    total = torch.addcmul(_per_channel(constant, first), first, _per_channel(coefficient, first))
    for values, coefficient in others:
        total.addcmul_(values, _per_channel(coefficient, values))
    return total


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))


def hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Return clip(x + 3, 0, 6) / 6, of which PyTorch has no second derivative otherwise."""
    found = F.relu6(input + 3) / 6
    return input.copy_(found) if inplace else found


class _SecondOrder(TorchFunctionMode):
    def __init__(self, explaining: Explaining, is_needed: Callable[[], bool]) -> None:
        super().__init__()
        self.explaining, self.is_needed = explaining, is_needed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        replaced = None
        if self.is_needed() and torch.is_grad_enabled():
            if func is F.conv2d:
                replaced = self._conv2d(*args, **kwargs)
            elif func is F.batch_norm:
                replaced = self._batch_norm(*args, **kwargs)
            elif func is F.hardsigmoid:
                replaced = hard_sigmoid(*args, **kwargs)
            elif func in ATTENTION:
                with sdpa_kernel(SDPBackend.MATH):
                    return func(*args, **kwargs)
        return func(*args, **kwargs) if replaced is None else replaced

    def _conv2d(
        self,
        input: Tensor,  # Parameters are named as those of F.conv2d.
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if input.ndim != 4 or isinstance(padding, str):
            return None
        geometry = (_pair(stride), _pair(padding), _pair(dilation), groups)
        operands = _autocast(input, weight, bias)
        found: Tensor = _Convolution.apply(*operands, geometry, self.explaining)
        return found

    def _batch_norm(
        self,
        input: Tensor,  # Parameters are named as those of F.batch_norm.
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        count = input.numel() // max(input.shape[1], 1)
        if not training or weight is None or bias is None or count < 2:
            return None
        running = (running_mean, running_var)
        found: Tensor = _BatchNorm.apply(input, weight, bias, running, momentum, eps)
        return found


@contextmanager
def second_order(is_needed: Callable[[], bool] = lambda: True) -> Iterator[Explaining]:
    """Replace convolutions and batch norms in a forward pass that runs inside.

    The yielded switch must be on while the backward pass of an explanation runs, and off otherwise.

    Args:
        is_needed: says whether the forward pass has reached the features of an explanation; layers
            before them are not replaced, since they are not differentiated twice.
    """
    explaining = Explaining()
    with _SecondOrder(explaining, is_needed):
        yield explaining


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first


def _autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Cast the operands of a convolution as autocast does, before autograd saves them."""
    device = next(t.device.type for t in tensors if t is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) if t is not None and t.dtype != torch.float64 else t for t in tensors]
