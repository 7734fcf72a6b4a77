"""How the trials of a block of the grid are guided: the product of its axes of guidance."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, product
from typing import Any

from mg_core.config import NONE, GuidanceConfig, TrialConfig
from mg_core.data.annotations import check_annotation
from mg_core.errors import InputError
from mg_core.recipe import Named, named
from sweeps.spec import BlockSpec
from sweeps.texts import pieces

GUIDANCE_AXES = [name for name in GuidanceConfig.model_fields if name in BlockSpec.model_fields]
PLACE, WEIGHT = ("attribution", "layer", "loss"), "localization_weight"


def guidances(block: BlockSpec) -> list[tuple[GuidanceConfig, str]]:
    """Return the guidance of each combination of a block, for any model and seed.

    Where nothing is annotated, no loss or layer makes a difference: such combinations are one.

    Returns:
        Pairs of a guidance and its canonical text.
    """
    found: list[tuple[GuidanceConfig, str]] = []
    unguided: dict[GuidanceConfig, None] = {}
    others = [_axis(block, name) for name in GUIDANCE_AXES if name not in PLACE]
    for attribution, layer, loss in product(block.attribution, block.layer, block.loss):
        place = {"attribution": attribution, "layer": layer, "loss": loss}
        # Those that differ in λ alone are checked, and made into text, once.
        kinds = [
            GuidanceConfig(**place, localization_weight=0.0, **dict(chain(*map(dict.items, parts))))
            for parts in product(*others)
        ]
        unguided |= dict.fromkeys(_unguided(kind.task) for kind in kinds if kind.is_none)
        guided = [(kind, pieces(kind, WEIGHT)) for kind in kinds if not kind.is_none]
        for weight, (kind, text) in product(block.loss[loss], guided):
            guidance = kind.model_copy(update={WEIGHT: weight})
            found.append((guidance, json.dumps(weight).join(text)))
    return [*found, *((guidance, guidance.canonical) for guidance in unguided)]


def check_annotations(block: BlockSpec, where: str) -> None:
    """Refuse an annotation that is unknown or wrong, and two ways to dilate a box at once.

    Raises:
        InputError: names the key, which is below `where`.
    """
    for value in block.annotation or ():
        try:
            check_annotation(value)
        except InputError as error:
            raise InputError(f"{where}.annotation: {error}") from None
        if any(block.box_dilation) and value != named("box"):
            raise InputError(
                f"{where}.box_dilation: it dilates the annotation box, and there is {value} too; "
                "write the dilation of boxes as an annotation, such as {box: {dilate: 0.25}}"
            )


def annotations_of(trials: Iterable[TrialConfig]) -> list[Named]:
    """Return the annotations that trials are guided by, each once."""
    return list(dict.fromkeys(c.guidance.annotation for c in trials if c.guidance))


def _axis(block: BlockSpec, name: str) -> list[dict[str, Any]]:
    """Return the settings of each value of an axis."""
    if name == "annotation":
        return [{name: check_annotation(value)} for value in block.annotation or ("box",)]
    return [{name: value} for value in getattr(block, name) or (None,)]


def _unguided(task: str | None) -> GuidanceConfig:
    """Return the guidance of a trial that is trained further without any."""
    return GuidanceConfig(
        attribution=NONE,
        layer=NONE,
        loss=NONE,
        localization_weight=0.0,
        reduction="sum",
        annotated_fraction=1.0,
        box_dilation=0.0,
        task=task,
        annotation=named(NONE),
    )
