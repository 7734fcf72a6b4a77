"""What can be known of a network before it is trained: that each of its maps can be guided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mg_core.attributions import explain
from mg_core.attributions.network import in_mode
from mg_core.errors import InputError
from mg_core.models import encode

Pair = tuple[str, str]


def check_guidance(
    model: nn.Module, guided: Sequence[Pair], evaluated: Sequence[Pair], image_size: int
) -> None:
    """Refuse maps that cannot be guided or evaluated, before anything is trained.

    Each pair is tried on two random images; the network is left as it is.

    Args:
        model: a model of the registry, or any network.
        guided: (attribution, layer) pairs to guide.
        evaluated: (attribution, layer) pairs to evaluate alone.
        image_size: side of the images, in pixels.

    Raises:
        InputError: an unknown layer, one without places or without influence on the logits, or an
            operation without a second derivative; the message names module and operation.

    Example:
        >>> import torchvision
        >>> from mg_core.guidance import check_guidance
        >>> network = torchvision.models.resnet18()
        >>> check_guidance(network, [("ixg", "input")], [("gradcam", "layer4")], image_size=64)
    """
    parameter = next(model.parameters())
    with unchanged(model):
        torch.manual_seed(0)
        images = torch.rand(2, 3, image_size, image_size)
        inputs = encode(model, images.to(parameter.device, parameter.dtype))
        classes = torch.tensor([0, 0], device=parameter.device)
        for pairs, is_guided in ((guided, True), (evaluated, False)):
            for attribution, layer in dict.fromkeys(pairs):
                with in_mode(model, training=is_guided), _naming(f"{attribution}@{layer}"):
                    found = explain(model, inputs, [(attribution, layer)])
                    found.maps(classes, create_graph=is_guided)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put buffers and random numbers back: batch norms follow the batches that they see."""
    before = {name: values.clone() for name, values in model.named_buffers()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(sorted(devices, key=str)):
            yield
    finally:
        with torch.no_grad():
            for name, values in model.named_buffers():
                values.copy_(before[name])


@contextmanager
def _naming(pair: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{pair}: {error}") from None
