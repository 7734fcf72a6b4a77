"""What a model of the study is, and how images become its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from mg_core.errors import InputError
from mg_core.models.weights import WeightFile

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Model(nn.Module):
    """A multi-label classifier that can be guided: `inputs (B, C, H, W) -> logits (B, K)`.

    A variant of your own subclasses this, takes the number of classes as its only argument and is
    registered in `MODELS`; what the study needs to know of it are attributes of the class.

    Attributes:
        family: decides which attributions mean something for it: "vanilla", "xdnn" or "bcos".
        guidance_layers: name in the study ("mid1" … "final") -> dotted name of the submodule.
        head: dotted name of the classification layer, which pretrained weights never fill.
        pretrained: name -> published weights.
    """

    family: ClassVar[str] = "vanilla"
    guidance_layers: ClassVar[Mapping[str, str]] = {}
    head: ClassVar[str] = "fc"
    pretrained: ClassVar[Mapping[str, WeightFile]] = {}

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into inputs: ImageNet's mean and standard deviation.

        Args:
            images: (B, 3, H, W), uint8, or floating point in [0, 1].

        Returns:
            (B, 3, H, W), about zero mean and unit variance.
        """
        images = unit_range(images)
        mean, std = _imagenet_statistics(images.device, images.dtype)
        return (images - mean) / std


def unit_range(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) as floating point in [0, 1], whether bytes or already that.

    Raises:
        InputError: the images have another shape or are integers of another width.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"images must have shape (B, 3, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise InputError(f"images must be uint8 or floating point in [0, 1], not {images.dtype}")
    return images


@lru_cache(maxsize=16)
def _imagenet_statistics(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Cached, since a copy to a GPU for every batch would make the host wait.
    mean, std = (
        torch.tensor(values, device=device, dtype=dtype).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std
