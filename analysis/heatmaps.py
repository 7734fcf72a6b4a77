"""Stored heat maps: reading them back, and the one way in which they are drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.frame import KEY
from mg_core.store.result_store import heatmaps_name

if TYPE_CHECKING:
    from analysis.results import Results
    from mg_core.config import EvaluationPair, TrialConfig
    from mg_core.store import ResultStore

PERCENTILE = 99.5
"""Of a map's positive values, that is drawn at full strength: a single peak hides nothing else."""
FULL = np.array([0.86, 0.10, 0.12])
"""Colour of full strength; half of it is lighter and more yellow, so that grey print works too."""
HALF = np.array([1.0, 0.72, 0.20])
PAPER = 0.55
"""How far the picture under a map is bleached."""


@dataclass(frozen=True)
class HeatMap:
    """The map of one class in one test image.

    Attributes:
        image: id of the image.
        class_name: whose evidence is shown.
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


def load_heatmaps(
    results: Results, trial_id: str, epoch: int, pair: EvaluationPair
) -> list[HeatMap]:
    """Return the heat maps of a checkpoint, in the order of the images; none where none were made.

    Args:
        results: of one or several stores.
        trial_id: of a guided trial or a baseline.
        epoch: of that trial; 0 of a guided one is its baseline's checkpoint.
        pair: attribution and layer.
    """
    owner, at = checkpoint_of(results, trial_id, epoch)
    task = task_of(results.trials[trial_id])
    recorded = results.recorded_heatmaps
    if recorded is not None:
        wanted = [owner, at, pair.attribution, pair.layer]
        is_own = (recorded[KEY] == wanted).all(axis=1)
        is_own &= recorded["task"].isna() if task is None else recorded["task"] == task
        own = recorded[is_own]
        return [_heat_map({str(k): v for k, v in row.items()}) for row in own.to_dict("records")]
    name = heatmaps_name(pair, task)
    return next((maps for store in results.stores if (maps := _read(store, owner, at, name))), [])


def has_heatmaps(results: Results, trial_id: str, epoch: int, pair: EvaluationPair) -> bool:
    """Say whether a checkpoint's heat maps were made; see `load_heatmaps`."""
    if trial_id not in results.trials:
        return False
    name = heatmaps_name(pair, task_of(results.trials[trial_id]))
    return (*checkpoint_of(results, trial_id, epoch), name) in results.heatmap_keys


def task_of(config: TrialConfig) -> str | None:
    """Return which label a trial learns, for a data set with several."""
    return config.guidance.task if config.guidance else None


def checkpoint_of(results: Results, trial_id: str, epoch: int) -> tuple[str, int]:
    """Return the trial and epoch whose checkpoint it is: at epoch 0 the baseline's best."""
    baseline = results.trials[trial_id].baseline
    if epoch or baseline is None or baseline not in results.progress:
        return trial_id, epoch
    return baseline, next(iter(results.progress[baseline].checkpoints), 0)


def overlay(heat_map: HeatMap) -> NDArray[np.uint8]:
    """Draw positive attributions over the picture, which is bleached and grey below.

    Strength is relative to the map's own `PERCENTILE`, so that maps show where evidence lies and
    not how much of it there is.

    Returns:
        (S, S, 3) uint8.
    """
    grey = np.asarray(heat_map.picture, dtype=np.float64).mean(axis=2, keepdims=True) / 255
    base = PAPER + (1 - PAPER) * grey
    strength = relative_strength(heat_map.map)[..., None]
    colour = np.where(
        strength < 0.5,
        HALF,
        HALF + (FULL - HALF) * (2 * strength - 1),
    )
    alpha = np.minimum(1.0, 1.7 * strength)
    drawn = base + alpha * (colour - base)
    found: NDArray[np.uint8] = np.rint(255 * np.clip(drawn, 0, 1)).astype(np.uint8)
    return found


def relative_strength(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return positive attributions over their `PERCENTILE`, cut at 1."""
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0)
    seen = positive[positive > 0]
    if not len(seen):
        return positive
    strength: NDArray[np.float64] = np.clip(positive / np.percentile(seen, PERCENTILE), 0, 1)
    return strength


def _read(store: ResultStore, trial_id: str, epoch: int, name: str) -> list[HeatMap]:
    return [_heat_map(row) for row in store.heatmaps(trial_id, epoch, name).to_pylist()]


def _heat_map(row: Mapping[str, Any]) -> HeatMap:
    size = row["size"]
    picture = np.asarray(Image.open(io.BytesIO(row["picture"])).convert("RGB"))
    return HeatMap(
        image=row["image"],
        class_name=row["class_name"],
        probability=row["probability"],
        prediction=row["prediction"],
        boxes=np.asarray(row["boxes"], dtype=np.float64).reshape(-1, 4),
        map=np.frombuffer(row["map"], dtype="<f2").astype(np.float32).reshape(size, size),
        picture=picture,
    )
