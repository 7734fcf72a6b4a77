"""B-cos networks (Böhle et al., 2022 and 2024) of the `bcos` package, with a multi-label head."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from bcos.models import pretrained as entrypoints
from bcos.models.densenet import BcosDenseNet
from bcos.models.resnet import BasicBlock, BcosResNet, Bottleneck
from bcos.modules import BcosSequential, norms
from torch import Tensor, nn

from mg_core.models.base import MODELS, Model, unit_range
from mg_core.models.bcos_layers import FusedBatchNormUncentered2d, FusedBcosConv2d
from mg_core.models.resnet import RESNET_LAYERS
from mg_core.models.weights import WeightFile

LOGIT_BIAS = math.log(0.001 / 0.999)
"""Fixed output bias of the ImageNet models, kept for any number of classes, as published."""

norm_layer = norms.NoBias(FusedBatchNormUncentered2d)


class BcosModel(Model):
    """A B-cos network; its inputs have six channels."""

    family = "bcos"

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into inputs [r, g, b, 1 − r, 1 − g, 1 − b], not normalised.

        Args:
            images: (B, 3, H, W), uint8, or floating point in [0, 1].

        Returns:
            (B, 6, H, W).
        """
        images = unit_range(images)
        return torch.cat([images, 1 - images], 1)


def _imagenet(name: str) -> dict[str, WeightFile]:
    url = f"https://github.com/B-cos/B-cos-v2/releases/download/v0.0.1-weights/{name}"
    return {"imagenet": WeightFile.named(url)}


class PackageResNet(BcosModel, BcosResNet):  # type: ignore[misc]  # the package has no types
    """A ResNet of the package with the norms and the bias of its ImageNet models."""

    guidance_layers = RESNET_LAYERS
    _make_layer: Callable[..., nn.Sequential]

    def __init__(
        self, block: type[nn.Module], layers: list[int], num_classes: int, **options: object
    ) -> None:
        super().__init__(
            block,
            layers,
            num_classes,
            norm_layer=norm_layer,
            conv_layer=FusedBcosConv2d,
            logit_bias=LOGIT_BIAS,
            **options,
        )


@MODELS.register("bcos_resnet50")
class BcosResNet50(PackageResNet):
    """The B-cos ResNet of the study."""

    pretrained = _imagenet("resnet_50-ead259efe4.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes)


@MODELS.register("bcos_resnet18")
class BcosResNet18(PackageResNet):
    """A small sibling that still has published weights."""

    pretrained = _imagenet("resnet_18-68b4160fff.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes)


@MODELS.register("bcos_tiny")
class BcosTiny(PackageResNet):
    """The smallest B-cos ResNet, for demonstrations and tests; resolutions as in `TinyResNet`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [1, 1, 1], num_classes, inplanes=16, small_inputs=True)
        self.conv1 = FusedBcosConv2d(6, 16, kernel_size=3, stride=2, padding=1)
        self.layer4 = self._make_layer(BasicBlock, 64, 1)


@MODELS.register("bcos_densenet121")
class BcosDenseNet121(BcosModel, BcosDenseNet):  # type: ignore[misc]
    """The B-cos DenseNet of the study, tapped at dense blocks before their transitions."""

    guidance_layers = {  # noqa: RUF012
        name: f"features.denseblock{i}"
        for i, name in enumerate(("mid1", "mid2", "mid3", "final"), start=1)
    }
    head = "classifier"
    pretrained = _imagenet("densenet_121-b8daf96afb.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            num_classes=num_classes,
            norm_layer=norm_layer,
            conv_layer=FusedBcosConv2d,
            logit_bias=LOGIT_BIAS,
        )


def _quarters(depth: int) -> dict[str, str]:
    """Return the transformer blocks that end each quarter of the depth."""
    names = ("mid1", "mid2", "mid3", "final")
    return {
        name: f"0.transformer.encoder_{math.ceil(depth * quarter / 4) - 1}"
        for quarter, name in enumerate(names, start=1)
    }


class PackageVit(BcosModel, BcosSequential):  # type: ignore[misc]
    """A simple ViT of the package: any image whose sides are multiples of 16."""

    head = "0.linear_head.linear"

    def __init__(self, vit: nn.Sequential) -> None:
        super().__init__(*vit)
        self[-1].logit_bias = LOGIT_BIAS


@MODELS.register("bcos_vit_s")
class BcosVitS(PackageVit):
    """The simple ViT-S/16 of the study, tapped at blocks 3, 6, 9 and 12."""

    guidance_layers = _quarters(12)
    pretrained = _imagenet("bcos_simple_vit_s_patch16_224-75e99d1f73.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(entrypoints.simple_vit_s_patch16_224(num_classes=num_classes))


@MODELS.register("bcos_vitc_s")
class BcosVitcS(PackageVit):
    """Its sibling with a convolutional stem and 11 blocks, tapped at blocks 3, 6, 9 and 11."""

    guidance_layers = _quarters(11)
    pretrained = _imagenet("bcos_vitc_s_patch1_14-cf55c88f0c.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(entrypoints.vitc_s_patch1_14(num_classes=num_classes))
