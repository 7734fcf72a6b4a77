"""A real S3 server on loopback, which stalls, dies and comes back."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

SECRET = "a-secret-that-belongs-nowhere"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}

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
url = {"base_url": f"http://127.0.0.1:{port}", "headers": {"Authorization": "AWS4-HMAC-SHA256 "
       "Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"}}

def asked(method, path, **content):
    answer = inside.open(path, method=method, **url, **content)
    assert answer.status_code == 200, (path, answer.status)
    return answer
if os.path.exists(disk):
    asked("PUT", "/bucket")
    for key, data in json.load(open(disk)).items():
        asked("PUT", f"/bucket/{key}", data=base64.b64decode(data))

def listed():
    query = "list-type=2"
    while True:
        page = asked("GET", f"/bucket?{query}").text
        yield from re.findall("<Key>(.*?)</Key>", page)
        more = re.findall("<NextContinuationToken>(.*?)</NextContinuationToken>", page)
        if not more:
            return
        query = f"list-type=2&continuation-token={urllib.parse.quote(more[0])}"

def end():
    lock.acquire()
    saved = {}
    for key in listed():
        saved[key] = base64.b64encode(asked("GET", f"/bucket/{key}").data).decode()
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

    def close(self):
        """End it for good; what it held is gone."""
        self.process.kill()
        self.process.wait()

    def uri(self, name):
        return f"s3://bucket/{name}?endpoint_override=127.0.0.1:{self.port}&scheme=http"
