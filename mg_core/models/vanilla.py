"""Conventional ResNets as torchvision has them (He et al., 2016), with a multi-label head."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mg_core.models.base import MODELS
from mg_core.models.resnet import TinyResNet, TorchvisionResNet
from mg_core.models.weights import WeightFile


def _imagenet(name: str) -> dict[str, WeightFile]:
    file = WeightFile.named(f"https://download.pytorch.org/models/{name}")
    return {"imagenet": file, "IMAGENET1K_V1": file}


@MODELS.register("vanilla_resnet50")
class VanillaResNet50(TorchvisionResNet):
    """The conventional backbone of the study."""

    family = "vanilla"
    pretrained = _imagenet("resnet50-0676ba61.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes)


@MODELS.register("vanilla_resnet18")
class VanillaResNet18(TorchvisionResNet):
    """A small sibling that still has published weights."""

    family = "vanilla"
    pretrained = _imagenet("resnet18-f37072fd.pth")

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes)


@MODELS.register("vanilla_tiny")
class VanillaTiny(TinyResNet):
    """The smallest conventional ResNet, for demonstrations and tests."""

    family = "vanilla"

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, nn.BatchNorm2d)
