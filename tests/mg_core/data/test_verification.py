from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.boxes import FLAWS, box_flaws
from mg_core.data.drawn.shapes import Shapes
from mg_core.data.layouts.voc import Voc, VocOptions
from mg_core.data.verification import report_lines, verify


def test_a_sound_set_is_counted(small_shapes, small_options):
    reader = Shapes(small_shapes, small_options)
    calls = []
    found = verify(reader, 48, lambda *values: calls.append(values))
    assert found.problems == []
    assert found.fingerprint == reader.fingerprint()
    assert calls[-1] == ("test", 5, 5)
    assert len(calls) == 36
    summary = found.splits["train"]
    records = reader.records("train")
    assert summary.n_images == summary.n_segmented == 24
    assert summary.boxes_by_class.total() == sum(len(record.boxes) for record in records)
    for k in range(6):
        wanted = sum(any(box.class_index == k for box in record.boxes) for record in records)
        assert summary.images_by_class[k] == wanted
    assert not summary.flaws
    lines = report_lines(found, reader.classes)
    assert lines[0].startswith("train: 24 images, ")
    assert lines[-1] == f"fingerprint {found.fingerprint}"


def test_everything_wrong_is_listed(devkit):
    devkit.annotation("train-0").write_text("<annotation>")
    devkit.write_objects("train-1", ("unicorn", 0, 1, 1, 5, 5))
    devkit.image("val-0").write_bytes(devkit.image("val-0").read_bytes()[:200])
    devkit.image("val-1").unlink()
    devkit.list("test").write_text("test-0\ntest-0\ntest-9\n")
    found = verify(Voc(devkit.root, VocOptions()), 32)
    problems = "\n".join(found.problems)
    assert len(found.problems) == 6
    for sentence in (
        "train-0.xml is not valid XML",
        "train-1.xml, object 1: class 'unicorn'",
        "val-0.jpg cannot be read as an image",
        "val-1.jpg, named by",
        "test.txt line 2 repeats image test-0",
        "test-9.xml, named by",
    ):
        assert sentence in problems
    assert found.fingerprint is None
    assert [found.splits[name].n_images for name in ("train", "val", "test")] == [0, 0, 1]
    lines = report_lines(found, ("dog",))
    assert "6 problems" in lines
    assert lines[-1] == "fingerprint none: files are missing"


def test_a_missing_list_is_one_of_the_problems(devkit):
    devkit.list("test").unlink()
    found = verify(Voc(devkit.root, VocOptions()), 32)
    assert list(found.splits) == ["train", "val"]
    assert len(found.problems) == 1
    assert "the image list of the test split, is missing" in found.problems[0]


def test_odd_boxes_and_sizes_are_counted(devkit):
    devkit.write_objects(
        "train-0",
        *(("dog", 0, *corners) for corners in [(9, 9, 5, 5), (50, 3, 60, 9), (-3, 2, 9, 9)]),
    )
    devkit.write_objects("train-1", ("dog", 0, 1, 1, 2, 2))
    annotation = devkit.annotation("val-0").read_text()
    size = "<size><width>41</width><height>20</height></size>"
    devkit.annotation("val-0").write_text(annotation.replace("<annotation>", "<annotation>" + size))
    devkit.write_objects("val-1")
    found = verify(Voc(devkit.root, VocOptions()), 16)
    assert not found.problems
    assert found.splits["train"].flaws == dict.fromkeys(FLAWS, 1)
    assert found.splits["val"].n_other_size == 1
    assert found.splits["val"].n_without_labels == 1


@pytest.mark.parametrize(
    ("box", "flaw"),
    [
        ((0, 0, 40, 20), None),
        ((5, 5, 5, 9), FLAWS[0]),
        ((9, 5, 5, 9), FLAWS[0]),
        ((40, 5, 45, 9), FLAWS[1]),
        ((-9, -9, 0, 5), FLAWS[1]),
        ((0, 0, 40.5, 20), FLAWS[2]),
        ((3, 3, 5, 19), FLAWS[3]),
        ((3, 3, 7, 19), None),
    ],
)
def test_each_box_is_counted_once(box, flaw):
    found = box_flaws(np.array([box], dtype=np.float64), 40, 20, 10)
    assert found == ({flaw: 1} if flaw else {})


def test_repaired_boxes_are_a_counted_warning(devkit, tmp_path, caplog):
    devkit.write_objects("train-0", ("dog", 0, 9, 9, 5, 5), ("dog", 0, 8, 8, 8, 9))
    config = DataConfig(name="voc2007", image_size=16, horizontal_flip=False, options={})
    with caplog.at_level(logging.WARNING):
        data = open_data(config, str(devkit.root), str(tmp_path / "cache"))
        split = data.split("train")
        data.split("val")
    assert [record.getMessage() for record in caplog.records] == [
        "2 boxes without area became one pixel at the nearest place; `mg-data verify` counts them"
    ]
    dog = data.classes.index("dog")
    assert split.masks([0], [dog]).sum() in (1, 2)


def test_a_mask_that_cannot_be_read_is_a_problem(devkit):
    folder = devkit.folder / "SegmentationClass"
    folder.mkdir()
    Image.new("RGB", (40, 20)).save(folder / "val-1.png")
    found = verify(Voc(devkit.root, VocOptions()), 32)
    assert len(found.problems) == 1
    assert "val-1.png is a RGB image; class ids need" in found.problems[0]
