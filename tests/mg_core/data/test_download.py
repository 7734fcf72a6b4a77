from __future__ import annotations

import hashlib
import http.server
import io
import re
import sys
import tarfile
import threading
import zipfile

import pytest

from mg_core.data.cli import main
from mg_core.data.prepare import (
    DOWNLOADS,
    PARTS,
    Part,
    describe,
    download_parts,
    missing_parts,
)
from mg_core.download import ATTEMPTS, extract, fetch
from mg_core.errors import InputError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` from a loopback address; `cut` bytes end the first so many answers early."""

    daemon_threads = True

    def __init__(self):
        self.files, self.cuts, self.asked, self.tag = {}, [], [], '"one"'
        self.ranges = True
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
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.server.ranges and self.headers.get("If-Range") == self.server.tag:
            start = int(asked[1])
        self.send_response(206 if start else 200)
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
def server():
    with Server() as server:
        server.files["a.bin"] = CONTENT
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_is_fetched_whole_and_checked(server, tmp_path):
    calls = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", MD5, lambda *values: calls.append(values))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_broken_connection_is_taken_up_where_it_ended(server, tmp_path):
    server.cuts = [300_000, 200_000]
    fetch(server.url("a.bin"), tmp_path / "a.bin", MD5, pause=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_another_process_goes_on_with_what_is_there(server, tmp_path):
    server.cuts = [100_000] + [0] * ATTEMPTS
    with pytest.raises(InputError, match=r"failed 5 times .*the same command goes on"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", MD5, pause=0)
    server.cuts = []
    fetch(server.url("a.bin"), tmp_path / "a.bin", MD5)
    assert server.asked[-1] == "bytes=100000-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, ranges):
    server.cuts = [100_000] + [0] * ATTEMPTS
    with pytest.raises(InputError):
        fetch(server.url("a.bin"), tmp_path / "a.bin", pause=0)
    server.cuts, server.ranges = [], ranges
    server.files["a.bin"], server.tag = CONTENT[::-1], '"two"' if ranges else '"one"'
    fetch(server.url("a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=f"has md5 {MD5} instead of 00"):
        fetch(server.url("a.bin"), tmp_path / "a.bin", "00")
    assert not list(tmp_path.iterdir())


def test_addresses_that_do_not_answer(server, tmp_path):
    with pytest.raises(InputError, match=r"cannot download .*gone: 404"):
        fetch(server.url("gone"), tmp_path / "x", pause=0)
    server.files["busy"] = "busy"
    with pytest.raises(InputError, match=r"failed 5 times \(503"):
        fetch(server.url("busy"), tmp_path / "x", pause=0)
    with pytest.raises(InputError, match="only http and https"):
        fetch("file:///etc/passwd", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        fetch(server.url("a.bin"), tmp_path / "file" / "x")


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize("kind", ["a.tar", "a.tgz", "a.zip"])
def test_archives_are_unpacked(tmp_path, kind):
    path, folder = tmp_path / kind, tmp_path / "out"
    folder.mkdir()
    if kind.endswith("zip"):
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("d/one.txt", "1")
            packed.writestr("d/two.txt", "2")
    else:
        members = [(tarfile.TarInfo(f"d/{name}.txt"), text) for name, text in
                   (("one", b"1"), ("two", b"2"))]  # fmt: skip
        tar(path, members, "w:gz" if kind.endswith("tgz") else "w")
    extract(path, folder, only=["d/two.txt"])
    assert [p.name for p in (folder / "d").iterdir()] == ["two.txt"]
    extract(path, folder)
    assert sorted(p.read_text() for p in (folder / "d").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "d/../../out.txt", "..\\out.txt"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    good = (tarfile.TarInfo("good.txt"), b"1")
    archive = tar(tmp_path / "a.tar", [good, (tarfile.TarInfo(name), b"2")])
    with pytest.raises(InputError, match="would write outside of"):
        extract(archive, folder)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(name, "2")
    with pytest.raises(InputError, match="would write outside of"):
        extract(tmp_path / "a.zip", folder)
    assert not list(folder.iterdir())
    assert not (tmp_path / "out.txt").exists()


def test_links_are_left_out_and_not_followed(tmp_path):
    folder, secret = tmp_path / "in", tmp_path / "secret.txt"
    folder.mkdir()
    secret.write_text("mine")
    members = [(link("way", str(tmp_path)), b""), (tarfile.TarInfo("way/secret.txt"), b"theirs")]
    extract(tar(tmp_path / "a.tar", members), folder)
    assert secret.read_text() == "mine"
    assert (folder / "way" / "secret.txt").read_text() == "theirs"


def test_torn_archives_are_named(tmp_path):
    whole = tar(tmp_path / "a.tgz", [(tarfile.TarInfo("x"), CONTENT)], "w:gz")
    torn = tmp_path / "torn.tgz"
    torn.write_bytes(whole.read_bytes()[:2000])
    for path in (torn, tmp_path / "text.tar"):
        path.exists() or path.write_text("no archive")
        with pytest.raises(InputError, match=f"{path.name} is no complete archive"):
            extract(path, tmp_path)


def test_parts_are_fetched_once_and_taken_up(server, tmp_path):
    archive = tar(tmp_path / "set.tar", [(tarfile.TarInfo("set/list.txt"), b"1")])
    server.files["set.tar"] = archive.read_bytes()
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    part = Part(("set/list.txt",), server.url("set.tar"), md5)
    other = Part(("hand.txt",), None, page="a page")
    root = tmp_path / "data"
    assert missing_parts([part, other], root) == [part, other]
    assert describe(part, root) == f"{root / 'set/list.txt'}: from {part.url}"
    with pytest.raises(InputError, match=r"got by hand: .*hand\.txt: from a page"):
        download_parts([part, other], root, lambda *values: None)
    assert missing_parts([part, other], root) == [other]
    assert sorted(path.name for path in root.iterdir()) == ["set"]
    # One that was not unpacked to its end counts as missing.
    (root / DOWNLOADS).mkdir()
    (root / DOWNLOADS / "set.tar").write_bytes(archive.read_bytes())
    assert missing_parts([part], root) == [part]
    download_parts([part], root, lambda *values: None)
    assert missing_parts([part], root) == []
    assert len(server.asked) == 1


def test_prepare_downloads_unpacks_and_decodes(server, devkit, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "devkit.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(devkit.root / "VOCdevkit", "VOCdevkit")
    server.files["devkit.tar"] = archive.read_bytes()
    lists = "VOCdevkit/VOC2007/ImageSets/Main"
    part = Part((f"{lists}/train.txt", f"{lists}/test.txt"), server.url("devkit.tar"))
    monkeypatch.setitem(PARTS, "voc2007", (part,))
    root = tmp_path / "new"
    where = ["--root", str(root), "--cache", str(tmp_path / "cache"), "--image-size", "16"]
    monkeypatch.setattr(sys, "argv", ["mg-data", "prepare", "voc2007", "--download", *where])
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith("train 2, val 2, test 2\ndecoded at 16 × 16")
    assert sorted(path.name for path in root.iterdir()) == ["VOCdevkit"]
    assert server.asked == [None]


def test_an_archive_without_its_files_is_named(server, tmp_path):
    archive = tar(tmp_path / "set.tar", [(tarfile.TarInfo("other.txt"), b"1")])
    server.files["set.tar"] = archive.read_bytes()
    part = Part(("list.txt",), server.url("set.tar"))
    with pytest.raises(InputError, match=r"set\.tar does not hold all it should: .*list\.txt"):
        download_parts([part], tmp_path / "data", lambda *values: None)
