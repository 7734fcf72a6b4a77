"""Which attributions and layers can be used with which models."""

from __future__ import annotations

from mg_core.attributions import ATTRIBUTIONS, INPUT, Attribution
from mg_core.errors import InputError
from mg_core.models import MODELS
from mg_core.models.library import LibraryModel


def check_pair(model: str, attribution: str, layer: str) -> None:
    """Refuse an attribution or layer that cannot be used with a registered model.

    Raises:
        InputError: unknown model, attribution or layer, or an attribution that is not defined for
            the model's family, or needs attention that the model has not.
    """
    variant, method = MODELS[model], ATTRIBUTIONS[attribution]
    if not _fits(variant, method):
        fitting = [name for name, other in ATTRIBUTIONS.items() if _fits(variant, other)]
        raise InputError(
            f"attribution {attribution!r} does not fit model {model!r}; "
            f"choose from {', '.join(fitting)}"
        )
    layers = (INPUT, *variant.guidance_layers)
    # Submodules of a library's network are known once it is built; see `check_guidance`.
    if isinstance(variant, LibraryModel):
        return
    if layer not in layers:
        raise InputError(f"model {model!r} has no layer {layer!r}; choose from {', '.join(layers)}")


def _fits(variant: object, method: Attribution) -> bool:
    """Say whether a method is defined for a model, as far as its declaration tells."""
    is_of_family = method.families is None or getattr(variant, "family", None) in method.families
    is_without = getattr(variant, "has_attention", None) is False
    return is_of_family and not (method.reads_attention and is_without)
