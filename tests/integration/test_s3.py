"""Sweeps on object storage: a real S3 server on loopback, which stalls, dies and comes back."""

import json
import os
import signal
import subprocess
import threading
import time

import pyarrow.compute as pc
import pytest
import yaml
from finished import TIMES
from s3_server import CREDENTIALS, SECRET, Server
from typer.testing import CliRunner

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.files import Files
from sweeps.cli import app

pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    server = Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.close()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="module")
def five_trials(small_sweep, tmp_path_factory):
    """Return the file of a sweep."""
    file = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    small_sweep = {**small_sweep, "grid": {**small_sweep["grid"], "layer": "final"}}
    file.write_text(yaml.safe_dump(small_sweep))
    return file


@pytest.fixture(scope="module")
def undisturbed(five_trials):
    """Run the sweep on a folder, and return its table."""
    store = five_trials.parent / "store"
    assert call("run", five_trials, "--store", store, "--runner", "inline").exit_code == 0
    return ResultStore(str(store)).rows().drop_columns(TIMES)


def call(*arguments):
    """Call the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def check(uri, undisturbed):
    """Assert that a finished store holds the right table, no garbage and no secret."""
    store = ResultStore(uri)
    assert store.rows().drop_columns(TIMES).equals(undisturbed)
    named = set().union(*(p.references for p in store.progress().values()))
    assert set(store.files.keys("checkpoints")) == named
    assert store.files.keys("metrics") == sorted(store.metrics_keys().values())
    assert all(SECRET.encode() not in store.get(key) for key in store.files.keys(""))
    return store


def test_a_sweep_on_object_storage_through_an_outage(
    server, five_trials, command, undisturbed, tmp_path, monkeypatch
):
    uri = server.uri("inline")
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))
    run = [*command, "run", str(five_trials), "--store", uri, "--runner", "inline"]
    process = subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    store = ResultStore(uri)
    while len(store.progress()) < 2:
        time.sleep(0.05)
    server.stop()
    time.sleep(2)
    server.start()
    while len(store.progress()) < 3:
        time.sleep(0.05)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    server.process.send_signal(signal.SIGCONT)
    assert process.wait() == 0, process.stdout.read()
    check(uri, undisturbed)
    assert {record["how"] for record in store.attempts().values()} == {"complete"}
    # The four guided trials shared one copy of their baseline's weights.
    (copy,) = (tmp_path / "cache" / "checkpoints").glob("*.safetensors")
    (baseline,) = (t for t, config in store.trials().items() if config.kind == "baseline")
    (key,) = store.progress(baseline)[baseline].checkpoints.values()
    assert copy.read_bytes() == store.get(key)

    # Every command takes the store's address for the sweep file.
    found = json.loads(call("status", uri, "--json").stdout)
    assert found["counts"]["complete"] == 5
    assert "5 complete, 0 running, 0 failed, 0 waiting" in call("plan", uri).stdout
    assert "5 trials, 5 complete, 0 to run" in call("run", uri, "--runner", "inline").stdout
    assert "complete" in call("logs", uri, next(iter(found["trials"]))).stdout
    assert call("rm", uri, "--yes").exit_code == 0
    assert store.files.keys("") == []
    with pytest.raises(InputError, match="is not a result store"):
        store.spec()


@pytest.mark.slow
def test_ray_on_object_storage_that_stalls_and_restarts(
    server, five_trials, command, undisturbed, tmp_path
):
    uri = server.uri("ray")
    process = subprocess.Popen(
        [*command, "run", str(five_trials), "--store", uri], cwd=tmp_path, stdout=subprocess.PIPE
    )
    store = ResultStore(uri, patience=60)
    for n_trials in (1, 2, 3, 4):
        while len(store.progress()) < n_trials:
            time.sleep(0.05)
        if n_trials % 2:
            server.stop()
            time.sleep(8)
            server.start()
        else:
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(8)
            server.process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    check(uri, undisturbed)


def test_requests_wait_for_a_server_that_is_away_and_no_longer(server):
    patient, hasty = (Files(server.uri("files"), patience) for patience in (60, 0))
    patient.put("key", b"before")
    server.stop()
    # The S3 client itself tries for some six seconds before it says so.
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        hasty.get("key")
    back = threading.Timer(1, server.start)
    back.start()
    patient.put("key", b"after")
    back.join()
    assert hasty.get("key") == b"after"
    assert hasty.keys("") == ["key"]
    patient.delete(["key", "never there"])
    assert hasty.keys("") == []


def test_what_will_not_get_better_is_said_at_once(server):
    files = Files(server.uri("x").replace("bucket", "no-bucket"), patience=600)
    with pytest.raises(InputError, match="cannot be written"):
        files.check_writable()


def test_credentials_in_an_address_are_refused_and_not_repeated(refused, five_trials):
    for arguments in (["status"], ["run", five_trials, "--store"]):
        said = refused(*arguments, f"s3://key:{SECRET}@bucket/x")
        assert "'s3://***@bucket/x' holds credentials" in said
        assert SECRET not in said


def test_a_baseline_of_a_store_on_object_storage(server, five_trials, undisturbed, tmp_path):
    first = server.uri("trained")
    content = yaml.safe_load(five_trials.read_text())
    content["grid"]["attribution"] = "gradcam"
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(content))
    run = ["--runner", "inline"]
    assert call("run", tmp_path / "first.yaml", "--store", first, *run).exit_code == 0
    content["baseline"] = {"from": first, "batch_size": 8}
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(content))
    second = tmp_path / "second"
    found = call("run", tmp_path / "second.yaml", "--store", second, *run)
    assert found.exit_code == 0, found.output
    kept = [
        {name: rows[name].to_pylist() for name in ("epoch", "val_f1", "val_epg", "train_loss")}
        for uri in (first, str(second))
        for rows in [ResultStore(uri).rows()]
        for rows in [rows.filter(pc.equal(rows["kind"], "guided"))]
        for rows in [rows.sort_by([("localization_weight", "ascending"), ("epoch", "ascending")])]
    ]
    assert kept[0] == kept[1]
