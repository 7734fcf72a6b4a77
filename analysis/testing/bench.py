"""Test evaluation of the checkpoints that validation selects, and of no others.

Work goes by checkpoint: its weights are loaded once and everything that is asked of them is
computed in one pass over the test split. Epoch 0 of all guided trials of a baseline is one such
checkpoint, the baseline's own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from analysis.checkpoints import are_finite
from analysis.results import Results
from analysis.testing.plan import Job, Target
from mg_core.columns import KEY
from mg_core.config import NUMERICS_VERSION, Runtime, TrialConfig, parse
from mg_core.data import open_data
from mg_core.errors import InputError, StorageError
from mg_core.models import build_model
from mg_core.store import ResultStore
from mg_core.store.layout import SPEC, heatmaps_name
from mg_core.training.evaluation import Evaluation, averages, breakdown, evaluate
from mg_core.training.failures import failure_kind
from mg_core.training.heatmaps import heat_maps, shown_images
from mg_core.training.interventions import Interventions, intervene
from mg_core.training.trial import prepare_process

if TYPE_CHECKING:
    from mg_core.data import Data, Split
    from mg_core.data.reader import Progress

HEATMAPS = 8
"""Test images whose heat maps are stored for every checkpoint, unless told otherwise."""


def run_tests(
    jobs: Iterable[Job],
    runtime: Runtime,
    n_heatmaps: int = HEATMAPS,
    data_progress: Progress | None = None,
) -> Iterator[str | None]:
    """Evaluate checkpoints on the test split, and write the rows of each before the next.

    An interrupted run therefore goes on where it was. `data_progress` is told of images that are
    decoded on first use.

    Yields:
        None, or one sentence on why the checkpoint could not be tested.

    Raises:
        InputError: the data are missing, or differ from those of the sweep.
    """
    bench = Bench(runtime, n_heatmaps, data_progress)
    for job in jobs:
        yield bench.test(job)


def runtime_of(
    results: Results, data_root: str | None = None, device: str | None = None
) -> Runtime:
    """Return where and how to test the checkpoints of one store: as its sweep trained them.

    Another folder of the data set, or another device, may be named.
    """
    spec, data = results.spec, results.spec.get("data") or {}
    cpus = (spec.get("resources") or {}).get("cpu") or 1
    values = {
        "store": results.store.uri,
        "data_root": data_root or data.get("root"),
        "cache": data.get("cache"),
        "device": device or spec.get("device") or "auto",
        "threads": max(1, int(cpus)),
        "imports": tuple(spec.get("imports") or ()),
        "deterministic": spec.get("deterministic", True),
    }
    return parse(Runtime, values, f"{results.store.uri}/{SPEC}")


class Bench:
    """Data sets and models that stay open from one checkpoint to the next; see `run_tests`."""

    def __init__(
        self, runtime: Runtime, n_heatmaps: int, data_progress: Progress | None = None
    ) -> None:
        self._store = ResultStore(runtime.store)
        self._runtime = runtime
        self._n_heatmaps = n_heatmaps
        self._data_progress = data_progress
        self._device = prepare_process(runtime)
        self._data: dict[str, Data] = {}
        self._models: dict[tuple[str, int, int], torch.nn.Module] = {}

    def test(self, job: Job) -> str | None:
        """Evaluate one checkpoint and write what is asked of it; return why where that fails.

        Raises:
            InputError: the data are missing or differ, or other code trained the checkpoint.
        """
        if job.config.numerics != NUMERICS_VERSION:
            raise InputError(
                f"trial {job.config.trial_id} was trained with numerics version "
                f"{job.config.numerics}, this package computes version {NUMERICS_VERSION}; test "
                "with the release that trained"
            )
        data = self._open(job.config)
        model = self._model(job.config, len(data.classes))
        try:
            weights = self._store.weights(job.weights, job.digest)
            model.load_state_dict(weights)
        except StorageError as error:
            return f"checkpoint {error.strerror}"
        except RuntimeError as error:
            return (
                f"checkpoint {job.weights} does not fit its model: {' '.join(str(error).split())}"
            )
        if not are_finite(weights):
            return f"checkpoint {job.weights} holds weights that are not finite"
        try:
            problems = [
                self._write_heatmaps(job, model, data),
                self._write_rows(job, model, data),
            ]
            return "; ".join(filter(None, problems)) or None
        # PyTorch has no error of its own for the memory of a CPU.
        except (RuntimeError, MemoryError) as error:
            kind = failure_kind(error)
            if kind not in ("gpu-memory", "host-memory"):
                raise
            place = self._device if kind == "gpu-memory" else "this machine"
            return f"checkpoint {job.weights}: {place} has too little memory free to test it"

    def _write_rows(self, job: Job, model: torch.nn.Module, data: Data) -> str | None:
        if not job.targets:
            return None
        split = _test_split(data, job.task)
        found = evaluate(model, split, job.pairs, job.config.batch_size, self._device)
        if not math.isfinite(found.classification["bce"]):
            return f"checkpoint {job.weights} gives logits that are not finite"
        changed = intervene(model, split, job.pairs, job.config.batch_size, self._device)
        by_trial: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for target in job.targets:
            row = result_row(target, found, changed, len(data.classes))
            by_trial[target.trial_id, target.epoch].append(row)
        for (trial_id, epoch), rows in by_trial.items():
            self._store.put_test(trial_id, epoch, rows)
        return None

    def _write_heatmaps(self, job: Job, model: torch.nn.Module, data: Data) -> str | None:
        if not job.shown or not self._n_heatmaps:
            return None
        split = _test_split(data, job.task)
        trial_id, epoch = job.owner
        shown = shown_images(split, self._n_heatmaps)
        found = heat_maps(model, split, shown, job.shown, self._device)
        for pair, rows in found.items():
            own = {"trial_id": trial_id, "epoch": epoch, "task": job.task}
            name = heatmaps_name(pair, job.task)
            self._store.put_heatmaps(trial_id, epoch, name, [own | row for row in rows])
        broken = ", ".join(str(pair) for pair in job.shown if pair not in found)
        return (
            f"checkpoint {job.weights} gives maps that are not finite: {broken}" if broken else None
        )

    def _open(self, config: TrialConfig) -> Data:
        key, root = config.data.key, self._runtime.data_root
        if key not in self._data:
            data = open_data(config.data, root, self._runtime.cache, self._data_progress)
            place = root or "the generated data set"
            self._store.record_fingerprint(key, data.fingerprint, place, data.former_fingerprint)
            self._data[key] = data
        return self._data[key]

    def _model(self, config: TrialConfig, n_classes: int) -> torch.nn.Module:
        key = (config.model, n_classes, config.data.image_size)
        if key not in self._models:
            # Pretrained weights would only be overwritten.
            self._models[key] = build_model(
                config.model, n_classes, image_size=config.data.image_size
            ).to(self._device)
        return self._models[key]


def _test_split(data: Data, task: str | None) -> Split:
    """Return the test split, of which F1 would be 0 for every model if it had no labels.

    Raises:
        InputError: it has none, or cannot be read.
    """
    split = data.split("test", task)
    if not split.labels.any():
        raise InputError("no image of the test split has a label, so no model can be tested")
    return split


def result_row(
    target: Target, evaluation: Evaluation, changed: Interventions, n_classes: int
) -> dict[str, Any]:
    """Return one row of the test table."""
    values = evaluation.classification | changed.swapped
    if target.pair is not None:
        scores = evaluation.scores[target.pair]
        values |= averages(scores, target.iou_threshold) | breakdown(scores, n_classes)
        values |= changed.perturbed[target.pair]
    row = dict(zip(KEY, target.key, strict=True))
    return row | {f"test_{name}": value for name, value in values.items()}
