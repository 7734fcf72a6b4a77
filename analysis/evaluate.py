"""Test evaluation of the checkpoints that validation selects, and of no others.

Work goes by checkpoint: its weights are loaded once and everything that is asked of them is
computed in one pass over the test split. Epoch 0 of all guided trials of a baseline is one such
checkpoint, the baseline's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from safetensors import SafetensorError

from analysis.frame import KEY
from analysis.plan import Job, Target
from analysis.results import Results
from mg_core import schema
from mg_core.config import NUMERICS_VERSION, Runtime, TrialConfig, parse
from mg_core.data import open_data
from mg_core.errors import InputError
from mg_core.models import build_model
from mg_core.store import ResultStore
from mg_core.training.evaluation import Evaluation, breakdown, evaluate, localization
from mg_core.training.trial import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from mg_core.data import Data

    DataProgress = Callable[[str, int, int], None]


def run_tests(
    results: Results,
    jobs: Iterable[Job],
    runtime: Runtime,
    data_progress: DataProgress | None = None,
) -> Iterator[str | None]:
    """Evaluate checkpoints on the test split and write their rows, yielding after each.

    What a checkpoint's rows need is in the store once it is yielded, so an interrupted run goes
    on where it was.

    Args:
        results: of the store.
        jobs: as `plan_tests` lists them.
        runtime: where the data are and on which device to work.
        data_progress: told of images decoded on first use.

    Yields:
        None, or one sentence on why the checkpoint could not be tested.

    Raises:
        InputError: the data are missing, or differ from those of the sweep.
    """
    bench = _Bench(results.store, runtime, data_progress)
    rows = _rows_by_trial(results.store)
    for job in jobs:
        try:
            new = bench.test(job)
        except _UnreadableError as error:
            yield str(error)
            continue
        for row in new:
            rows[row["trial_id"]][_key(row)] = row
        for trial_id in {row["trial_id"] for row in new}:
            table = pa.Table.from_pylist(list(rows[trial_id].values()), schema=schema.TEST)
            results.store.put_test(trial_id, table)
        yield None


def runtime_of(
    results: Results, data_root: str | None = None, device: str | None = None
) -> Runtime:
    """Return where and how to test, as the sweep trained unless told otherwise.

    Args:
        results: of the store.
        data_root: folder of the data set, where it differs from the sweep's.
        device: likewise.
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
    runtime: Runtime = parse(Runtime, values, f"{results.store.uri}/sweep.yaml")
    return runtime


class _UnreadableError(Exception):
    """A checkpoint is missing or damaged."""


class _Bench:
    """Data sets and models that stay open from one checkpoint to the next."""

    def __init__(
        self, store: ResultStore, runtime: Runtime, data_progress: DataProgress | None
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._data_progress = data_progress
        self._device = prepare_process(runtime)
        self._data: dict[str, Data] = {}
        self._models: dict[tuple[str, int], torch.nn.Module] = {}

    def test(self, job: Job) -> list[dict[str, Any]]:
        """Return the rows of one checkpoint."""
        if job.config.numerics != NUMERICS_VERSION:
            raise InputError(
                f"trial {job.config.trial_id} was trained with numerics version "
                f"{job.config.numerics}, this package computes version {NUMERICS_VERSION}; test "
                "with the release that trained"
            )
        data = self._open(job.config)
        n_classes = len(data.classes)
        task = job.config.guidance.task if job.config.guidance else None
        evaluation = evaluate(
            self._load(job, n_classes),
            data.split("test", task),
            job.pairs,
            job.config.batch_size,
            self._device,
        )
        return [result_row(target, evaluation, n_classes) for target in job.targets]

    def _open(self, config: TrialConfig) -> Data:
        key, root = config.data.key, self._runtime.data_root
        if key not in self._data:
            data = open_data(config.data, root, self._runtime.cache, self._data_progress)
            where = root or "the generated data set"
            self._store.record_fingerprint(key, data.fingerprint, where)
            self._data[key] = data
        return self._data[key]

    def _load(self, job: Job, n_classes: int) -> torch.nn.Module:
        try:
            weights = self._store.weights(job.weights)
        except (InputError, SafetensorError, OSError) as error:
            raise _UnreadableError(_sentence(job, error)) from error
        key = (job.config.model, n_classes)
        if key not in self._models:
            # Pretrained weights would only be overwritten.
            self._models[key] = build_model(*key, weights=None).to(self._device)
        self._models[key].load_state_dict(weights)
        return self._models[key]


def result_row(target: Target, evaluation: Evaluation, n_classes: int) -> dict[str, Any]:
    """Return one row of `schema.TEST`."""
    values = dict(evaluation.classification)
    if target.pair is not None:
        scores = evaluation.scores[target.pair]
        values |= localization(scores, target.iou_threshold) | breakdown(scores, n_classes)
    row = dict(zip(KEY, target.key, strict=True))
    return row | {f"test_{name}": value for name, value in values.items()}


def _rows_by_trial(store: ResultStore) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = defaultdict(dict)
    for row in store.test_rows().to_pylist():
        rows[row["trial_id"]][_key(row)] = row
    return rows


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _sentence(job: Job, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"checkpoint {job.weights} cannot be read: {error}"
