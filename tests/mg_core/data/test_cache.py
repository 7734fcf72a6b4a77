from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib

import numpy as np
import pytest
import torch

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.cache import cache_folder
from mg_core.data.mapped import RESIDENT_LIMIT, MappedRows
from mg_core.errors import InputError

OPEN = """
import sys
from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.errors import InputError

root, cache, pause, limit = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def progress(split, done, total):
    import time
    print("decoded", done, flush=True)
    time.sleep(pause)
config = DataConfig(name="voc2007", image_size=32, horizontal_flip=False,
                    options={"classes": "ellipse,rectangle,triangle,star,cross,ring"})
try:
    split = open_data(config, root, cache, progress).split("train")
except InputError as error:
    print("refused", error)
else:
    print("opened", len(split), int(split.images(range(len(split))).sum()))
"""


def config(size=32):
    classes = "ellipse,rectangle,triangle,star,cross,ring"
    return DataConfig(
        name="voc2007", image_size=size, horizontal_flip=False, options={"classes": classes}
    )


def opened(root, cache, progress=None):
    return open_data(config(), str(root), str(cache), progress).split("train")


def leftovers(cache):
    return sorted(path.name for path in cache.rglob(".*"))


def test_a_split_is_decoded_once(small_shapes, tmp_path):
    calls = []
    first = opened(small_shapes, tmp_path, lambda *values: calls.append(values))
    assert calls == [("train", done, 24) for done in range(1, 25)]
    second = opened(small_shapes, tmp_path, lambda *values: pytest.fail("decoded again"))
    everything = np.arange(24)
    assert torch.equal(first.images(everything), second.images(everything))
    assert leftovers(tmp_path) == []


def test_sizes_and_contents_have_their_own_arrays(small_shapes, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(small_shapes, copy)
    cache = tmp_path / "cache"
    for size in (16, 24):
        split = open_data(config(size), str(copy), str(cache)).split("val")
        assert split.images([0]).shape == (1, 3, size, size)
    annotation = next((copy / "VOCdevkit/VOC2007/Annotations").glob("val_*.xml"))
    annotation.write_text("<annotation/>")
    split = open_data(config(16), str(copy), str(cache)).split("val")
    assert not split.labels[split.ids.index(annotation.stem)].any()
    assert len(list(cache.iterdir())) == 3


def test_two_processes_build_it_once(small_shapes, tmp_path, python):
    both = [python(OPEN, small_shapes, tmp_path, 0.02, 0) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    lines = [output.splitlines() for output, _ in outputs]
    assert sorted(sum(line.startswith("decoded") for line in each) for each in lines) == [0, 24]
    assert lines[0][-1] == lines[1][-1]
    assert lines[0][-1].startswith("opened 24 ")
    assert leftovers(tmp_path) == []


def test_a_killed_builder_leaves_nothing_torn(small_shapes, tmp_path, python):
    builder = python(OPEN, small_shapes, tmp_path, 0.2, 0)
    assert builder.stdout is not None
    for _ in range(3):
        assert builder.stdout.readline().startswith("decoded")
    builder.kill()
    builder.communicate()
    assert not list(tmp_path.rglob("train"))
    assert any(".tmp-" in name for name in leftovers(tmp_path))
    assert len(opened(small_shapes, tmp_path)) == 24
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_a_sentence(small_shapes, tmp_path, python):
    refused = python(OPEN, small_shapes, tmp_path, 0, 20_000)
    output, errors = refused.communicate(timeout=60)
    last = output.splitlines()[-1]
    assert last.startswith("refused cannot write "), errors
    assert last.endswith("File too large")
    assert not list(tmp_path.rglob("*.u8"))


def test_too_small_a_disk_is_seen_before_decoding(small_shapes, tmp_path, monkeypatch):
    huge = DataConfig(
        name="voc2007", image_size=10**7, horizontal_flip=False, options=config().options
    )
    data = open_data(huge, str(small_shapes), str(tmp_path))
    with pytest.raises(InputError, match=r"cannot write .*it takes 7200000\.00 GB and"):
        data.split("train")


def _half_image_file(folder):
    content = (folder / "images.u8").read_bytes()
    (folder / "images.u8").write_bytes(content[: len(content) // 2])


def _another_version(folder):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"version": 0}))


def _rewritten(folder, sign=False, **changes):
    """Change tables of a split, and sign them as their writer would if asked to."""
    with np.load(folder / "annotations.npz") as file:
        tables = dict(file)
    tables |= {name: change(tables[name]) for name, change in changes.items()}
    np.savez(folder / "annotations.npz", **tables)
    if sign:
        content = (folder / "annotations.npz").read_bytes()
        meta = json.loads((folder / "meta.json").read_text())
        meta["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "meta.json").write_text(json.dumps(meta))


def _grey_images(folder):
    size = (folder / "images.u8").stat().st_size
    (folder / "images.u8").write_bytes(b"\x80" * size)


def _one_bit(name):
    def flip(folder):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 3] ^= 1
        (folder / name).write_bytes(content)

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        _grey_images,
        _one_bit("images.u8"),
        _one_bit("masks.u8"),
        _one_bit("annotations.npz"),
        lambda folder: _rewritten(folder, labels=lambda labels: ~labels),
        lambda folder: _rewritten(folder, sign=True, labels=lambda labels: ~labels),
        lambda folder: _rewritten(folder, sign=True, boxes=lambda boxes: boxes + 30),
        lambda folder: _rewritten(folder, sign=True, boxes=lambda boxes: boxes[:, ::-1]),
        lambda folder: _rewritten(folder, sign=True, box_classes=lambda classes: classes + 6),
        lambda folder: _rewritten(folder, sign=True, box_offsets=lambda offsets: offsets[::-1]),
        lambda folder: _rewritten(folder, sign=True, mask_offsets=lambda offsets: offsets * 0),
        lambda folder: _rewritten(folder, sign=True, groups=lambda groups: np.zeros(3, np.int64)),
        lambda folder: _rewritten(folder, sign=True, ids=lambda ids: ids[1:]),
        _half_image_file,
        _another_version,
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "annotations.npz").write_bytes(b"PK\x03\x04 torn"),
        lambda folder: (folder / "annotations.npz").unlink(),
        lambda folder: (folder / "masks.u8").write_bytes(b""),
    ],
)
def test_a_damaged_cache_is_built_anew(small_shapes, tmp_path, damage, caplog):
    first = opened(small_shapes, tmp_path)
    whole = first.images(np.arange(24))
    damage(next(tmp_path.glob("*/train")))
    calls = []
    again = opened(small_shapes, tmp_path, lambda *values: calls.append(values))
    assert len(calls) == 24
    assert torch.equal(again.images(np.arange(24)), whole)
    assert np.array_equal(again.labels, first.labels)
    assert "/train is damaged; its images are decoded again" in caplog.text


