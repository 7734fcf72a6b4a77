"""B-cos explanations that can be trained.

A B-cos network is f(x) = W(x) x with weights W(x) that depend on x, and its explanation needs the
gradient of f with W(x) held constant. The `bcos` package holds it by detaching tensors in its
explanation mode, which also cuts the gradient that a loss on the explanation owes to W(x)
(Sec. 3.2: "a differentiable implementation of B-cos explanations"). Here the same tensors pass
through gates instead: closed while the explanation itself is computed, open for everything else,
so that one forward pass serves the logits' ordinary gradient, W(x), and the gradient of W(x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from bcos.modules import DetachableModule
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class DynamicWeights:
    """The switch that all gates of one forward pass share; open until `held`.

    A plain attribute, since autograd runs the backward pass of a GPU in a thread of its own.
    """

    def __init__(self) -> None:
        self.is_held = False

    @contextmanager
    def held(self, hold: bool = True) -> Iterator[None]:
        """Treat dynamic weights as constants in backward passes inside, unless not to `hold`."""
        self.is_held = hold
        try:
            yield
        finally:
            self.is_held = False


_current: ContextVar[DynamicWeights | None] = ContextVar("dynamic_weights", default=None)


def current_weights() -> DynamicWeights | None:
    """Return the switch of the forward pass that is running, for layers that need no gates."""
    return _current.get()


class _Gate(torch.autograd.Function):
    """Identity whose gradient is cut while the dynamic weights are held."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: DynamicWeights) -> Tensor:
        ctx.weights = weights
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return None if ctx.weights.is_held else gradient, None


class _GatedDetach(TorchFunctionMode):
    """Put a gate wherever a module detaches a tensor."""

    def __init__(self, weights: DynamicWeights) -> None:
        super().__init__()
        self.weights = weights

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.detach or func is torch.detach:
            return _Gate.apply(args[0], self.weights)
        return func(*args, **(kwargs or {}))


def _gated(forward: Callable[..., Any], weights: DynamicWeights) -> Callable[..., Any]:
    def gated_forward(*args: Any, **kwargs: Any) -> Any:
        token = _current.set(weights)
        try:
            with _GatedDetach(weights):
                return forward(*args, **kwargs)
        finally:
            _current.reset(token)

    return gated_forward


@contextmanager
def dynamic_weights(model: nn.Module) -> Iterator[DynamicWeights]:
    """Run the forward pass inside so that its dynamic weights can be held afterwards.

    Args:
        model: with modules of the `bcos` package anywhere in it; others behave as ever.
    """
    weights = DynamicWeights()
    # Not `set_explanation_mode`, which centered norms refuse in training: they detach nothing. And
    # only these modules, so that what others detach stays detached.
    modules = [m for m in model.modules() if isinstance(m, DetachableModule)]
    before = [(module.detach, vars(module).get("forward")) for module in modules]
    try:
        for module in modules:
            module.detach = True
            module.forward = _gated(module.forward, weights)
        yield weights
    finally:
        for module, (detach, forward) in zip(modules, before, strict=True):
            module.detach = detach
            del module.forward
            if forward is not None:
                module.forward = forward
        # The package detaches what it puts into running statistics, which then is a gate too.
        for buffer in model.buffers():
            if buffer.requires_grad:
                buffer.detach_()
