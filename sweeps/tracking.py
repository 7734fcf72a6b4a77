"""Mirrors of the table in MLflow or TensorBoard, for those who watch their runs there.

The driver reads what trials have committed and passes it on, in a thread of its own: a mirror
slows no trial, fails none, and can always be made again from the table, which is the truth.
"""

from __future__ import annotations

import importlib
import math
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.text import Text

from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store import tables as schema
from mg_core.store.files import PATIENCE
from sweeps.runner import Listener, Listeners
from sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from pathlib import Path

    from mg_core.training.execution import Outcome

PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboardX"}
FOLDER = "tensorboard"
COMPLETE = "complete"
"""Empty file beside the events of a trial that are all there."""
PER_PAIR = [f"val_{name}" for name, kind in schema.LOCALIZATION_FIELDS if "list" not in str(kind)]
ONCE = [
    *(name for name, _ in schema.TRAIN_FIELDS),
    *(f"val_{name}" for name, _ in schema.CLASSIFICATION_FIELDS + schema.GROUP_FIELDS),
    *(name for name, _ in schema.TIME_FIELDS if name != "attempt"),
]


def check_tracking(spec: SweepSpec) -> None:
    """Refuse a mirror that cannot be kept.

    Raises:
        InputError: its package is missing, or event files have no folder to go to.
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
            f"tracking: tensorboard writes event files into the store's folder, and {spec.store!r} "
            "is none; choose mlflow, or leave tracking out"
        )


@contextmanager
def tracked(
    spec: SweepSpec, run: str, console: Console, complete: Iterable[str] = ()
) -> Iterator[Listener]:
    """Give a listener that mirrors what trials commit, where the sweep asks for one.

    Args:
        spec: of the sweep.
        run: nonce of the driver.
        console: where to say that mirroring has ended early.
        complete: trials that earlier runs completed, whose mirrors may have been cut short.
    """
    if spec.tracking is None:
        yield Listeners()
        return
    store = ResultStore(spec.store, PATIENCE)
    mirror = Mirror(store, spec, run, console)
    mirror.start(complete)
    try:
        yield mirror
    except BaseException:
        mirror.stop(is_hurried=True)
        raise
    mirror.stop()


class Tracker(Protocol):
    """What metrics can be mirrored to."""

    def finished(self) -> set[str]:
        """Return the trials that are mirrored to their end."""

    def begin(self, config: TrialConfig) -> int:
        """Take up a trial and return the last epoch that is mirrored already, -1 for none."""

    def log(self, config: TrialConfig, epoch: int, values: dict[str, float]) -> None:
        """Mirror one epoch."""

    def end(self, config: TrialConfig, state: str) -> None:
        """Note that a trial has ended."""


class Mirror:
    """A listener that passes committed epochs on to a tracker.

    Args:
        store: of the sweep.
        spec: of the sweep.
        run: nonce of the driver.
        console: where to say that mirroring has ended early.
    """

    def __init__(self, store: ResultStore, spec: SweepSpec, run: str, console: Console) -> None:
        self._store = store
        self._spec = spec
        self._run = run
        self._console = console
        self._last: dict[str, int] = {}
        # The newest state of each trial: its table is read once, however many epochs came.
        self._pending: dict[str, str] = {}
        self._changed = threading.Condition()
        self._is_ending = self._is_hurried = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self, complete: Iterable[str] = ()) -> None:
        """Begin to pass on, first what is missing of trials that are complete."""
        self._pending = dict.fromkeys(complete, "complete")
        self._thread.start()

    def stop(self, is_hurried: bool = False) -> None:
        """Pass on what is left, unless in a hurry, and end."""
        with self._changed:
            self._is_ending, self._is_hurried = True, is_hurried
            self._changed.notify()
        self._thread.join()

    def started(self, trial_id: str) -> None:
        """Only epochs matter."""

    def lost(self, trial_id: str, reason: str) -> None:
        """Only epochs matter."""

    def outcome(self, outcome: Outcome) -> None:
        """Note that a trial has committed something, or ended."""
        with self._changed:
            self._pending[outcome.trial_id] = outcome.state
            self._changed.notify()

    def _next(self) -> tuple[str, str] | None:
        """Wait for a trial to pass on; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_ending)
            if self._is_hurried or not self._pending:
                return None
            trial_id = next(iter(self._pending))
            return trial_id, self._pending.pop(trial_id)

    def _work(self) -> None:
        try:
            tracker = _tracker(self._spec, self._store, self._run)
            finished = tracker.finished()  # May take a while, in which the driver goes on.
            with self._changed:
                for trial_id in self._pending.keys() & finished:
                    del self._pending[trial_id]
            while (item := self._next()) is not None:
                self._pass_on(tracker, *item)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            text = f"tracking has stopped ({reason}); the store has everything"
            self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def _pass_on(self, tracker: Tracker, trial_id: str, state: str) -> None:
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
    """Name the numbers of one epoch; those that depend on it end in `/attribution.layer`."""
    values = {name: rows[0][name] for name in ONCE}
    for row in rows:
        if row["attribution"] is not None:
            pair = f"{row['attribution']}.{row['layer']}"
            values |= {f"{name}/{pair}": row[name] for name in PER_PAIR}
    return {name: float(v) for name, v in values.items() if v is not None and math.isfinite(v)}


