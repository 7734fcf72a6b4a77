"""Attributions and layers of a sweep, as a model has them."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from mg_core.config import EvaluationPair, GuidanceConfig
from mg_core.errors import InputError
from mg_core.guidance.pairs import check_pair
from sweeps.spec import SweepSpec

AtLayer = TypeVar("AtLayer", GuidanceConfig, EvaluationPair)


def at_module(spec: SweepSpec, model: str, place: AtLayer) -> AtLayer:
    """Return a place at the module that `layers` names for its layer, if it names one."""
    module = spec.layers.get(model, {}).get(place.layer)
    return place.model_copy(update={"layer": module}) if module else place


@cache
def misfit(model: str, attribution: str, layer: str) -> str | None:
    """Say why an attribution and layer cannot be used with a model; none if they can."""
    try:
        check_pair(model, attribution, layer)
    except InputError as error:
        return str(error)
    return None
