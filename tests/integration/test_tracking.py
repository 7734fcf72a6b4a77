"""Mirrors: what MLflow and TensorBoard have is what the table has."""

import io
import sys
import threading
import time

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.layout import TENSORBOARD
from mg_core.training.execution import Outcome
from sweeps.cli import app
from sweeps.spec import load_spec
from sweeps.tracking import ONCE, PER_PAIR, MLflow, TensorBoard, check_tracking, tracked


@pytest.fixture
def file(sweep, write):
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    return write(sweep)


def run(file, tmp_path, tracking, *further):
    arguments = ["run", file, "--store", tmp_path / "store", "--runner", "inline"]
    arguments += ["--set", f"tracking={tracking}", *further]
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    assert "tracking has stopped" not in found.output
    return ResultStore(str(tmp_path / "store"))


def expected(store):
    """Return every number of the table by trial, metric and epoch."""
    found = {}
    for row in store.rows().to_pylist():
        names = {name: name for name in ONCE}
        if row["attribution"]:
            names |= {f"{name}/{row['attribution']}.{row['layer']}": name for name in PER_PAIR}
        for shown, name in names.items():
            if row[name] is not None:
                key = (row["trial_id"], shown, row["epoch"])
                found[key] = pytest.approx(row[name], rel=1e-6)
    return found


def test_mlflow_mirrors_every_number_once(file, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run(file, tmp_path, "mlflow", "--set", "max_retries=0")
    store = run(file, tmp_path, "mlflow", "--set", "grid.loss={energy: [0.01, 0.1, 1]}", "--extend")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.data.tags["trial_id"] for r in runs} == store.trial_ids()
    assert len(runs) == 4
    assert {r.info.status for r in runs} == {"FINISHED"}
    found = {}
    for one in runs:
        for name in one.data.metrics:
            for metric in client.get_metric_history(one.info.run_id, name):
                key = (one.data.tags["trial_id"], name, metric.step)
                assert key not in found
                found[key] = metric.value
    assert found == expected(store)


def test_tensorboard_mirrors_every_number_and_goes_with_its_trial(file, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    store = run(file, tmp_path, "tensorboard")
    found = {}
    for folder in (tmp_path / "store" / TENSORBOARD).iterdir():
        events = accumulator.EventAccumulator(str(folder)).Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                found[folder.name, name, event.step] = event.value
    assert found == expected(store)
    CliRunner().invoke(app, ["rm", store.uri, "--yes"])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("tracking", ["tensorboard", "mlflow"])
def test_what_a_mirror_lacks_is_caught_up(file, tmp_path, monkeypatch, tracking):
    pytest.importorskip("mlflow" if tracking == "mlflow" else "tensorboardX")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    store = run(file, tmp_path, "null")
    notes = tmp_path / "store" / TENSORBOARD / min(store.trial_ids()) / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    begun = []
    tracker = {"mlflow": MLflow, "tensorboard": TensorBoard}[tracking]
    begin = tracker.begin
    monkeypatch.setattr(
        tracker, "begin", lambda self, c: begun.append(c.trial_id) or begin(self, c)
    )
    run(file, tmp_path, tracking)
    assert set(begun) == store.trial_ids()
    run(file, tmp_path, tracking)
    assert len(begun) == len(store.trial_ids())
    assert notes.read_text() == "mine"


def test_a_slow_tracker_keeps_nobody_waiting(file, tmp_path, monkeypatch):
    asked, answer = threading.Event(), threading.Event()

    def finished(self):
        asked.set()
        answer.wait(10)
        return set()

    monkeypatch.setattr(TensorBoard, "finished", finished)
    spec = load_spec(file, ["tracking=tensorboard"], str(tmp_path / "store"))
    start = time.monotonic()
    with tracked(spec, "r", Console(file=io.StringIO())) as mirror:
        assert asked.wait(10)
        mirror.outcome(Outcome("t", "running"))
        assert time.monotonic() - start < 5
        answer.set()


def test_a_mirror_that_fails_says_so_and_stops_nothing(file, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    arguments = ["run", str(file), "--store", str(tmp_path / "store"), "--runner", "inline"]
    found = CliRunner().invoke(app, [*arguments, "--set", "tracking=mlflow"])
    assert found.exit_code == 0
    assert found.output.count("tracking has stopped (") == 1


def test_what_tracking_lacks_is_a_sentence(file, monkeypatch):
    spec = load_spec(file, ["tracking=tensorboard"], "s3://bucket/x?endpoint_override=127.0.0.1:1")
    with pytest.raises(InputError, match="tensorboard writes event files into the store's folder"):
        check_tracking(spec)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"mlflow needs the package mlflow .*pip install"):
        check_tracking(load_spec(file, ["tracking=mlflow"]))
    assert "tracking" not in yaml.safe_load(file.read_text())
    check_tracking(load_spec(file, []))
