"""`ray job submit` to a cluster that asks for a token: with it a sweep runs, without it nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from mg_core.store import ResultStore

TOKEN = "a-token-of-this-test-alone-0123456789"
OWN = """
from mg_core.losses import LOSSES

@LOSSES.register("own")
def own(attributions, masks):
    return LOSSES["energy"](attributions, masks)
"""


def free_ports(n):
    """Return numbers of ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def ask(dashboard, **headers):
    """Ask the dashboard for its jobs, and return the status of its answer."""
    request = urllib.request.Request(f"{dashboard}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return the home folder of who has the token."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    return home


@pytest.fixture(scope="module")
def environment(home):
    """Return the environment of who has the token."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    return {**others, "PATH": path, "HOME": str(home), "RAY_AUTH_MODE": "token"}


@pytest.fixture(scope="module")
def dashboard(environment):
    """Start a cluster of one node as the project's cluster file does, and return its address."""
    gcs, http, agent, client = free_ports(4)
    folder = tempfile.mkdtemp(prefix="mg")  # Short: sockets in it must have short names.
    options = {
        "port": gcs,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": http,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "node-ip-address": "127.0.0.1",
        "num-cpus": 1,
        "object-store-memory": 100_000_000,
        "temp-dir": folder,
    }
    start = ["ray", "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())]
    head = subprocess.Popen(
        start, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    address = f"http://127.0.0.1:{http}"
    until = time.monotonic() + 120
    while ask(address, Authorization=f"Bearer {TOKEN}") != 200:
        assert head.poll() is None, head.stdout.read()
        assert time.monotonic() < until, "no dashboard after two minutes"
        time.sleep(0.5)
    yield address
    head.send_signal(signal.SIGTERM)
    head.communicate(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def submit(dashboard, tmp_path, repository, sweep):
    """Submit the sweep of a folder, as README says."""
    (tmp_path / "own.py").write_text(OWN)
    shutil.copy(repository / "sweeps" / "run.py", tmp_path)
    sweep["imports"] = ["own"]
    sweep["grid"] |= {"attribution": "ixg", "layer": "final", "loss": {"energy": 0.1}}
    sweep["store"] = "runs/of a job"
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))

    def run(environment, *arguments):
        job = ["ray", "job", "submit", "--address", dashboard, "--working-dir", str(tmp_path)]
        job += ["--", "python", "run.py", "sweep.yaml", *arguments]
        return subprocess.run(job, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_without_the_token_nothing_is_run(dashboard, submit, environment, tmp_path):
    assert ask(dashboard) == 401
    assert ask(dashboard, Authorization="Bearer guessed") in {401, 403}
    stranger = {k: v for k, v in environment.items() if k != "RAY_AUTH_MODE"}
    found = submit({**stranger, "HOME": str(tmp_path)})
    assert found.returncode != 0
    assert "uthenticat" in found.stdout + found.stderr
    assert ask(dashboard, Authorization=f"Bearer {TOKEN}") == 200


def test_with_the_token_a_sweep_of_ones_own_runs(submit, environment, home):
    found = submit(environment, "--set", "grid.loss={energy: [0.1], own: [0.1]}")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 complete of 3 trials" in found.stdout
    # Not in the folder of the job, which is another one each time.
    store = ResultStore(str(home / "runs" / "of a job"))
    assert {progress.is_complete for progress in store.progress().values()} == {True}
    assert TOKEN not in found.stdout + found.stderr
    files = [path for path in (home / "runs").rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
