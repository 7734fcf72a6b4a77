"""ResNets of torchvision (He et al., 2016), of which X-DNNs are made too."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from mg_core.models.architecture import STAGES
from mg_core.models.base import Model

Norm = Callable[[int], nn.Module]


class TorchvisionResNet(Model, ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet as a `Model`."""

    guidance_layers = STAGES  # for subclasses that users register
    _make_layer: Callable[..., nn.Sequential]


class TinyResNet(TorchvisionResNet):
    """A ResNet with one block of few channels a stage, for 64 × 64 images on a CPU.

    The stem halves the image once instead of twice and the last stage keeps its resolution, so
    that 64 × 64 pixels end in 8 × 8 features, about what 224 × 224 pixels leave of a ResNet-50.
    """

    def __init__(self, num_classes: int, norm_layer: Norm = nn.BatchNorm2d) -> None:
        nn.Module.__init__(self)
        width = 16
        # torchvision's `_make_layer` reads these.
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


def resnet18(num_classes: int, norm_layer: Norm = nn.BatchNorm2d) -> TorchvisionResNet:
    """Build a ResNet-18."""
    return TorchvisionResNet(BasicBlock, [2, 2, 2, 2], num_classes, norm_layer=norm_layer)


def resnet50(num_classes: int, norm_layer: Norm = nn.BatchNorm2d) -> TorchvisionResNet:
    """Build a ResNet-50."""
    return TorchvisionResNet(Bottleneck, [3, 4, 6, 3], num_classes, norm_layer=norm_layer)
