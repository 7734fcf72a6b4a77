"""Trials, and a server of files, for tests of this package."""

import http.server
import re
import threading

import pytest

from mg_core.config import TrialConfig

BASELINE = {
    "numerics": 1,
    "data": {"name": "shapes", "image_size": 32, "horizontal_flip": False, "options": {"seed": 1}},
    "model": "vanilla_tiny",
    "weights": None,
    "seed": 0,
    "epochs": 3,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "precision": "fp32",
    "baseline": None,
    "guidance": None,
    "evaluate": (),
}
GUIDANCE = {
    "attribution": "ixg",
    "layer": "input",
    "loss": "energy",
    "localization_weight": 1e-3,
    "reduction": "sum",
    "annotated_fraction": 1.0,
    "box_dilation": 0.0,
    "task": None,
}


@pytest.fixture
def baseline():
    return TrialConfig.model_validate(BASELINE)


@pytest.fixture
def guided(baseline):
    return TrialConfig.model_validate(
        {
            **BASELINE,
            "baseline": baseline.trial_id,
            "guidance": GUIDANCE,
            "evaluate": [
                {"attribution": "gradcam", "layer": "final"},
                {"attribution": "ixg", "layer": "input"},
            ],
        }
    )


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` from a loopback address; `cut` bytes end the first so many answers early."""

    daemon_threads = True

    def __init__(self):
        self.files, self.cuts, self.asked, self.tag = {}, [], [], '"one"'
        self.ranges, self.range_header = True, ""
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        content = self.server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        if content == "busy":
            return self.send_error(503)
        if content == "garbled":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return None
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.server.ranges and self.headers.get("If-Range") == self.server.tag:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        if start and self.server.range_header:
            self.send_header("Content-Range", self.server.range_header)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        body = content[start:]
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
        self.wfile.write(body)
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("mg_core.download.PAUSE", 0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
