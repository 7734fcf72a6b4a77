from __future__ import annotations

import hashlib
import sys
import tarfile

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
from mg_core.errors import InputError


def packed(path, name):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return path


def test_parts_are_fetched_once_and_taken_up(server, tmp_path):
    archive = packed(tmp_path / "set.tar", "set/list.txt")
    server.files["set.tar"] = archive.read_bytes()
    checksum = f"md5={hashlib.md5(archive.read_bytes()).hexdigest()}"
    part = Part(("set/list.txt",), server.url("set.tar"), checksum)
    other = Part(("hand.txt",), None, page="a page")
    root = tmp_path / "data"
    assert missing_parts([part, other], root) == [part, other]
    assert describe(part, root) == f"{root / 'set/list.txt'}: from {part.url}"
    with pytest.raises(InputError, match=r"download by hand .*hand\.txt: from a page"):
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
    archive = packed(tmp_path / "set.tar", "other.txt")
    server.files["set.tar"] = archive.read_bytes()
    part = Part(("list.txt",), server.url("set.tar"))
    with pytest.raises(
        InputError, match=r"set\.tar does not hold all its files, missing .*list\.txt"
    ):
        download_parts([part], tmp_path / "data", lambda *values: None)