def test_a_complete_cache_may_be_read_only(small_shapes, tmp_path):
    opened(small_shapes, tmp_path)
    folder = next(tmp_path.iterdir())
    folder.chmod(0o555)
    try:
        assert len(opened(small_shapes, tmp_path)) == 24
    finally:
        folder.chmod(0o755)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache_folder("here").name == "here"
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    assert cache_folder(None) == tmp_path
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("MG_CACHE", "$SCRATCH/cache")
    assert cache_folder(None) == tmp_path / "cache"
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(InputError, match=r"the variable \$SCRATCH in '\$SCRATCH/cache' is not set"):
        cache_folder(None)
    monkeypatch.delenv("MG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "model-guidance-sweeps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "model-guidance-sweeps"


def test_the_default_cache_is_for_its_user_alone(small_shapes, tmp_path, monkeypatch):
    monkeypatch.delenv("MG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "model-guidance-sweeps"
    open_data(config(), small_shapes).split("val")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    open_data(config(), small_shapes).split("val")
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    sentence = rf"the cache {folder} belongs to another user \(id {os.getuid()}\); name a folder"
    with pytest.raises(InputError, match=sentence):
        open_data(config(), small_shapes)
    # A folder that is named is shared on purpose.
    assert len(open_data(config(), small_shapes, folder).split("val")) == 7


def test_an_unwritable_cache_is_a_sentence(small_shapes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        opened(small_shapes, tmp_path / "file")


def test_rows_are_copied_out_in_order(tmp_path):
    values = np.arange(7 * 6, dtype=np.uint8).reshape(7, 2, 3)
    (tmp_path / "rows").write_bytes(values.tobytes())
    rows = MappedRows(tmp_path / "rows", values.shape)
    chosen = np.array([6, 0, 0, 3])
    assert np.array_equal(rows.read(chosen), values[chosen])
    copied = rows.read(chosen)
    copied[:] = 0
    assert np.array_equal(rows.read(chosen), values[chosen])
    assert rows.read(np.array([], dtype=np.int64)).shape == (0, 2, 3)


@pytest.mark.parametrize("shape", [(7, 2, 3), (3, 5 * 2**20), (0, 4)])
def test_rows_are_compared_with_their_sums(tmp_path, shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "rows").write_bytes(values.tobytes())
    rows = MappedRows(tmp_path / "rows", shape)
    sums = np.array([zlib.crc32(row.tobytes()) for row in values], dtype=np.uint32)
    assert rows.have(sums)
    for row in range(len(values)):
        assert not rows.have(sums ^ (np.arange(len(sums)) == row))


READ_ALL = """
import sys
from pathlib import Path
import numpy as np
from mg_core.data.mapped import MappedRows

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {key: int(values[key].split()[0]) * 1024 for key in ("VmRSS", "RssFile")}

n_rows, row, batch = map(int, sys.argv[2:])
rows = MappedRows(Path(sys.argv[1]), (n_rows, row))
order = np.random.default_rng(0).permutation(n_rows)
before = resident()
highest = dict(before)
for start in range(0, n_rows, batch):
    rows.read(order[start : start + batch])
    highest = {key: max(value, highest[key]) for key, value in resident().items()}
print(highest["VmRSS"] - before["VmRSS"], highest["RssFile"] - before["RssFile"])
"""


@pytest.mark.parametrize("row", [12_288, 150_528])
def test_resident_memory_does_not_grow_with_the_data(tmp_path, python, row):
    n_rows = 6 * RESIDENT_LIMIT // row
    with (tmp_path / "rows").open("wb") as file:
        file.truncate(n_rows * row)
    reader = python(READ_ALL, tmp_path / "rows", n_rows, row, 64)
    output, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    total, of_the_file = map(int, output.split())
    assert 0 < of_the_file <= RESIDENT_LIMIT + 2**20
    # One batch of copies comes on top.
    assert total <= RESIDENT_LIMIT + 2 * 64 * row + 2**24
