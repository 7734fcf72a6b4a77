"""What a model of the study is, and how images become its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mg_core.errors import InputError

if TYPE_CHECKING:
    from mg_core.models.weights import WeightFile

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Model(nn.Module):
    """A multi-label classifier that can be guided: `inputs (B, C, H, W) -> logits (B, K)`.

    To add a model of your own, subclass this, take the number of classes as the only argument and
    register the class in `MODELS`. Its attributes mean what those of `Architecture` mean.
    """

    family: ClassVar[str] = "vanilla"
    guidance_layers: ClassVar[Mapping[str, str]] = {}
    head: ClassVar[str] = "fc"
    pretrained: ClassVar[Mapping[str, WeightFile]] = {}
    gflops: ClassVar[float] = 1.0

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into inputs of about zero mean and unit variance, as ImageNet's.

        Args:
            images: (B, 3, H, W), uint8, or floating point in [0, 1].
        """
        images = unit_range(images)
        mean, std = _imagenet_statistics(images.device, images.dtype)
        return (images - mean) / std


def encode(model: nn.Module, images: Tensor) -> Tensor:
    """Turn images into the inputs of a model.

    The model's own `encode` decides; a network without one, such as torchvision's, gets images
    normalised by ImageNet's mean and standard deviation.

    Args:
        model: a model of the registry, or any network.
        images: (B, 3, H, W), uint8, or floating point in [0, 1].

    Returns:
        (B, C, H, W) on the device of the images.

    Example:
        >>> import torch, torchvision, mg_core
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> mg_core.encode(mg_core.build_model("bcos_tiny", num_classes=3), images).shape
        torch.Size([2, 6, 32, 32])
        >>> mg_core.encode(torchvision.models.resnet18(), images).shape
        torch.Size([2, 3, 32, 32])
    """
    own = getattr(model, "encode", None)
    inputs: Tensor = own(images) if own is not None else Model.encode(Model(), images)
    return inputs


def unit_range(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W), given as bytes or floating point, in [0, 1]."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"images must have shape (B, 3, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise InputError(f"images must be uint8 or floating point in [0, 1], not {images.dtype}")
    return images


@lru_cache(maxsize=16)
def _imagenet_statistics(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Cached: a copy to a GPU for every batch would make the host wait.
    mean, std = (
        torch.tensor(values, device=device, dtype=dtype).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std
