from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from mg_core.data.archives import extract
from mg_core.errors import InputError


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


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["way/new.txt", "way/below/new.txt", "deep/way/new.txt"])
def test_links_in_the_folder_that_lead_outside_are_not_followed(tmp_path, kind, name):
    folder, outside = tmp_path / "in", tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (folder / "way", folder / "deep" / "way"):
        path.symlink_to(outside)
    if kind == "tar":
        members = [(tarfile.TarInfo(each), b"1") for each in ("good.txt", name)]
        archive = tar(tmp_path / "a.tar", members)
    else:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("good.txt", "1")
            packed.writestr(name, "2")
    with pytest.raises(InputError, match=f"where a link leads: '{name}'"):
        extract(archive, folder)
    assert not list(outside.iterdir())
    assert not (folder / "good.txt").exists()


def test_a_link_inside_the_folder_is_followed(tmp_path):
    folder = tmp_path / "in"
    (folder / "there").mkdir(parents=True)
    (folder / "way").symlink_to("there")
    extract(tar(tmp_path / "a.tar", [(tarfile.TarInfo("way/new.txt"), b"1")]), folder)
    assert (folder / "there" / "new.txt").read_text() == "1"


def test_torn_archives_are_named(tmp_path):
    whole = tar(tmp_path / "a.tgz", [(tarfile.TarInfo("x"), bytes(range(256)) * 5000)], "w:gz")
    torn = tmp_path / "torn.tgz"
    torn.write_bytes(whole.read_bytes()[:2000])
    for path in (torn, tmp_path / "text.tar"):
        path.exists() or path.write_text("no archive")
        with pytest.raises(InputError, match=f"{path.name} is no complete archive"):
            extract(path, tmp_path)
