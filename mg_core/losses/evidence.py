"""What a localization loss may ask for beside maps and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """R explained images of one forward pass, and what can be computed from it.

    What is computed has its graph, so that a loss on it trains the network. Nothing is computed
    before it is asked for, and nothing runs the network again.

    Attributes:
        masks: (R, H, W) bool, the union of the boxes of the explained class.
        target_classes: (R,) int64, the explained class of each image.
        logits: (R, K), at least float32.
        labels: (R, K), 0 or 1, of the type of the logits.
        is_single_label: whether the network is trained by a softmax over the classes; otherwise
            each class has a sigmoid of its own.
        maps_of: classes (R,) -> their raw maps (R, H, W), at input resolution and at least float32.
        gradients_of: a score (R,), computed from the logits -> the gradients (R, C, h, w) of its
            sum with respect to the features of the guided layer, at least float32.
        upsample: maps (R, h, w) of the layer -> (R, H, W), bilinearly, as attributions are.
    """

    masks: Tensor
    target_classes: Tensor
    logits: Tensor
    labels: Tensor
    is_single_label: bool
    maps_of: Callable[[Tensor], Tensor]
    gradients_of: Callable[[Tensor], Tensor]
    upsample: Callable[[Tensor], Tensor]

    @cached_property
    def attributions(self) -> Tensor:
        """Raw maps (R, H, W) of the target classes."""
        return self.maps_of(self.target_classes)


@dataclass(frozen=True)
class Informed:
    """A localization loss that gets the whole `Evidence`; see `informed`.

    Attributes:
        function: evidence of R images -> (R,) losses, at least float32, with their graph.
    """

    function: Callable[[Evidence], Tensor]

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the loss of each image, (R,)."""
        return self.function(evidence)


def informed(function: Callable[[Evidence], Tensor]) -> Informed:
    """Declare that a localization loss takes one `Evidence` in place of maps and masks.

    It goes below the registration. `mg_core.testing.check_loss` proves such a loss, too.

    Args:
        function: evidence of R images -> (R,) losses, at least float32, with their graph.

    Example:
        >>> import mg_core
        >>> @mg_core.LOSSES.register("contrast")
        ... @mg_core.informed
        ... def contrast(evidence):
        ...     others = (evidence.target_classes + 1) % evidence.logits.shape[1]
        ...     both = evidence.attributions * evidence.maps_of(others)
        ...     return both.tanh().masked_fill(evidence.masks, 0).sum((1, 2))
        >>> "contrast" in mg_core.LOSSES
        True
    """
    return Informed(function)
