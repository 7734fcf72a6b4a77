"""The ResNets that vanilla models and X-DNNs are built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from mg_core.models.base import Model
from mg_core.models.vanilla import RESNET_LAYERS

Norm = Callable[[int], nn.Module]
NORM: Norm = nn.BatchNorm2d


class TorchvisionResNet(Model, ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet (He et al., 2016) as a `Model`."""

    guidance_layers = RESNET_LAYERS  # for subclasses of one's own, which declare nothing else
    _make_layer: Callable[..., nn.Sequential]


class TinyResNet(TorchvisionResNet):
    """A ResNet with one block of few channels a stage, for 64 × 64 images on a CPU.

    The stem halves the image once instead of twice and the last stage keeps its resolution, so
    that 64 × 64 pixels end in 8 × 8 features, about what 224 × 224 pixels leave of a ResNet-50.
    """

    def __init__(self, num_classes: int, norm_layer: Norm = NORM) -> None:
        nn.Module.__init__(self)
        width = 16
        # What `_make_layer` of torchvision expects of its class.
        self._norm_layer = norm_layer
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(BasicBlock, width, 1)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 4 * width, 1)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18(num_classes: int, norm_layer: Norm = NORM) -> TorchvisionResNet:
    """Build a ResNet-18."""
    return TorchvisionResNet(BasicBlock, [2, 2, 2, 2], num_classes, norm_layer=norm_layer)


def resnet50(num_classes: int, norm_layer: Norm = NORM) -> TorchvisionResNet:
    """Build a ResNet-50."""
    return TorchvisionResNet(Bottleneck, [3, 4, 6, 3], num_classes, norm_layer=norm_layer)


def without_norms(model: TorchvisionResNet) -> TorchvisionResNet:
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
    return model


def _blocks(model: TorchvisionResNet) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            yield module


def _initialise(convolution: nn.Conv2d, scale: float) -> None:
    weight = convolution.weight
    fan_out = weight.shape[0] * math.prod(weight.shape[2:])
    nn.init.normal_(weight, std=scale * math.sqrt(2 / fan_out))
