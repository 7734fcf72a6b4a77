"""The variants that the kept stores were written with."""

import os
import time
from typing import ClassVar

import torch
from torch import nn

from mg_core.losses import LOSSES
from mg_core.models import MODELS, Model


@MODELS.register("two_layers")
class TwoLayers(Model):
    """Small, since its weights are kept for ever."""

    guidance_layers: ClassVar = {"mid1": "body"}

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU())
        self.fc = nn.Linear(8, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.gelu(self.body(inputs)).mean((2, 3)))


@LOSSES.register("slow")
def slow(attributions, masks):
    """Energy, as slowly as the environment says."""
    time.sleep(float(os.environ.get("SLOW", 0)))
    return LOSSES["energy"](attributions, masks)


@LOSSES.register("broken")
def broken(attributions, masks):
    """Fail."""
    raise RuntimeError("this loss is broken")
