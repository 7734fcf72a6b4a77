"""A forward pass whose explanations can be differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mg_core.attributions.dynamic_weights import DynamicWeights, dynamic_weights
from mg_core.attributions.network import eager
from mg_core.attributions.second_order import Explaining, second_order


class ForwardPass:
    """A forward pass whose explanations can be differentiated again.

    Args:
        forward: runs the model and returns the logits.
        model: the model that `forward` runs.
        kinds: the gradients that will be taken, by whether W(x) is held.
        taps: features by layer that gradients are taken for; `forward` adds those of inner layers.

    Attributes:
        logits: (B, K), with their graph.
    """

    def __init__(
        self,
        forward: Callable[[], Tensor],
        model: nn.Module,
        kinds: Collection[bool],
        taps: Mapping[str, Tensor],
    ) -> None:
        # With frozen weights, as in evaluation, explanations are not differentiated again.
        is_trained = kinds and any(parameter.requires_grad for parameter in model.parameters())
        differentiable = (
            second_order(lambda: bool(taps)) if is_trained else nullcontext(Explaining())
        )
        holdable = dynamic_weights(model) if True in kinds else nullcontext(DynamicWeights())
        with differentiable as self._explaining, holdable as self._weights, eager(model):
            self.logits = forward()

    def gradients(
        self, score: Tensor, features: Sequence[Tensor], hold: bool, create_graph: bool
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of a score by features, none without any path between them.

        `hold` treats W(x) as constant.
        """
        with self._explaining(), self._weights.held(hold):
            return torch.autograd.grad(
                score, features, create_graph=create_graph, retain_graph=True, allow_unused=True
            )
