"""The columns of the result table: every swept parameter, then every metric, all of them typed."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mg_core.config import TrialConfig

CONFIG_FIELDS: list[tuple[str, Any]] = [
    ("trial_id", pa.string()),
    ("kind", pa.string()),
    ("dataset", pa.string()),
    ("dataset_options", pa.string()),
    ("image_size", pa.int32()),
    ("horizontal_flip", pa.bool_()),
    ("model", pa.string()),
    ("weights", pa.string()),
    ("seed", pa.int64()),
    ("epochs", pa.int32()),
    ("learning_rate", pa.float64()),
    ("batch_size", pa.int32()),
    ("precision", pa.string()),
    ("baseline", pa.string()),
    ("guided_attribution", pa.string()),
    ("guided_layer", pa.string()),
    ("loss", pa.string()),
    ("localization_weight", pa.float64()),
    ("reduction", pa.string()),
    ("annotated_fraction", pa.float64()),
    ("box_dilation", pa.float64()),
    ("task", pa.string()),
]
"""What the trial is; the same in all of its rows."""

KEY_FIELDS: list[tuple[str, Any]] = [
    ("epoch", pa.int32()),
    ("attribution", pa.string()),
    ("layer", pa.string()),
]
"""With `trial_id`, what a row is about; attribution and layer are null for a baseline."""

TRAIN_FIELDS: list[tuple[str, Any]] = [
    ("train_loss", pa.float64()),
    ("train_bce", pa.float64()),
    ("train_localization_loss", pa.float64()),
    ("n_annotated", pa.int64()),
]
"""Means over the epoch's steps, and how many images were guided; null at epoch 0."""

CLASSIFICATION_FIELDS: list[tuple[str, Any]] = [
    ("f1", pa.float64()),
    ("precision", pa.float64()),
    ("recall", pa.float64()),
    ("map", pa.float64()),
    ("bce", pa.float64()),
    ("n_images", pa.int64()),
    ("n_classes_without_positives", pa.int64()),
]

GROUP_FIELDS: list[tuple[str, Any]] = [
    ("accuracy", pa.float64()),
    ("accuracy_group_0", pa.float64()),
    ("accuracy_group_1", pa.float64()),
    ("accuracy_group_2", pa.float64()),
    ("accuracy_group_3", pa.float64()),
    ("accuracy_worst_group", pa.float64()),
    ("accuracy_min_group", pa.float64()),
]
"""Null for data sets without groups, and for groups without images in the split."""

LOCALIZATION_FIELDS: list[tuple[str, Any]] = [
    ("epg", pa.float64()),
    ("iou", pa.float64()),
    ("iou_threshold", pa.float64()),
    ("iou_at_0.5", pa.float64()),
    ("iou_by_threshold", pa.list_(pa.float64())),
    ("n_pairs", pa.int64()),
    ("n_without_energy", pa.int64()),
    ("n_empty_mask", pa.int64()),
    ("box_area", pa.float64()),
    ("on_object", pa.float64()),
    ("n_on_object", pa.int64()),
]

TEST_ONLY_FIELDS: list[tuple[str, Any]] = [
    ("epg_by_class", pa.list_(pa.float64())),
    ("epg_by_box_size", pa.list_(pa.float64())),
]

TIME_FIELDS: list[tuple[str, Any]] = [
    ("attempt", pa.int32()),
    ("seconds_train", pa.float64()),
    ("seconds_val", pa.float64()),
    ("seconds_step", pa.float64()),
]
"""What may differ between two runs of the same trial: which attempt wrote the row, and times."""


def _of_split(split: str, fields: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(f"{split}_{name}", kind) for name, kind in fields]


METRICS = pa.schema(
    [
        *CONFIG_FIELDS,
        *KEY_FIELDS,
        *TRAIN_FIELDS,
        *_of_split("val", CLASSIFICATION_FIELDS),
        *_of_split("val", GROUP_FIELDS),
        *_of_split("val", LOCALIZATION_FIELDS),
        *TIME_FIELDS,
    ]
)
"""Rows of `metrics/`: one for each (trial, epoch, evaluated attribution, evaluated layer)."""

TEST = pa.schema(
    [
        ("trial_id", pa.string()),
        *KEY_FIELDS,
        *_of_split("test", CLASSIFICATION_FIELDS),
        *_of_split("test", GROUP_FIELDS),
        *_of_split("test", LOCALIZATION_FIELDS),
        *_of_split("test", TEST_ONLY_FIELDS),
    ]
)
"""Rows of `test/`, which join those of `metrics/` on trial, epoch, attribution and layer."""

HEATMAPS = pa.schema(
    [
        ("trial_id", pa.string()),
        *KEY_FIELDS,
        ("task", pa.string()),
        ("image", pa.string()),
        ("class_name", pa.string()),
        ("probability", pa.float64()),
        ("prediction", pa.string()),
        ("size", pa.int32()),
        ("map", pa.binary()),
        ("boxes", pa.list_(pa.float64())),
        ("picture", pa.binary()),
    ]
)
"""Rows of `heatmaps/`: one for each (checkpoint, pair, test image) that is shown.

`map` is the signed map at input resolution over its largest absolute value, float16 in
little-endian rows of `size`; `boxes` are those of the class, four numbers each (xmin, ymin, xmax,
ymax); `picture` is a JPEG of the image as the model sees it. `probability` is the model's of the
class, `prediction` the class with its largest logit.
"""


def config_columns(config: TrialConfig) -> dict[str, Any]:
    """Return the values of `CONFIG_FIELDS` for a trial."""
    own = {name for name, _ in CONFIG_FIELDS}
    values = {name: value for name, value in config.model_dump().items() if name in own}
    guidance = config.guidance.model_dump() if config.guidance else {}
    guidance["guided_attribution"] = guidance.pop("attribution", None)
    guidance["guided_layer"] = guidance.pop("layer", None)
    return (
        values
        | guidance
        | {
            "trial_id": config.trial_id,
            "kind": config.kind,
            "dataset": config.data.name,
            "dataset_options": json.dumps(config.data.options),
            "image_size": config.data.image_size,
            "horizontal_flip": config.data.horizontal_flip,
        }
    )


def to_parquet(table: pa.Table) -> bytes:
    """Serialise a table in memory.

    Tables have few rows in many columns, so what costs is each column's own: LZ4, no statistics,
    and dictionaries for text alone are read three times as fast as the defaults with Zstandard,
    and take less space.
    """
    buffer = io.BytesIO()
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table, buffer, compression="lz4", write_statistics=False, use_dictionary=texts or False
    )
    return buffer.getvalue()
