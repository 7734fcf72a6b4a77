"""X-DNN ResNets (Hesse et al., 2021): no biases and no norms, hence nonnegatively homogeneous.

f(αx) = αf(x) for α ≥ 0, so that integrated gradients from a zero baseline equal input times
gradient. The new classification head may have a bias: attributions do not see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.models.architecture import MODELS, architecture
from mg_core.models.vanilla import RESNET_LAYERS
from mg_core.models.weights import WeightFile

if TYPE_CHECKING:
    from mg_core.models.base import Model

HESSE = (
    "https://download.visinf.tu-darmstadt.de/data/2021-neurips-fast-axiomatic-attribution/models"
)
PUBLISHED = WeightFile(f"{HESSE}/xfixup_resnet50_model_best.pth.tar", None)
"""Its publisher gives no checksum."""


@MODELS.register("xdnn_resnet50")
@architecture("xdnn", RESNET_LAYERS, pretrained={"imagenet": PUBLISHED})
def xdnn_resnet50(num_classes: int) -> Model:
    """Build the X-DNN of the study."""
    from torch import nn

    from mg_core.models.resnet import resnet50, without_norms

    return without_norms(resnet50(num_classes, nn.Identity))


@MODELS.register("xdnn_resnet18")
@architecture("xdnn", RESNET_LAYERS)
def xdnn_resnet18(num_classes: int) -> Model:
    """Build a small sibling."""
    from torch import nn

    from mg_core.models.resnet import resnet18, without_norms

    return without_norms(resnet18(num_classes, nn.Identity))


@MODELS.register("xdnn_tiny")
@architecture("xdnn", RESNET_LAYERS)
def xdnn_tiny(num_classes: int) -> Model:
    """Build the smallest X-DNN, for demonstrations and tests."""
    from torch import nn

    from mg_core.models.resnet import TinyResNet, without_norms

    return without_norms(TinyResNet(num_classes, nn.Identity))
