"""Everything one trial of a guidance sweep needs; knows neither Ray nor the grid.

The names in `__all__` are public and stay; everything else is private and may change. Importing
this package imports no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from mg_core.attributions import ATTRIBUTIONS, Attribution, attribute
    from mg_core.attributions.overlay import overlay
    from mg_core.config import EvaluationPair
    from mg_core.data import DATASETS, Data, Reader, Split, boxes_to_masks, load_image, open_data
    from mg_core.data.annotations import ANNOTATIONS, Located, annotation_masks
    from mg_core.data.reader import Box, Record, Task
    from mg_core.errors import InputError
    from mg_core.guidance import Batch, Guidance, StepLosses, guided_loss, guided_step
    from mg_core.losses import CLASSIFICATION_LOSSES, LOSSES, Evidence, informed
    from mg_core.metrics import epg, iou, pointing_game
    from mg_core.models import MODELS, Model, build_model, encode
    from mg_core.training.evaluation import Evaluation, evaluate
    from mg_core.training.schedule import SCHEDULES

_HOMES = {
    "mg_core.attributions": ("ATTRIBUTIONS", "Attribution", "attribute"),
    "mg_core.attributions.overlay": ("overlay",),
    "mg_core.config": ("EvaluationPair",),
    "mg_core.data": (
        "DATASETS",
        "Data",
        "Reader",
        "Split",
        "boxes_to_masks",
        "load_image",
        "open_data",
    ),
    "mg_core.data.annotations": ("ANNOTATIONS", "Located", "annotation_masks"),
    "mg_core.data.reader": ("Box", "Record", "Task"),
    "mg_core.errors": ("InputError",),
    "mg_core.guidance": ("Batch", "Guidance", "StepLosses", "guided_loss", "guided_step"),
    "mg_core.losses": ("CLASSIFICATION_LOSSES", "LOSSES", "Evidence", "informed"),
    "mg_core.metrics": ("epg", "iou", "pointing_game"),
    "mg_core.models": ("MODELS", "Model", "build_model", "encode"),
    "mg_core.training.evaluation": ("Evaluation", "evaluate"),
    "mg_core.training.schedule": ("SCHEDULES",),
}

__all__ = [
    "ANNOTATIONS", "ATTRIBUTIONS", "CLASSIFICATION_LOSSES", "DATASETS", "LOSSES", "MODELS",
    "SCHEDULES", "Attribution", "Batch", "Box", "Data", "Evaluation", "EvaluationPair", "Evidence",
    "Guidance", "InputError", "Located", "Model", "Reader", "Record", "Split", "StepLosses", "Task",
    "annotation_masks", "attribute", "boxes_to_masks", "build_model", "encode", "epg", "evaluate",
    "guided_loss", "guided_step", "informed", "iou", "load_image", "open_data", "overlay",
    "pointing_game",
]  # fmt: skip
__getattr__ = importing(__name__, {name: home for home, names in _HOMES.items() for name in names})
