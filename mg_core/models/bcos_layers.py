"""Layers of the `bcos` package with the same parameters and numbers in fewer passes over memory.

Their explanations can be trained (see `mg_core.attributions.dynamic_weights`). The second
derivatives that a held backward pass needs are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from bcos.modules import BcosConv2d, norms
from torch import Tensor
from torch.autograd.function import once_differentiable

from mg_core.attributions.dynamic_weights import DynamicWeights, current_weights
from mg_core.attributions.second_order import channel_dot, combination


class FusedBcosConv2d(BcosConv2d):  # type: ignore[misc]  # the package has no types
    """|cos(x, ŵ)| ŵᵀx with ŵ of unit norm; other B, MaxOut and groups are left to the package."""

    def forward_impl(self, in_tensor: Tensor) -> Tensor:
        """Convolve patches (B, C, H, W) and scale by their cosine."""
        weights = current_weights()
        is_plain = (self.b, self.max_out, self.groups, self.dilation) == (2, 1, 1, 1)
        # A module that detaches without our weights is in the package's own explanation mode.
        if not is_plain or (self.detach and weights is None):
            found: Tensor = super().forward_impl(in_tensor)
            return found
        convolution = self.linear
        scale = convolution.weight.new_ones(convolution.weight.shape[0], 1, 1, 1)
        unit = torch._weight_norm(convolution.weight, scale, 0)
        linear = F.conv2d(in_tensor, unit, None, convolution.stride, convolution.padding)
        squares = F.avg_pool2d(
            _SumOfSquares.apply(in_tensor),
            self.kernel_size,
            padding=self.padding,
            stride=self.stride,
        )
        norm = (squares * self.patch_size + 1e-6).sqrt()
        found = _Scaled.apply(linear, norm.to(linear.dtype), weights)
        return found


class FusedBatchNormUncentered2d(norms.BatchNormUncentered2d):  # type: ignore[misc]
    """x γ / √(var x + ε) without bias; in training, with the variance of the batch."""

    def forward(self, input: Tensor) -> Tensor:  # the name of the package
        """Normalise (B, C, H, W)."""
        weights = current_weights()
        if not self.training or (self.detach and weights is None):
            found: Tensor = super().forward(input)
            return found
        found, variance = _Uncentered.apply(input, self.weight, self.eps, weights)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        return found


class _SumOfSquares(torch.autograd.Function):
    """Σ_c x² (B, 1, H, W), at least float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        # On a CPU, these two passes are many times faster than one vector norm over channels.
        return (x * x).sum(1, keepdim=True, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        of_x: Tensor = x * (2 * g).to(x.dtype)
        return of_x


class _Scaled(torch.autograd.Function):
    """o|o| / n of outputs o (B, C, H, W) and norms n (B, 1, H, W); held, |o| / n is constant."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, n: Tensor, weights: DynamicWeights | None) -> Tensor:
        ctx.save_for_backward(o, n)
        ctx.weights = weights
        return o.abs().div_(n).mul_(o)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        o, n = ctx.saved_tensors
        if ctx.weights is not None and ctx.weights.is_held:
            return _ScaledGradient.apply(g, o, n), None, None
        if torch.is_grad_enabled():
            return *_differentiate(lambda o, n: o.abs() / n * o, (o, n), g), None
        of_o = o.abs().div_(n / 2).mul_(g)
        of_n = (of_o * o).sum(1, keepdim=True) / (-2 * n)
        return of_o, of_n, None


class _ScaledGradient(torch.autograd.Function):
    """g |o| / n, which is linear in g."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, o: Tensor, n: Tensor) -> Tensor:
        ctx.save_for_backward(g, o, n)
        return o.abs().div_(n).mul_(g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, ...]:
        g, o, n = ctx.saved_tensors
        of_g = o.abs().div_(n).mul_(v)
        of_n = (of_g * g).sum(1, keepdim=True) / -n
        of_o = o.sgn().mul_(v).mul_(g).div_(n)
        return of_g, of_o, of_n


class _Uncentered(torch.autograd.Function):
    """s x with s = γ r and r = 1 / √(var x + ε) for each channel; held, s is constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, weights: DynamicWeights | None
    ) -> tuple[Tensor, Tensor]:
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        r = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, r)
        ctx.eps, ctx.weights = eps, weights
        ctx.mark_non_differentiable(variance)
        return x * _channels(weight * r, x), variance

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, r = ctx.saved_tensors
        if ctx.weights is not None and ctx.weights.is_held:
            return _UncenteredGradient.apply(g, x, weight, mean, r), None, None, None
        if torch.is_grad_enabled():

            def plain(x: Tensor, weight: Tensor) -> Tensor:
                variance = x.var((0, 2, 3), unbiased=False)
                return x * _channels(weight * (variance + ctx.eps).rsqrt(), x)

            return *_differentiate(plain, (x, weight), g), None, None
        dot = channel_dot(g, x)
        by_x = -weight * r**3 * dot / (x.numel() // len(r))
        of_x = combination([(x, by_x), (g, weight * r)], -by_x * mean)
        return of_x, r * dot, None, None


class _UncenteredGradient(torch.autograd.Function):
    """s g, which is linear in g."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        ctx.save_for_backward(g, x, weight, mean, r)
        return g * _channels(weight * r, g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, r = ctx.saved_tensors
        dot = channel_dot(v, g)
        by_x = -weight * r**3 * dot / (x.numel() // len(r))
        of_x = combination([(x, by_x)], -by_x * mean)
        return v * _channels(weight * r, v), of_x, r * dot, None, None


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, 1, 1)


def _differentiate(
    function: Callable[..., Tensor], arguments: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return gradients that can be differentiated again, by differentiating a plain function."""
    return torch.autograd.grad(
        function(*arguments), arguments, gradient, create_graph=True, materialize_grads=True
    )
