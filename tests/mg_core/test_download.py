from __future__ import annotations

import hashlib
import threading

import pytest

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
    with pytest.raises(InputError, match=f"{tmp_path / 'a.bin'}: wrong checksum, sha256 "):
        fetch(server.url("a.bin"), tmp_path / "a.bin", f"sha256={SHA256}")
    assert (tmp_path / "a.bin").exists()
    assert server.asked == []


@pytest.mark.parametrize("checksum", [None, f"md5={MD5}", f"sha256={SHA256[:10].upper()}"])
def test_checksums_may_be_their_first_digits(tmp_path, checksum):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    verify(tmp_path / "a.bin", checksum, "a")
    with pytest.raises(InputError, match="cannot read"):
        verify(tmp_path / "none", "md5=00", "a")
