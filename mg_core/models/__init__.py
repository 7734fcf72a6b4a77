"""The models of the study in one registry, and how one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.errors import InputError
from mg_core.lazy import importing
from mg_core.models import study  # noqa: F401  # registers the models of the study
from mg_core.models.architecture import MODELS, architecture
from mg_core.models.library import LibraryModel
from mg_core.models.weights import WeightFile, find_weights, load_backbone

if TYPE_CHECKING:
    from mg_core.models.base import Model, encode

__all__ = ["MODELS", "Model", "WeightFile", "architecture", "build_model", "encode"]
__getattr__ = importing(__name__, dict.fromkeys(("Model", "encode"), "mg_core.models.base"))


def build_model(
    name: str, num_classes: int, weights: str | None = None, image_size: int | None = None
) -> Model:
    """Build a model with a new multi-label head.

    Initial values come from torch's global generator: call `torch.manual_seed` first. Pretrained
    weights leave the head as it was drawn, so that the same seed gives the same head.

    Args:
        name: key of `MODELS`, such as "vanilla_resnet50", or a network of torchvision, timm or
            bcos, such as "timm/vit_small_patch16_224".
        num_classes: number K of logits, at least 1.
        weights: pretrained weights of the backbone, see `find_weights`; none keeps the initial
            values.
        image_size: side of the images, for networks of libraries that are built for one size.

    Raises:
        InputError: the model or weights are unknown, a download fails, the checksum is wrong, or
            the file's keys or shapes do not fit the model.

    Example:
        >>> import torch, mg_core
        >>> model = mg_core.build_model("vanilla_tiny", num_classes=3).eval()
        >>> model(mg_core.encode(model, torch.rand(2, 3, 32, 32))).shape
        torch.Size([2, 3])
    """
    variant = MODELS[name]
    if num_classes < 1:
        raise InputError(f"a model needs at least one class, not {num_classes}")
    if isinstance(variant, LibraryModel):
        model = variant(num_classes, image_size)
        if weights is not None:
            from mg_core.models.networks import load_weights

            path = find_weights(weights, variant.pretrained)
            load_weights(model, variant, path, num_classes, image_size)
        return model
    model = variant(num_classes)
    if weights is not None:
        load_backbone(model, find_weights(weights, variant.pretrained), variant.head, name)
    return model
