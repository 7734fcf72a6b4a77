"""Stored heat maps of test images, read back once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mg_core.config import EvaluationPair, TrialConfig
from mg_core.data import DATASETS
from mg_core.data.dataset import variant_of
from mg_core.errors import InputError, StorageError
from mg_core.store import ResultStore
from mg_core.store.layout import heatmaps_key, heatmaps_name
from mg_core.store.progress import Progress

SHOWN = 5
"""Test images of a checkpoint that figures and pages show at most."""

Key = tuple[str, int, str]
"""Trial, epoch and `heatmaps_name` of one file of heat maps."""
Row = dict[str, Any]
"""One row of `mg_core.store.tables.HEATMAPS`."""


@dataclass(frozen=True)
class HeatMap:
    """The evidence for one class in one test image.

    `probability` is that of the class, `prediction` the class with the largest logit. `boxes`
    (n, 4) are xmin, ymin, xmax, ymax in pixels of the picture (S, S, 3); the map (S, S) is signed,
    its largest absolute value 1.
    """

    image: str
    class_name: str
    probability: float
    prediction: str
    boxes: NDArray[np.float64]
    map: NDArray[np.float32]
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class HeatMaps:
    """Reader of heat maps that keeps the first `SHOWN` images of each file, as they are stored.

    A file is read from the first store that has it. `made` are the keys of all heat maps that
    there are, `kept` the rows of the files read so far.
    """

    stores: tuple[ResultStore, ...]
    trials: Mapping[str, TrialConfig]
    progress: Mapping[str, Progress]
    made: frozenset[Key]
    kept: dict[Key, list[Row]] = field(default_factory=dict)

    def key(self, trial_id: str, epoch: int, pair: EvaluationPair) -> Key | None:
        """Return the key of a checkpoint's heat maps, none where none were made.

        Epoch 0 of a guided trial is its baseline's checkpoint. A trial that others published has
        no heat maps.
        """
        if trial_id not in self.trials:
            return None
        name = heatmaps_name(pair, task_of(self.trials[trial_id]))
        key = (*self.checkpoint(trial_id, epoch), name)
        return key if key in self.made else None

    def checkpoint(self, trial_id: str, epoch: int) -> tuple[str, int]:
        """Return the trial and epoch whose checkpoint it is: at epoch 0 the baseline's best."""
        baseline = self.trials[trial_id].baseline
        if epoch or baseline is None or baseline not in self.progress:
            return trial_id, epoch
        return baseline, next(iter(self.progress[baseline].checkpoints), 0)

    def is_outside(self, trial_id: str) -> bool:
        """Tell whether the evidence of a trial's task lies outside the boxes."""
        config = self.trials.get(trial_id)
        # A set of someone's own may not be registered where its results are looked at.
        if config is None or config.data.name not in DATASETS:
            return False
        variant, options = variant_of(config.data)
        task = task_of(config) or next(iter(variant.task_names(options)), None)
        return task is not None and variant.is_outside(task, options)

    def rows(self, key: Key) -> list[Row]:
        """Return the rows of the first images, in their order."""
        if key not in self.kept:
            tables = (store.heatmaps(*key) for store in self.stores)
            found = next((table for table in tables if len(table)), None)
            self.kept[key] = [] if found is None else found.slice(0, SHOWN).to_pylist()
        return self.kept[key]

    def load(self, key: Key | None) -> list[HeatMap]:
        """Return the heat maps of the first images, no map for no key.

        Raises:
            InputError: the file holds something else.
        """
        if key is None:
            return []
        try:
            return [_heat_map(row) for row in self.rows(key)]
        except StorageError:
            raise
        except (KeyError, TypeError, ValueError, OSError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{heatmaps_key(*key)} holds heat maps that cannot be shown ({reason}); remove "
                "this file, and `mg-analysis test` makes them again"
            ) from None


def task_of(config: TrialConfig) -> str | None:
    """Return which label a trial learns, for a data set with several."""
    return config.guidance.task if config.guidance else None


def _heat_map(row: Row) -> HeatMap:
    size = row["size"]
    values = np.frombuffer(row["map"], dtype="<f2").astype(np.float32).reshape(size, size)
    boxes = np.asarray(row["boxes"], dtype=np.float64).reshape(-1, 4)
    picture = np.asarray(Image.open(io.BytesIO(row["picture"])).convert("RGB"))
    if not size or picture.shape[:2] != (size, size):
        raise ValueError(f"a map of {size} and a picture of {picture.shape[:2]} pixels")
    if not (np.isfinite(values).all() and np.isfinite(boxes).all()):
        raise ValueError("a value that is not finite")
    return HeatMap(
        image=str(row["image"]),
        class_name=str(row["class_name"]),
        probability=float(row["probability"]),
        prediction=str(row["prediction"]),
        boxes=boxes,
        map=values,
        picture=picture,
    )
