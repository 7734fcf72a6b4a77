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
from mg_core.store import ResultStore
from mg_core.store.layout import heatmaps_name
from mg_core.store.progress import Progress

SHOWN = 5
"""Test images of a checkpoint that figures and pages show at most."""

Key = tuple[str, int, str]
"""Trial, epoch and `heatmaps_name` of one file of heat maps."""
Row = dict[str, Any]
"""One row of `mg_core.store.tables.HEATMAPS`."""


@dataclass(frozen=True)
class HeatMap:
    """The map of one class in one test image.

    Attributes:
        image: id of the image.
        class_name: class whose evidence is shown.
        probability: of that class, as the model sees it.
        prediction: class with the largest logit.
        boxes: (n, 4) xmin, ymin, xmax, ymax in pixels of the picture.
        map: (S, S) signed, its largest absolute value 1.
        picture: (S, S, 3) uint8.
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

    Attributes:
        stores: result stores, the first of which that has a file gives it.
        trials: configuration of every trial by id.
        progress: progress of the trials that have committed an epoch.
        made: keys of all heat maps that there are.
        kept: rows of the files read so far.
    """

    stores: tuple[ResultStore, ...]
    trials: Mapping[str, TrialConfig]
    progress: Mapping[str, Progress]
    made: frozenset[Key]
    kept: dict[Key, list[Row]] = field(default_factory=dict)

    def key(self, trial_id: str, epoch: int, pair: EvaluationPair) -> Key | None:
        """Return the key of a checkpoint's heat maps, none where none were made.

        Args:
            trial_id: guided trial or baseline; one that others published has no heat maps.
            epoch: epoch of that trial; 0 of a guided one is its baseline's checkpoint.
            pair: attribution and layer that the maps are of.
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

    def rows(self, key: Key) -> list[Row]:
        """Return the rows of the first images, in their order."""
        if key not in self.kept:
            tables = (store.heatmaps(*key) for store in self.stores)
            found = next((table for table in tables if len(table)), None)
            self.kept[key] = [] if found is None else found.slice(0, SHOWN).to_pylist()
        return self.kept[key]

    def load(self, key: Key | None) -> list[HeatMap]:
        """Return the heat maps of the first images, no map for no key."""
        return [_heat_map(row) for row in self.rows(key)] if key else []


def task_of(config: TrialConfig) -> str | None:
    """Return which label a trial learns, for a data set with several."""
    return config.guidance.task if config.guidance else None


def _heat_map(row: Row) -> HeatMap:
    size = row["size"]
    return HeatMap(
        image=row["image"],
        class_name=row["class_name"],
        probability=row["probability"],
        prediction=row["prediction"],
        boxes=np.asarray(row["boxes"], dtype=np.float64).reshape(-1, 4),
        map=np.frombuffer(row["map"], dtype="<f2").astype(np.float32).reshape(size, size),
        picture=np.asarray(Image.open(io.BytesIO(row["picture"])).convert("RGB")),
    )
