"""Sweeps on object storage: a real S3 server on loopback, which stalls, dies and comes back."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import yaml
from typer.testing import CliRunner

from mg_core.errors import InputError
from mg_core.files import Files
from mg_core.store import ResultStore
from sweeps.cli import app

pytest.importorskip("moto.server")

TIMES = ["attempt", "seconds_train", "seconds_val", "seconds_step"]
SECRET = "a-secret-that-belongs-nowhere"

# moto's server, which keeps its objects in memory. Asked to end it finishes the request at hand,
# saves the objects to a file and is gone at once, as a server with a disk would be; what
# clients have under way is lost.
SERVER = """
import json, os, signal, sys, threading, base64
from werkzeug.serving import make_server
from werkzeug.test import Client
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
import re, urllib.parse

port, disk = int(sys.argv[1]), sys.argv[2]
moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()

def one_at_a_time(environ, start_response):
    with lock:
        return [b"".join(moto(environ, start_response))]

inside = Client(moto)
if os.path.exists(disk):
    inside.put("/bucket", base_url=f"http://127.0.0.1:{port}")
    for key, data in json.load(open(disk)).items():
        data = base64.b64decode(data)
        inside.put(f"/bucket/{key}", data=data, base_url=f"http://127.0.0.1:{port}")

def listed():
    query = "list-type=2"
    while True:
        page = inside.get(f"/bucket?{query}", base_url=f"http://127.0.0.1:{port}").text
        yield from re.findall("<Key>(.*?)</Key>", page)
        more = re.findall("<NextContinuationToken>(.*?)</NextContinuationToken>", page)
        if not more:
            return
        query = f"list-type=2&continuation-token={urllib.parse.quote(more[0])}"

def end():
    lock.acquire()
    saved = {}
    for key in listed():
        data = inside.get(f"/bucket/{key}", base_url=f"http://127.0.0.1:{port}").data
        saved[key] = base64.b64encode(data).decode()
    json.dump(saved, open(disk, "w"))
    os._exit(0)

signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
make_server("127.0.0.1", port, one_at_a_time, threaded=True).serve_forever()
"""


class Server:
    """The S3 server in a process of its own."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.disk = folder / "objects.json"
        self.process = None
        self.start()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/bucket", method="PUT")
        urllib.request.urlopen(request).close()

    def start(self):
        arguments = [sys.executable, "-c", SERVER, str(self.port), str(self.disk)]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def uri(self, name):
        return f"s3://bucket/{name}?endpoint_override=127.0.0.1:{self.port}&scheme=http"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    server = Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.process.kill()
    server.process.wait()
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
    assert "5 complete, 0 failed, 0 to run" in call("plan", uri).stdout
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
        assert "'s3://…@bucket/x' holds credentials" in said
        assert SECRET not in said
