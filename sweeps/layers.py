"""That the layers of a grid are there, in networks that must be built to know."""

from __future__ import annotations

from collections.abc import Mapping

from mg_core.attributions import INPUT
from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.models.study import STUDY_MODELS
from sweeps.grid import Grid


def check_layers(grid: Grid) -> None:
    """Refuse layers that a network does not have; networks outside the study are built for it.

    Raises:
        InputError: names the layer, and those that there are.
    """
    wanted: dict[str, dict[str, None]] = {}
    size = 0
    for config in grid.guided.values():
        if config.model not in STUDY_MODELS:
            layers = wanted.setdefault(config.model, {})
            layers |= dict.fromkeys(_layers_of(config))
            size = config.data.image_size
    for model, layers in wanted.items():
        if layers.keys() != {INPUT}:
            _check_network(model, layers, size)


def _layers_of(config: TrialConfig) -> set[str]:
    own = {config.guidance.layer} if config.guidance else set()
    return own | {pair.layer for pair in config.evaluate}


def _check_network(model: str, layers: Mapping[str, None], size: int) -> None:
    from mg_core.attributions.network import find_layer
    from mg_core.models import build_model

    network = build_model(model, num_classes=2, image_size=size)
    for layer in layers:
        if layer != INPUT:
            try:
                find_layer(network, layer)
            except InputError as error:
                raise InputError(f"grid: model {model!r}: {error}") from None