def _tracker(spec: SweepSpec, store: ResultStore, run: str) -> Tracker:
    if spec.tracking == "mlflow":
        return MLflow(spec.name, run)
    assert store.local_path is not None
    return TensorBoard(store.local_path / FOLDER)


class MLflow:
    """One MLflow run a trial, found again by its trial id; the server is `MLFLOW_TRACKING_URI`.

    Args:
        experiment: its name.
        run: nonce of the driver, a tag of every run it touches.
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
        """Return the trials whose runs are closed as complete."""
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
        """Find a trial's run or create it."""
        trial = config.trial_id
        found = self._client.search_runs([self._experiment], f"tags.trial_id = '{trial}'")
        if found:
            run = found[0]
        else:
            run = self._client.create_run(
                self._experiment, run_name=config.label, tags={"trial_id": trial}
            )
            for name, value in schema.config_columns(config).items():
                self._client.log_param(run.info.run_id, name, value)
        self._runs[trial] = run.info.run_id
        self._client.set_tag(run.info.run_id, "driver", self._driver)
        self._client.update_run(run.info.run_id, "RUNNING")
        # Every epoch has it, and it is logged together with all the others.
        history = self._client.get_metric_history(run.info.run_id, "seconds_val")
        return max((metric.step for metric in history), default=-1)

    def log(self, config: TrialConfig, epoch: int, values: dict[str, float]) -> None:
        """Mirror one epoch, in one request."""
        now = round(1000 * time.time())
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._runs[config.trial_id], metrics=metrics)

    def end(self, config: TrialConfig, state: str) -> None:
        """Close the run."""
        status = "FINISHED" if state == "complete" else "FAILED"
        self._client.set_terminated(self._runs[config.trial_id], status)


class TensorBoard:
    """Event files, one folder a trial, written anew by every driver that runs the trial.

    Args:
        folder: for all trials.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def finished(self) -> set[str]:
        """Return the trials whose folders say that they are complete."""
        return {path.parent.name for path in self._folder.glob(f"*/{COMPLETE}")}

    def begin(self, config: TrialConfig) -> int:
        """Start the trial's folder anew."""
        folder = self._folder / config.trial_id
        shutil.rmtree(folder, ignore_errors=True)
        writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder))
        writer.add_text("trial", config.label)
        self._writers[config.trial_id] = writer
        return -1

    def log(self, config: TrialConfig, epoch: int, values: dict[str, float]) -> None:
        """Mirror one epoch."""
        writer = self._writers[config.trial_id]
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def end(self, config: TrialConfig, state: str) -> None:
        """Close the event file."""
        self._writers.pop(config.trial_id).close()
        if state == "complete":
            (self._folder / config.trial_id / COMPLETE).touch()
