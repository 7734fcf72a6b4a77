"""Attribution maps at any layer, for any model, out of the forward pass that gives the logits."""

from mg_core.attributions.explanation import INPUT, Explanation, attribute, explain, upsample
from mg_core.attributions.methods import ATTRIBUTIONS, Attribution

__all__ = [
    "ATTRIBUTIONS",
    "INPUT",
    "Attribution",
    "Explanation",
    "attribute",
    "explain",
    "upsample",
]
