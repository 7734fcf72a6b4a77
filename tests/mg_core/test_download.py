from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time

import pytest

from mg_core import download
from mg_core.download import ATTEMPTS, fetch, verify
from mg_core.errors import InputError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _published(server):
    server.files["a.bin"] = CONTENT


def test_a_file_is_fetched_whole_and_checked(server, tmp_path):
    calls = []
    fetch(
        server.url("a.bin"), tmp_path / "a.bin", f"md5={MD5}", lambda *values: calls.append(values)
    )
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_broken_connection_is_taken_up_where_it_ended(server, tmp_path):
    server.cuts = [300_000, 200_000]
    fetch(server.url("a.bin"), tmp_path / "a.bin", f"md5={MD5}")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_another_process_goes_on_with_what_is_there(server, tmp_path):
    server.cuts = [100_000] + [0] * ATTEMPTS
    with pytest.raises(InputError, match=r"failed 5 times .*the same command continues"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", f"md5={MD5}")
    server.cuts = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", f"md5={MD5}")
    assert server.asked[-1] == "bytes=100000-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, ranges):
    server.cuts = [100_000] + [0] * ATTEMPTS
    with pytest.raises(InputError):
        fetch(server.url("a.bin"), tmp_path / "a.bin")
    server.cuts, server.ranges = [], ranges
    server.files["a.bin"], server.tag = CONTENT[::-1], '"two"' if ranges else '"one"'
    fetch(server.url("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_partial_file_of_unknown_origin_is_overwritten(server, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(b"half")
    fetch(server.url("a.bin"), tmp_path / "a.bin", f"md5={MD5}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=f"a.bin: wrong checksum, md5 {MD5} instead of 0"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", f"md5={'0' * 32}")
    assert not list(tmp_path.iterdir())


def test_addresses_that_do_not_answer(server, tmp_path):
    with pytest.raises(InputError, match=r"cannot download .*gone: 404"):
        fetch(server.url("gone"), tmp_path / "x")
    server.files["busy"] = "busy"
    with pytest.raises(InputError, match=r"failed 5 times \(503"):
        fetch(server.url("busy"), tmp_path / "x")
    with pytest.raises(InputError, match="only http and https"):
        fetch("file:///etc/passwd", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        fetch(server.url("a.bin"), tmp_path / "file" / "x")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/a b", "http://[bad/x", "http://127.0.0.1:port/x", "http://ü/ü"]
)
def test_invalid_addresses_are_sentences(tmp_path, address):
    with pytest.raises(InputError, match="cannot download 'http"):
        fetch(address, tmp_path / "x")


def test_answers_that_are_not_http_are_sentences(server, tmp_path):
    server.files["garbled"] = "garbled"
    with pytest.raises(InputError, match=r"garbled failed 5 times \(this is not HTTP"):
        fetch(server.url("garbled"), tmp_path / "x")


@pytest.fixture
def speaks():
    """Serve the same raw bytes to every caller, a given pause before each; return the address."""
    sockets = []

    def start(content, pause=0.0, size=1):
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection):
            with contextlib.suppress(OSError), connection:
                connection.recv(10_000)
                step = size if pause else max(1, len(content))
                for begin in range(0, len(content), step):
                    time.sleep(pause)
                    connection.sendall(content[begin : begin + step])

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/a.bin"

    yield start
    for listening in sockets:
        listening.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 OK\r\n\r\n", "failed 5 times"),
        (b"HTTP/1.1 99999 No\r\n\r\n", "failed 5 times"),
        (OK + b"Content-Length: 9\r\n\r\nabc", r"failed 5 times \(.*3"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", "failed 5 times"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc", "failed 5 times"),
        (OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "failed 5 times"),
        (OK + b"X: y\r\n" * 200 + b"\r\n", "failed 5 times"),
        (b"HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/x\r\n\r\n", "leads to 'ftp://127.0.0.1/x'"),
        (
            b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n",
            "'file:///etc/passwd' is not allowed",
        ),
        (b"HTTP/1.1 302 F\r\nLocation: http://[bad\r\n\r\n", "cannot download"),
        (b"HTTP/1.1 302 F\r\nLocation: /again\r\n\r\n", "cannot download .* 302 "),
        (b"HTTP/1.1 302 F\r\n\r\n", "cannot download .* 302 "),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "the answer 204 is no file"),
        (b"HTTP/1.1 202 Later\r\nContent-Length: 3\r\n\r\nabc", "the answer 202 is no file"),
        (b"", "failed 5 times"),
    ],
)
def test_broken_answers_are_sentences(speaks, tmp_path, monkeypatch, answer, sentence):
    monkeypatch.setattr(download, "PAUSE", 0)
    with pytest.raises(InputError, match=sentence) as caught:
        fetch(speaks(answer), tmp_path / "a.bin")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("length", ["9" * 5000, "-3", "three", "\u0663"])
def test_a_size_that_is_none_is_not_believed(speaks, tmp_path, length):
    fetch(speaks(OK + f"Content-Length: {length}\r\n\r\nabc".encode()), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"abc"


@pytest.mark.parametrize("start", [b"", OK + b"Content-Length: 100000\r\n\r\n"])
def test_a_server_that_only_drips_is_given_up(speaks, tmp_path, monkeypatch, start):
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "TIMEOUT", 0.4)
    monkeypatch.setattr(download, "SLOWEST", 1e5)
    address = speaks(start or OK + b"X: y\r\n" * 90, pause=0.02, size=len(start) or 1)
    if start:
        address = speaks(start + bytes(100_000), pause=0.05, size=len(start))
    began = time.monotonic()
    with pytest.raises(InputError, match=r"failed 5 times \((slower than 100000 bytes|timed out)"):
        fetch(address, tmp_path / "a.bin")
    assert time.monotonic() - began < 10


def test_other_bytes_than_asked_for_are_not_appended(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:100])
    (tmp_path / "a.bin.partial-tag").write_text(server.tag)
    server.range_header = "bytes 7-"
    fetch(server.url("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked == ["bytes=100-", None]


@pytest.mark.parametrize("tag", [b"\xff\xfe", "ü".encode(), b'W/"x"', b"a\nb"])
def test_tags_of_any_bytes(server, tmp_path, tag):
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:100])
    (tmp_path / "a.bin.partial-tag").write_bytes(tag)
    fetch(server.url("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_others_wait_and_only_one_downloads(server, tmp_path):
    target = tmp_path / "a.bin"
    arguments = (server.url("a.bin"), target, f"sha256={SHA256[:8]}")
    threads = [threading.Thread(target=fetch, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_file_that_is_there_is_only_checked(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=r"a\.bin: wrong checksum, sha256 .*; remove the file to"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", f"sha256={SHA256}")
    assert (tmp_path / "a.bin").exists()
    assert server.asked == []


@pytest.mark.parametrize("checksum", [None, f"md5={MD5}", f"sha256={SHA256[:10].upper()}"])
def test_checksums_may_be_their_first_digits(tmp_path, checksum):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    verify(tmp_path / "a.bin", checksum, "a")
    with pytest.raises(InputError, match="cannot read"):
        verify(tmp_path / "none", "md5=00", "a")
