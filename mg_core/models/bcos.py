"""B-cos networks (Böhle et al., 2022 and 2024) of the `bcos` package, with a multi-label head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mg_core.models.architecture import MODELS, architecture
from mg_core.models.vanilla import RESNET_LAYERS
from mg_core.models.weights import WeightFile

if TYPE_CHECKING:
    from mg_core.models.base import Model

NAMES = tuple(RESNET_LAYERS)
VIT_HEAD = "0.linear_head.linear"


def _imagenet(name: str) -> dict[str, WeightFile]:
    url = f"https://github.com/B-cos/B-cos-v2/releases/download/v0.0.1-weights/{name}"
    return {"imagenet": WeightFile.named(url)}


def _quarters(depth: int) -> dict[str, str]:
    """Return the transformer blocks that end each quarter of the depth."""
    return {
        name: f"0.transformer.encoder_{math.ceil(depth * quarter / 4) - 1}"
        for quarter, name in enumerate(NAMES, start=1)
    }


DENSE_BLOCKS = {name: f"features.denseblock{i}" for i, name in enumerate(NAMES, start=1)}
"""Before their transitions."""


@MODELS.register("bcos_resnet50")
@architecture("bcos", RESNET_LAYERS, pretrained=_imagenet("resnet_50-ead259efe4.pth"))
def bcos_resnet50(num_classes: int) -> Model:
    """Build the B-cos ResNet of the study."""
    from mg_core.models.bcos_networks import resnet50

    return resnet50(num_classes)


@MODELS.register("bcos_resnet18")
@architecture("bcos", RESNET_LAYERS, pretrained=_imagenet("resnet_18-68b4160fff.pth"))
def bcos_resnet18(num_classes: int) -> Model:
    """Build a small sibling that still has published weights."""
    from mg_core.models.bcos_networks import resnet18

    return resnet18(num_classes)


@MODELS.register("bcos_tiny")
@architecture("bcos", RESNET_LAYERS)
def bcos_tiny(num_classes: int) -> Model:
    """Build the smallest B-cos ResNet, for demonstrations and tests."""
    from mg_core.models.bcos_networks import TinyBcosResNet

    return TinyBcosResNet(num_classes)


@MODELS.register("bcos_densenet121")
@architecture("bcos", DENSE_BLOCKS, "classifier", _imagenet("densenet_121-b8daf96afb.pth"))
def bcos_densenet121(num_classes: int) -> Model:
    """Build the B-cos DenseNet of the study."""
    from mg_core.models.bcos_networks import DenseNet121

    return DenseNet121(num_classes)


@MODELS.register("bcos_vit_s")
@architecture(
    "bcos", _quarters(12), VIT_HEAD, _imagenet("bcos_simple_vit_s_patch16_224-75e99d1f73.pth")
)
def bcos_vit_s(num_classes: int) -> Model:
    """Build the simple ViT-S/16 of the study, tapped at blocks 3, 6, 9 and 12."""
    from mg_core.models.bcos_networks import vit_s

    return vit_s(num_classes)


@MODELS.register("bcos_vitc_s")
@architecture("bcos", _quarters(11), VIT_HEAD, _imagenet("bcos_vitc_s_patch1_14-cf55c88f0c.pth"))
def bcos_vitc_s(num_classes: int) -> Model:
    """Build its sibling with a convolutional stem and 11 blocks, tapped at 3, 6, 9 and 11."""
    from mg_core.models.bcos_networks import vitc_s

    return vitc_s(num_classes)
