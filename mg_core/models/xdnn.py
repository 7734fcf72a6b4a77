"""X-DNN ResNets (Hesse et al., 2021): no biases and no norms, hence nonnegatively homogeneous.

f(αx) = αf(x) for α ≥ 0, so that integrated gradients from a zero baseline equal input times
gradient. The new classification head may have a bias: attributions do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mg_core.models.base import MODELS
from mg_core.models.resnet import TinyResNet, TorchvisionResNet
from mg_core.models.weights import WeightFile

HESSE = (
    "https://download.visinf.tu-darmstadt.de/data/2021-neurips-fast-axiomatic-attribution/models"
)


def _without_norms(model: TorchvisionResNet) -> None:
    """Drop the places of norms from a ResNet built with identities, and initialise as Fixup does.

    The remaining keys are those of the published file. Zhang et al. (2019): a residual branch of
    m layers is scaled by L^(−1 / (2m − 2)) for L blocks, its last layer starts at zero.
    """
    blocks = list(_blocks(model))
    for block in blocks:
        convolutions = [m for m in block.children() if isinstance(m, nn.Conv2d)]
        scale = len(blocks) ** (-1 / (2 * len(convolutions) - 2))
        for convolution in convolutions[:-1]:
            _initialise(convolution, scale)
        nn.init.zeros_(convolutions[-1].weight)
        if block.downsample is not None:
            block.downsample = block.downsample[0]
            _initialise(block.downsample, 1.0)


def _blocks(model: TorchvisionResNet) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            yield module


def _initialise(convolution: nn.Conv2d, scale: float) -> None:
    weight = convolution.weight
    fan_out = weight.shape[0] * math.prod(weight.shape[2:])
    nn.init.normal_(weight, std=scale * math.sqrt(2 / fan_out))


@MODELS.register("xdnn_resnet50")
class XdnnResNet50(TorchvisionResNet):
    """The X-DNN of the study; its publisher gives no checksum."""

    family = "xdnn"
    pretrained = {"imagenet": WeightFile(f"{HESSE}/xfixup_resnet50_model_best.pth.tar", None)}  # noqa: RUF012

    def __init__(self, num_classes: int) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes, norm_layer=nn.Identity)
        _without_norms(self)


@MODELS.register("xdnn_resnet18")
class XdnnResNet18(TorchvisionResNet):
    """A small sibling."""

    family = "xdnn"

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes, norm_layer=nn.Identity)
        _without_norms(self)


@MODELS.register("xdnn_tiny")
class XdnnTiny(TinyResNet):
    """The smallest X-DNN, for demonstrations and tests."""

    family = "xdnn"

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, nn.Identity)
        _without_norms(self)
