"""Conventional ResNets as torchvision has them (He et al., 2016), with a multi-label head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.models.architecture import MODELS, architecture
from mg_core.models.weights import WeightFile

if TYPE_CHECKING:
    from mg_core.models.base import Model

RESNET_LAYERS = {"mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4"}


def _imagenet(name: str) -> dict[str, WeightFile]:
    file = WeightFile.named(f"https://download.pytorch.org/models/{name}")
    return {"imagenet": file, "IMAGENET1K_V1": file}


@MODELS.register("vanilla_resnet50")
@architecture("vanilla", RESNET_LAYERS, pretrained=_imagenet("resnet50-0676ba61.pth"))
def vanilla_resnet50(num_classes: int) -> Model:
    """Build the conventional backbone of the study."""
    from mg_core.models.resnet import resnet50

    return resnet50(num_classes)


@MODELS.register("vanilla_resnet18")
@architecture("vanilla", RESNET_LAYERS, pretrained=_imagenet("resnet18-f37072fd.pth"))
def vanilla_resnet18(num_classes: int) -> Model:
    """Build a small sibling that still has published weights."""
    from mg_core.models.resnet import resnet18

    return resnet18(num_classes)


@MODELS.register("vanilla_tiny")
@architecture("vanilla", RESNET_LAYERS)
def vanilla_tiny(num_classes: int) -> Model:
    """Build the smallest conventional ResNet, for demonstrations and tests."""
    from mg_core.models.resnet import TinyResNet

    return TinyResNet(num_classes)
