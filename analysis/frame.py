"""The store's rows as pandas frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pandas as pd
import pyarrow as pa

from mg_core.errors import InputError
from mg_core.store import ResultStore, reading
from mg_core.store import tables as schema

StoreLike = str | os.PathLike[str] | ResultStore

KEY = ["trial_id", "epoch", "attribution", "layer"]
"""What a row is about; test rows join the others on it."""

WITHOUT_NULLS = ["attempt", "image_size", "seed", "epochs", "batch_size", "epoch"]

_CONFIGURATION = {
    "trial_id": "identity of the trial, a hash of its configuration",
    "kind": "baseline or guided",
    "dataset": "registered data set",
    "dataset_options": "settings of the data set's own, as JSON",
    "image_size": "pixels on each side",
    "horizontal_flip": "whether training images are flipped with probability 1/2",
    "model": "registered model",
    "weights": "initial weights of the baseline; missing where it starts from scratch",
    "seed": "of initialisation, shuffling, class draws and annotation subsets",
    "epochs": "passes over the training split that make the trial complete",
    "learning_rate": "of Adam",
    "batch_size": "images a step",
    "precision": "of the training step",
    "baseline": "trial the guided one starts from; missing for a baseline",
    "guided_attribution": "attribution whose maps are guided",
    "guided_layer": "layer at which they are taken",
    "loss": "localization loss",
    "localization_weight": "λ of Eq. 1",
    "reduction": "how the losses of a batch's annotated images are combined",
    "annotated_fraction": "share of the training images that keep their boxes",
    "box_dilation": "share of its size a training box grows by on each side",
    "task": "which label is learnt, for data sets with several",
}
_ROW = {
    "epoch": "0 is the baseline's checkpoint before any guided update",
    "attribution": "evaluated attribution; missing for a baseline",
    "layer": "evaluated layer; missing for a baseline",
    "train_loss": "mean over the epoch's steps",
    "train_bce": "classification part of the loss, mean over steps",
    "train_localization_loss": "localization part before λ, mean over steps",
    "n_annotated": "images guided in the epoch",
    "attempt": "run of the trial that wrote the row",
    "seconds_train": "training time of the epoch",
    "seconds_val": "validation time of the epoch",
    "seconds_step": "mean time of a training step",
}
_METRICS = {
    "f1": "micro F1 over all (image, class) decisions",
    "precision": "micro precision",
    "recall": "micro recall",
    "map": "macro mean of average precision",
    "bce": "binary cross-entropy",
    "n_images": "images of the split",
    "n_classes_without_positives": "classes left out of map",
    "accuracy": "share of images whose largest logit is their class, for data with groups",
    "accuracy_group_0": "accuracy of landbirds on land",
    "accuracy_group_1": "accuracy of landbirds on water",
    "accuracy_group_2": "accuracy of waterbirds on land",
    "accuracy_group_3": "accuracy of waterbirds on water",
    "accuracy_worst_group": "accuracy of waterbirds on land, the worst group of Table 1",
    "accuracy_min_group": "lowest accuracy of a group",
    "epg": "mean energy pointing game over (image, ground-truth class) pairs",
    "iou": "mean IoU at iou_threshold",
    "iou_threshold": "the threshold with the highest mean validation IoU",
    "iou_at_0.5": "mean IoU at threshold 0.5",
    "iou_by_threshold": "mean IoU at every threshold of the grid",
    "n_pairs": "(image, ground-truth class) pairs",
    "n_without_energy": "pairs whose map has no positive value; they count 0",
    "n_empty_mask": "pairs whose boxes cover no pixel; they count 0",
    "box_area": "mean share of the image inside the boxes: the EPG of a uniform map",
    "on_object": "mean share of the in-box energy that is on the object",
    "n_on_object": "pairs with a segmentation mask and energy in the box",
}
_TEST_ONLY = {
    "epg_by_class": "mean EPG of each class",
    "epg_by_box_size": "mean EPG by box-area bin (training.evaluation.BOX_SIZE_EDGES)",
}

COLUMNS = {
    **_CONFIGURATION,
    **_ROW,
    **{f"val_{name}": f"validation: {text}" for name, text in _METRICS.items()},
    **{f"test_{name}": f"test: {text}" for name, text in (_METRICS | _TEST_ONLY).items()},
}
"""What each column of `load` and `load_tests` holds; metrics are fractions, not percent."""


def open_store(store: StoreLike) -> ResultStore:
    """Open a store that holds a sweep.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if isinstance(store, ResultStore):
        return store
    opened = ResultStore(os.fspath(store))
    with reading(opened):
        opened.spec()
    return opened


def load(
    store: StoreLike | Sequence[StoreLike], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return every committed row; see `analysis.load`."""
    _check_columns(columns, schema.METRICS)
    return _read_all(store, columns, ResultStore.rows)


def load_tests(
    store: StoreLike | Sequence[StoreLike], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return every test row, to be joined with those of `load` on `KEY`.

    Baselines have one without attribution and layer: their classification.

    Raises:
        InputError: the store is none, cannot be read, or has no such column.
    """
    _check_columns(columns, schema.TEST)
    return _read_all(store, columns, ResultStore.test_rows)


def without_repeats(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the rows of several stores together, each (trial, epoch, attribution, layer) once.

    A trial's id stands for everything that decides its results, so a trial that two stores hold
    is one trial; the rows of the first store are taken.
    """
    if len(frames) == 1:
        return frames[0]
    # Pandas would let the dtypes of an empty frame decide.
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    together = pd.concat(filled, ignore_index=True)
    found: pd.DataFrame = together.drop_duplicates(KEY, ignore_index=True)
    return found


def _read_all(
    store: StoreLike | Sequence[StoreLike],
    columns: Sequence[str] | None,
    read: Callable[[ResultStore, Sequence[str] | None], pa.Table],
) -> pd.DataFrame:
    stores = [store] if isinstance(store, str | os.PathLike | ResultStore) else list(store)
    wanted = None if columns is None else list(dict.fromkeys([*columns, *KEY]))
    frames = []
    for opened in map(open_store, stores):
        with reading(opened):
            # A test row that two processes computed at once stands there twice.
            frames.append(to_frame(read(opened, wanted)).drop_duplicates(KEY, ignore_index=True))
    found = without_repeats(frames)
    return found if columns is None else found[list(columns)]


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table of the store to the documented dtypes."""
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    typed: pd.DataFrame = frame.astype({name: "int64" for name in WITHOUT_NULLS if name in frame})
    return typed


def with_tests(rows: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Add the test columns to rows; those not tested get missing values."""
    joined: pd.DataFrame = rows.merge(tests, how="left", on=KEY, validate="many_to_one")
    return joined


def _check_columns(columns: Sequence[str] | None, shape: pa.Schema) -> None:
    unknown = [name for name in columns or () if name not in shape.names]
    if unknown:
        raise InputError(f"unknown column {unknown[0]!r}; choose from {', '.join(shape.names)}")
