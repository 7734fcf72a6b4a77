"""The backbones of the study and their small siblings, in one registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.errors import InputError
from mg_core.lazy import importing
from mg_core.models import bcos, vanilla, xdnn  # noqa: F401  # they register their variants
from mg_core.models.architecture import MODELS, Architecture, architecture
from mg_core.models.weights import WeightFile, find_weights, load_backbone

if TYPE_CHECKING:
    from mg_core.models.base import Model

__all__ = ["MODELS", "Architecture", "Model", "WeightFile", "architecture", "build_model"]
__getattr__ = importing(__name__, {"Model": "mg_core.models.base"})


def build_model(name: str, num_classes: int, weights: str | None = None) -> Model:
    """Build a registered model with a new multi-label head.

    Initial values come from torch's global generator: call `torch.manual_seed` first. The head is
    drawn anew whatever the weights are, so that the same seed gives the same head.

    Args:
        name: registered model.
        num_classes: logits K.
        weights: of the backbone: a name in the model's `pretrained`, an http(s) address or a path
            (both may end in `#sha256=…`); none keeps the initial values.

    Raises:
        InputError: unknown model or weights, a failed download, a wrong checksum, or a file whose
            keys or shapes are not the model's.
    """
    variant = MODELS[name]
    if num_classes < 1:
        raise InputError(f"a model needs at least one class, not {num_classes}")
    model = variant(num_classes)
    if weights is not None:
        load_backbone(model, find_weights(weights, variant.pretrained), variant.head, name)
    return model
