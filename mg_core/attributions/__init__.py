"""Attribution maps at any layer of any model, from the forward pass that gives the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.attributions.methods import ATTRIBUTIONS, INPUT, Attribution
from mg_core.lazy import importing

if TYPE_CHECKING:
    from mg_core.attributions.explanation import Explanation, attribute, explain, upsample

__all__ = [
    "ATTRIBUTIONS",
    "INPUT",
    "Attribution",
    "Explanation",
    "attribute",
    "explain",
    "upsample",
]
__getattr__ = importing(
    __name__,
    dict.fromkeys(
        ("Explanation", "attribute", "explain", "upsample"), "mg_core.attributions.explanation"
    ),
)
