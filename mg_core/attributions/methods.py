"""Attribution methods: each combines a layer's features with the gradients of one logit per image.

To add a method, register an `Attribution` in `ATTRIBUTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mg_core.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor

INPUT = "input"
"""The layer whose features are the encoded images."""

Probes: TypeAlias = "Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]"
"""Features -> pairs (features at which a gradient is taken, features that it is combined with)."""


@dataclass(frozen=True)
class Attribution:
    """An attribution method: how a map is computed from features and gradients.

    Attributes:
        combine: computes maps (B, h, w) from features and gradients, each (B, C, h, w) and at
            least float32; see also `reads_attention`.
        families: model families for which sweeps accept the method; none for all.
        holds_weights: whether gradients treat the dynamic weights of B-cos modules as constants.
        probes: features at which the model above the layer is run again; the map is the mean over
            them. None uses the forward pass that gives the logits, which is what guidance needs.
        reads_attention: whether `combine` gets the attention weights of the network above the
            layer, and the gradients by them: two sequences of (B, heads, N, N), at least float32,
            in the order of the blocks. It then returns the relevance (B, N) of the tokens.
    """

    combine: Callable[..., Tensor]
    families: frozenset[str] | None = None
    holds_weights: bool = False
    probes: Probes | None = None
    reads_attention: bool = False


ATTRIBUTIONS: Registry[Attribution] = Registry("attribution")


def input_times_gradient(features: Tensor, gradients: Tensor) -> Tensor:
    """Multiply and sum over channels, (B, C, h, w) -> (B, h, w) (Shrikumar et al., 2017)."""
    return (features * gradients).sum(1)


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight channels by mean gradients, (B, C, h, w) -> (B, h, w) (Selvaraju et al., 2017)."""
    return (gradients.mean((2, 3), keepdim=True) * features).sum(1).relu()


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight each place by its positive gradient, (B, C, h, w) -> (B, h, w) (Jiang et al., 2021).

    ReLU(Σ_c ReLU(g_c) ⊙ U_c).
    """
    return (gradients.relu() * features).sum(1).relu()


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Weight channels by positive gradients, (B, C, h, w) -> (B, h, w) (Chattopadhay et al., 2018).

    ReLU(Σ_c w_c U_c) with w_c = Σ α ReLU(g) over the places of a channel. For a score exp(f_k), all
    of whose derivatives follow from the gradient g of f_k, α is g² / (2g² + g³ Σ U), which is
    1 / (2 + g Σ U). The derivation has features that are not negative; ReLU(Σ U) takes the place of
    Σ U, the same number for these, so that α has no pole for others. The factor exp(f_k) scales
    a map as a whole, could overflow, and is left out.
    """
    total = features.sum((2, 3), keepdim=True).relu()
    rising = gradients.relu()
    weights = (rising / (2 + rising * total)).sum((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()


def attention_relevance(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Follow relevance through self-attention, (B, heads, N, N) each -> (B, N).

    R = I, then R ← R + Ā R for each block, with Ā = mean over heads of (∇A ⊙ A)⁺ (Chefer et al.,
    2021, Eq. 5 and 6). The map is the row of R − I that belongs to the tokens that the classifier
    reads: the class token, or the mean of all where it pools them. These are the queries of the
    last block whose attention has a gradient.
    """
    is_read = gradients[-1].detach().abs().amax((1, 3)) > 0
    read = is_read.to(weights[-1].dtype)
    start = read / read.sum(1, keepdim=True).clamp_min(1)
    # The row alone, from the last block down: no product of two matrices is needed.
    row = start[:, None]
    for weight, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        row = row + row @ (gradient * weight).relu().mean(1)
    return row[:, 0] - start


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
            noisy = features + deviation * _noise(features, generator)
            yield noisy, noisy

    return probes


def _noise(features: Tensor, generator: Generator) -> Tensor:
    """Draw noise for the features of one image, the same on every device."""
    import torch

    noise = torch.randn(features.shape[1:], generator=generator)
    if features.is_cuda:
        noise = noise.pin_memory()  # Else the host would wait for the transfer.
    return noise.to(features.device, non_blocking=True).to(features.dtype)


def lines_from_noise(samples: int) -> Probes:
    """Take gradients at random places on lines from references, as expected gradients do.

    With `input_times_gradient` this is E[(x − x') ⊙ ∇f(x' + α (x − x'))] over references x' and
    uniform α (Erion et al., 2021), whose sum over places is f(x) − E f(x'). References are Gaussian
    noise with mean and deviation of the image's own features, and not other images: so a map
    depends on its own image alone, in training and in evaluation. The same noise and the same α,
    one in each of so many equal parts of [0, 1], are drawn in every call and for every image.

    Args:
        samples: references, each with one α.
    """

    def probes(features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        import torch  # Imported here: a plan needs the names of the methods, but no PyTorch.

        inner = tuple(range(1, features.ndim))
        mean = features.mean(inner, True)
        # The smallest number keeps the root of a constant image's variance differentiable.
        variance = features.var(inner, correction=0, keepdim=True)
        deviation = variance.clamp_min(torch.finfo(features.dtype).tiny).sqrt()
        generator = torch.Generator().manual_seed(0)
        for sample in range(samples):
            noise = _noise(features, generator)
            part = (sample + float(torch.rand((), generator=generator))) / samples
            difference = features - mean - deviation * noise
            yield features - (1 - part) * difference, difference

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
ATTRIBUTIONS.register("layercam")(Attribution(layercam))
ATTRIBUTIONS.register("gradcam_plus_plus")(Attribution(gradcam_plus_plus))
ATTRIBUTIONS.register("expected_gradients")(
    Attribution(input_times_gradient, probes=lines_from_noise(samples=16))
)
ATTRIBUTIONS.register("attention")(Attribution(attention_relevance, reads_attention=True))
