"""B-cos networks (Böhle et al., 2022 and 2024) of the `bcos` package.

They have the norms and the output bias of the package's ImageNet models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from bcos.models import pretrained as entrypoints
from bcos.models.densenet import BcosDenseNet
from bcos.models.resnet import BasicBlock, BcosResNet, Bottleneck
from bcos.modules import BcosSequential, norms
from torch import Tensor, nn

from mg_core.models.architecture import STAGES
from mg_core.models.base import Model, unit_range
from mg_core.models.bcos_layers import FusedBatchNormUncentered2d, FusedBcosConv2d

LOGIT_BIAS = math.log(0.001 / 0.999)
"""Fixed output bias of the ImageNet models, kept for any number of classes, as published."""

_LAYERS = {
    "norm_layer": norms.NoBias(FusedBatchNormUncentered2d),
    "conv_layer": FusedBcosConv2d,
    "logit_bias": LOGIT_BIAS,
}


class BcosModel(Model):
    """A B-cos network; its inputs have six channels."""

    family = "bcos"

    def encode(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into [r, g, b, 1 − r, 1 − g, 1 − b], not normalised."""
        images = unit_range(images)
        return torch.cat([images, 1 - images], 1)


class PackageResNet(BcosModel, BcosResNet):  # type: ignore[misc]  # the package has no types
    """A ResNet of the package."""

    guidance_layers = STAGES
    _make_layer: Callable[..., nn.Sequential]

    def __init__(
        self, block: type[nn.Module], layers: list[int], num_classes: int, **options: object
    ) -> None:
        super().__init__(block, layers, num_classes, **_LAYERS, **options)


def resnet18(num_classes: int) -> PackageResNet:
    """Build a ResNet-18."""
    return PackageResNet(BasicBlock, [2, 2, 2, 2], num_classes)


def resnet50(num_classes: int) -> PackageResNet:
    """Build a ResNet-50."""
    return PackageResNet(Bottleneck, [3, 4, 6, 3], num_classes)


class TinyBcosResNet(PackageResNet):
    """A ResNet with one block of few channels a stage; resolutions as in `TinyResNet`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [1, 1, 1], num_classes, inplanes=16, small_inputs=True)
        self.conv1 = FusedBcosConv2d(6, 16, kernel_size=3, stride=2, padding=1)
        self.layer4 = self._make_layer(BasicBlock, 64, 1)


class DenseNet121(BcosModel, BcosDenseNet):  # type: ignore[misc]
    """The DenseNet of the package."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, **_LAYERS)


class PackageVit(BcosModel, BcosSequential):  # type: ignore[misc]
    """A simple ViT of the package: any image whose sides are multiples of 16."""

    def __init__(self, vit: nn.Sequential) -> None:
        super().__init__(*vit)
        self[-1].logit_bias = LOGIT_BIAS


def vit_s(num_classes: int) -> PackageVit:
    """Build the simple ViT-S/16."""
    return PackageVit(entrypoints.simple_vit_s_patch16_224(num_classes=num_classes))


def vitc_s(num_classes: int) -> PackageVit:
    """Build its sibling with a convolutional stem and 11 blocks."""
    return PackageVit(entrypoints.vitc_s_patch1_14(num_classes=num_classes))
