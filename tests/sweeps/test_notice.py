"""The message at the end of a run: to a real server, and by a command."""

import http.server
import json
import os
import signal
import subprocess
import threading
import time

import pytest

import sweeps
from mg_core.errors import InputError
from mg_core.store import ResultStore


@pytest.fixture
def told():
    """Return the messages that a server was told, and its address; it answers /wrong with 500."""
    messages = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append((self.path, json.loads(body)))
            self.send_response(500 if self.path == "/wrong" else 200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield messages, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def short(sweep, tmp_path):
    """Return a sweep of a baseline and one guided trial, of an epoch each."""
    sweep["store"] = str(tmp_path / "store")
    sweep["baseline"]["epochs"] = sweep["guided"]["epochs"] = 1
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    return sweep


def test_an_address_is_told_once_and_its_secret_is_not_stored(short, told, monkeypatch):
    messages, address = told
    monkeypatch.setenv("CHAT", f"{address}/secret-of-a-chat")
    sweeps.run(short | {"notify": "$CHAT"}, runner="inline")
    ((path, message),) = messages
    assert path == "/secret-of-a-chat"
    assert message["text"].startswith("small: complete; 2 complete of 2 trials")
    store = ResultStore(short["store"])
    assert store.spec()["notify"] == "$CHAT"
    assert b"secret-of" not in b"".join(store.get(key) for key in store.files.keys(""))
    sweeps.run(short | {"notify": "$CHAT"}, runner="inline")
    assert len(messages) == 1, "nothing ran, so there is nothing to tell"


def test_a_command_is_told_and_a_failure_too(short, tmp_path):
    told = tmp_path / "told"
    short["notify"] = f'(cat; echo "; $MG_SWEEP $MG_STATE $MG_STORE") > {told}'
    short["guided"]["learning_rate"] = 1e30  # diverges
    sweeps.run(short, runner="inline")
    said = told.read_text()
    assert said.startswith("small: incomplete; 1 complete, 1 failed of 2 trials")
    assert said.endswith(f"; small incomplete {short['store']}\n")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("{address}/wrong", "notify: 127.0.0.1:{port} did not take the message: Internal Server"),
        ("http://127.0.0.1:9/x", "notify: 127.0.0.1:9 did not take the message: "),
        ("exit 3", "notify: the command did not take the message: it ended with 3"),
    ],
)
def test_nobody_who_listens_is_a_sentence(short, told, capsys, target, said):
    _, address = told
    short["notify"] = target.format(address=address)
    assert sweeps.run(short, runner="inline").is_complete
    assert said.format(port=address.rpartition(":")[2]) in " ".join(capsys.readouterr().out.split())


def test_a_variable_that_is_not_set_is_a_sentence(short):
    with pytest.raises(InputError, match=r"notify: the environment variable NOPE is not set"):
        sweeps.run(short | {"notify": "https://chat/$NOPE"}, runner="inline")


def test_a_run_that_is_stopped_tells_so(short, write, command, tmp_path):
    short["notify"] = f"cat > {tmp_path / 'told'}"
    short["baseline"]["epochs"] = 500
    process = subprocess.Popen(
        [*command, "run", write(short), "--runner", "inline"],
        cwd=tmp_path,
        env=os.environ | {"MG_CACHE": str(tmp_path / "cache")},
    )
    store = ResultStore(short["store"])
    while process.poll() is None and not store.metrics_keys():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert (tmp_path / "told").read_text().startswith("small: stopped; ")
