"""Attribution methods: each combines a layer's features with the gradients of one logit per image.

To add a method, register an `Attribution` in `ATTRIBUTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

INPUT = "input"
"""The layer whose features are the encoded images."""

Probes: TypeAlias = "Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]"
"""Features -> pairs (features at which a gradient is taken, features that it is combined with)."""


@dataclass(frozen=True)
class Attribution:
    """An attribution method: how a map is computed from features and gradients.

    Attributes:
        combine: computes maps (B, h, w) from features and gradients, each (B, C, h, w) and at
            least float32.
        families: model families for which sweeps accept the method; none for all.
        holds_weights: whether gradients treat the dynamic weights of B-cos modules as constants.
        probes: features at which the model above the layer is run again; the map is the mean over
            them. None uses the forward pass that gives the logits, which is what guidance needs.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    families: frozenset[str] | None = None
    holds_weights: bool = False
    probes: Probes | None = None


ATTRIBUTIONS: Registry[Attribution] = Registry("attribution")


def input_times_gradient(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply and sum over channels, (B, C, h, w) -> (B, h, w) (Shrikumar et al., 2017)."""
    return (features * gradients).sum(1)


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight channels by mean gradients, (B, C, h, w) -> (B, h, w) (Selvaraju et al., 2017)."""
    return (gradients.mean((2, 3), keepdim=True) * features).sum(1).relu()


def line_from_zero(steps: int) -> Probes:
    """Take gradients on a straight line from zero, by the midpoint rule.

    With `input_times_gradient` these are integrated gradients (Sundararajan et al., 2017).
    """

    def probes(features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(steps):
            yield (step + 0.5) / steps * features, features

    return probes


def noisy_copies(samples: int, noise: float) -> Probes:
    """Add Gaussian noise, as SmoothGrad does (Smilkov et al., 2017).

    The noise is the same in every call and for every image of a batch, so that a map depends on
    its own image alone.

    Args:
        samples: copies whose maps are averaged.
        noise: standard deviation as a share of the range of an image's features.
    """

    def probes(features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        import torch  # Imported here: a plan needs the names of the methods, but no PyTorch.

        inner = tuple(range(1, features.ndim))
        deviation = noise * (features.amax(inner, True) - features.amin(inner, True))
        generator = torch.Generator().manual_seed(0)
        for _ in range(samples):
            draw = torch.randn(features.shape[1:], generator=generator)
            noisy = features + deviation * draw.to(features.device, features.dtype)
            yield noisy, noisy

    return probes


ATTRIBUTIONS.register("ixg")(Attribution(input_times_gradient, frozenset({"vanilla"})))
# On a nonnegatively homogeneous network both are the same number (Hesse et al., 2021).
ATTRIBUTIONS.register("intgrad")(Attribution(input_times_gradient, frozenset({"xdnn"})))
# With W(x) held constant, the gradient is W(x): the map is W(x) ⊙ x (Böhle et al., 2022).
ATTRIBUTIONS.register("bcos")(
    Attribution(input_times_gradient, frozenset({"bcos"}), holds_weights=True)
)
ATTRIBUTIONS.register("gradcam")(Attribution(gradcam))
ATTRIBUTIONS.register("intgrad_steps")(
    Attribution(input_times_gradient, probes=line_from_zero(steps=32))
)
ATTRIBUTIONS.register("smoothgrad_ixg")(
    Attribution(input_times_gradient, probes=noisy_copies(samples=16, noise=0.15))
)
