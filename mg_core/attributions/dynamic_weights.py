"""B-cos explanations that can be trained.

A B-cos network is f(x) = W(x) x with weights W(x) that depend on x. Its explanation is the gradient
of f with W(x) held constant. In its explanation mode, the `bcos` package holds W(x) by detaching
tensors, which also cuts the gradient of a loss on the explanation with respect to W(x) (Sec. 3.2:
"a differentiable implementation of B-cos explanations"). Here these tensors pass through gates
instead, which are closed while the explanation is computed and open at all other times. One forward
pass then gives the ordinary gradient of the logits, W(x), and the gradient of W(x).
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
    """The switch of all gates of one forward pass; they are open except inside `held`.

    The switch is a plain attribute and no context variable, because autograd runs the backward
    pass of a GPU in another thread.
    """

    def __init__(self) -> None:
        self.is_held = False

    @contextmanager
    def held(self, hold: bool = True) -> Iterator[None]:
        """Treat dynamic weights as constants in backward passes inside, if `hold` is true."""
        self.is_held = hold
        try:
            yield
        finally:
            self.is_held = False


_current: ContextVar[DynamicWeights | None] = ContextVar("dynamic_weights", default=None)


def current_weights() -> DynamicWeights | None:
    """Return the switch of the running forward pass, for layers that hold W(x) themselves."""
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
    """Replaces every detaching of a tensor by a gate."""

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
    """Put gates into a forward pass that runs inside; the yielded switch closes them later.

    Args:
        model: network whose modules of the `bcos` package get gates; other modules are unchanged.
    """
    weights = DynamicWeights()
    # `set_explanation_mode` is not used: centered norms refuse it in training, but detach nothing.
    # Only these modules get gates, so that tensors detached elsewhere stay detached.
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
        # The package also detaches values for running statistics, and these get a gate as well.
        for buffer in model.buffers():
            if buffer.requires_grad:
                buffer.detach_()
