"""Copies of the metrics in MLflow or TensorBoard.

A thread of the driver reads committed rows from the store and copies them. It neither slows nor
fails a trial, and the copy can be made again from the store at any time.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mg_core.columns import BOOKKEEPING_COLUMNS, TRAINING_COLUMNS, of_split
from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.redaction import redacted
from mg_core.store import ResultStore, layout
from mg_core.store.files import PATIENCE
from mg_core.store.tables import config_columns
from sweeps.runner import Listener
from sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from mg_core.training.execution import Outcome

PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboardX"}
"""Empty file in the folder of a trial whose event files are complete."""
_NUMBERS = [
    column
    for column in (*TRAINING_COLUMNS, *of_split("val"), *BOOKKEEPING_COLUMNS)
    if column.type != "list" and column.name != "attempt"
]
PER_PAIR = [column.name for column in _NUMBERS if column.of_pair]
ONCE = [column.name for column in _NUMBERS if not column.of_pair]


def check_tracking(spec: SweepSpec) -> None:
    """Raise an error if the metrics cannot be copied.

    Raises:
        InputError: the tracker's package is missing, or the store is no folder for event files.
    """
    if spec.tracking is None:
        return
    package = PACKAGES[spec.tracking]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"tracking: {spec.tracking} needs the package {package} ({error}); "
            "pip install 'model-guidance-sweeps[tracking]'"
        ) from None
    if spec.tracking == "tensorboard" and ResultStore(spec.store).local_path is None:
        raise InputError(
            f"tracking: tensorboard writes event files into the store's folder, but "
            f"{spec.store!r} is not a folder; choose mlflow, or leave tracking out"
        )


def tracked(
    spec: SweepSpec, run: str, console: Console, complete: Iterable[str] = ()
) -> AbstractContextManager[Listener]:
    """Return a listener that copies metrics if the sweep asks for it, and else does nothing.

    Args:
        spec: the sweep, which names the tracker.
        run: nonce of the driver.
        console: where to report that copying has stopped.
        complete: trials that earlier runs completed and whose copies may be unfinished.
    """
    if spec.tracking is None:
        return nullcontext(Listener())
    return Mirror(spec, run, console, complete)


class Mirror(Listener):
    """A listener that copies committed epochs in a thread, inside a `with` block.

    Leaving the block waits until all is copied, or not at all after an error. Arguments are those
    of `tracked`.
    """

    def __init__(
        self, spec: SweepSpec, run: str, console: Console, complete: Iterable[str]
    ) -> None:
        self._store = ResultStore(spec.store, PATIENCE)
        self._spec = spec
        self._run = run
        self._console = console
        self._last: dict[str, int] = {}
        # Newest state by trial: one read of its rows copies all epochs committed since the last.
        self._pending: dict[str, str] = dict.fromkeys(complete, "complete")
        self._changed = threading.Condition()
        self._is_ending = self._is_hurried = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._changed:
            self._is_ending, self._is_hurried = True, kind is not None
            self._changed.notify()
        self._thread.join()

    def outcome(self, outcome: Outcome) -> None:
        """Queue the trial for copying."""
        with self._changed:
            self._pending[outcome.trial_id] = outcome.state
            self._changed.notify()

    def _next(self) -> tuple[str, str] | None:
        """Wait for a trial to copy and return it with its state; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_ending)
            if self._is_hurried or not self._pending:
                return None
            trial_id = next(iter(self._pending))
            return trial_id, self._pending.pop(trial_id)

    def _work(self) -> None:
        try:
            tracker = _tracker(self._spec, self._store, self._run)
            finished = tracker.finished()  # May take long; the driver does not wait for it.
            with self._changed:
                for trial_id in self._pending.keys() & finished:
                    del self._pending[trial_id]
            while (item := self._next()) is not None:
                self._copy(tracker, *item)
        except Exception as error:
            reason = redacted(" ".join(str(error).split()) or type(error).__name__)
            text = f"tracking has stopped ({reason}); the store has everything"
            self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def _copy(self, tracker: MLflow | TensorBoard, trial_id: str, state: str) -> None:
        (config,) = self._store.trials([trial_id]).values()
        if trial_id not in self._last:
            self._last[trial_id] = tracker.begin(config)
        table, _ = self._store.read_rows(trial_id)
        epochs: dict[int, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            epochs.setdefault(row["epoch"], []).append(row)
        for epoch in sorted(epochs):
            if epoch > self._last[trial_id]:
                tracker.log(config, epoch, scalars(epochs[epoch]))
                self._last[trial_id] = epoch
        if state != "running":
            tracker.end(config, state)


def scalars(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the numbers of one epoch; names of pair metrics end in `/attribution.layer`."""
    values = {name: rows[0][name] for name in ONCE}
    for row in rows:
        if row["attribution"] is not None:
            pair = f"{row['attribution']}.{row['layer']}"
            values |= {f"{name}/{pair}": row[name] for name in PER_PAIR}
    return {name: float(v) for name, v in values.items() if v is not None and math.isfinite(v)}


def _tracker(spec: SweepSpec, store: ResultStore, run: str) -> MLflow | TensorBoard:
    if spec.tracking == "mlflow":
        return MLflow(spec.name, run)
    return TensorBoard(store)


class MLflow:
    """One MLflow run for each trial, tagged with its id; `MLFLOW_TRACKING_URI` names the server.

    Args:
        experiment: name of the MLflow experiment.
        run: nonce of the driver, which becomes a tag of the runs that it writes.
    """

    def __init__(self, experiment: str, run: str) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._client = self._mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment(experiment)
        )
        self._driver = run
        self._runs: dict[str, str] = {}

    def finished(self) -> set[str]:
        """Return the trials whose runs are closed as finished."""
        found: set[str] = set()
        token = None
        while token is None or token:
            page = self._client.search_runs(
                [self._experiment], "attributes.status = 'FINISHED'", page_token=token
            )
            found |= {run.data.tags.get("trial_id", "") for run in page}
            token = page.token or ""
        return found

    def begin(self, config: TrialConfig) -> int:
        """Open or create the trial's run and return its last epoch, -1 if it has none."""
        trial = config.trial_id
        found = self._client.search_runs([self._experiment], f"tags.trial_id = '{trial}'")
        if found:
            run = found[0]
        else:
            run = self._client.create_run(
                self._experiment, run_name=config.label, tags={"trial_id": trial}
            )
            for name, value in config_columns(config).items():
                self._client.log_param(run.info.run_id, name, value)
        self._runs[trial] = run.info.run_id
        self._client.set_tag(run.info.run_id, "driver", self._driver)
        self._client.update_run(run.info.run_id, "RUNNING")
        # Every epoch has this metric, which is logged together with all others.
        history = self._client.get_metric_history(run.info.run_id, "seconds_val")
        return max((metric.step for metric in history), default=-1)

    def log(self, config: TrialConfig, epoch: int, values: dict[str, float]) -> None:
        """Copy one epoch in one request."""
        now = round(1000 * time.time())
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._runs[config.trial_id], metrics=metrics)

    def end(self, config: TrialConfig, state: str) -> None:
        """Close the run."""
        status = "FINISHED" if state == "complete" else "FAILED"
        self._client.set_terminated(self._runs[config.trial_id], status)


class TensorBoard:
    """Event files in one folder for each trial; each driver of the trial writes them anew.

    Args:
        folder: the folder with the folders of all trials.
    """

    def __init__(self, store: ResultStore) -> None:
        self._files = store.files
        self._writers: dict[str, Any] = {}

    def finished(self) -> set[str]:
        """Return the trials whose event files are complete."""
        keys = self._files.keys(layout.TENSORBOARD)
        trials = {layout.trial_of(key) for key in keys if layout.is_own(key)}
        return {trial for trial in trials if layout.tracked_key(trial) in keys}

    def begin(self, config: TrialConfig) -> int:
        """Remove the trial's event files and return -1: it has no epoch."""
        folder = layout.prefix(layout.TENSORBOARD, config.trial_id)
        self._files.delete(key for key in self._files.keys(folder) if layout.is_own(key))
        writer = importlib.import_module("tensorboardX").SummaryWriter(self._files.path(folder))
        writer.add_text("trial", config.label)
        self._writers[config.trial_id] = writer
        return -1

    def log(self, config: TrialConfig, epoch: int, values: dict[str, float]) -> None:
        """Write one epoch."""
        writer = self._writers[config.trial_id]
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def end(self, config: TrialConfig, state: str) -> None:
        """Close the event file."""
        self._writers.pop(config.trial_id).close()
        if state == "complete":
            self._files.put(layout.tracked_key(config.trial_id), b"")
