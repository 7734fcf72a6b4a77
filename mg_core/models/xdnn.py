"""X-DNN ResNets (Hesse et al., 2021): no biases and no norms, hence nonnegatively homogeneous.

f(αx) = αf(x) for α ≥ 0, so that integrated gradients from a zero baseline equal input times
gradient. The new classification head may have a bias: attributions do not see it.
"""

from __future__ import annotations

import math

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mg_core.models import resnet


def resnet50(num_classes: int) -> resnet.TorchvisionResNet:
    """Build the X-DNN of the study."""
    return _without_norms(resnet.resnet50(num_classes, nn.Identity))


def resnet18(num_classes: int) -> resnet.TorchvisionResNet:
    """Build a ResNet-18."""
    return _without_norms(resnet.resnet18(num_classes, nn.Identity))


def tiny_resnet(num_classes: int) -> resnet.TorchvisionResNet:
    """Build a `TinyResNet`."""
    return _without_norms(resnet.TinyResNet(num_classes, nn.Identity))


def _without_norms(model: resnet.TorchvisionResNet) -> resnet.TorchvisionResNet:
    """Initialise a ResNet that has identities instead of norms as Fixup does.

    Zhang et al. (2019): a residual branch of m layers is scaled by L^(−1 / (2m − 2)) for L blocks,
    and its last layer starts at zero. Every downsampling becomes its convolution alone, as the
    keys of the published file want it.
    """
    blocks = [m for m in model.modules() if isinstance(m, (BasicBlock, Bottleneck))]
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


def _initialise(convolution: nn.Conv2d, scale: float) -> None:
    weight = convolution.weight
    fan_out = weight.shape[0] * math.prod(weight.shape[2:])
    nn.init.normal_(weight, std=scale * math.sqrt(2 / fan_out))
