from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.boxes import FLAWS, box_flaws
from mg_core.data.decoding import RESIZED
from mg_core.data.drawn.shapes import Shapes
from mg_core.data.layouts.voc import Voc, VocOptions
from mg_core.data.verification import grouped, report_lines, verify


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


def test_copies_in_another_format_are_named(devkit):
    with Image.open(devkit.image("train-1")) as image:
        image.save(devkit.image("val-0").with_suffix(".png"))
    devkit.image("val-0").unlink()
    whole = devkit.image("train-0").read_bytes()
    # A comment, as a program for pictures adds one: other bytes, and the same pixels.
    devkit.image("test-1").write_bytes(whole[:2] + b"\xff\xfe\x00\x06mine" + whole[2:])
    found = verify(Voc(devkit.root, VocOptions()), 32)
    assert found.problems == [
        "1 images of the val split are in the train split too: val-0 = train-1",
        "1 images of the test split are in the train split too: test-1 = train-0",
    ]


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
        *(
            ("dog", 0, *corners)
            for corners in [(9, 9, 5, 5), (9, 5, 9, 9), (50, 3, 60, 9), (39, 2, 40.5, 9)]
        ),
    )
    devkit.write_objects("train-1", *[("dog", 0, 1, 1, 2, 2)] + [("dog", 0, 1, 1, 9, 9)] * 20)
    annotation = devkit.annotation("val-0").read_text()
    size = "<size><width>41</width><height>20</height></size>"
    devkit.annotation("val-0").write_text(annotation.replace("<annotation>", "<annotation>" + size))
    devkit.write_objects("val-1")
    found = verify(Voc(devkit.root, VocOptions()), 16)
    assert not found.problems
    assert found.splits["train"].flaws == dict.fromkeys(FLAWS, 1)
    assert found.splits["val"].oddities == {RESIZED: 1}
    assert found.splits["val"].n_without_labels == 1


@pytest.mark.parametrize(
    ("box", "flaw"),
    [
        ((0, 0, 40, 20), None),
        ((9, 9, 5, 12), FLAWS[0]),
        ((5, 5, 5, 9), FLAWS[1]),
        ((40, 5, 45, 9), FLAWS[2]),
        ((-9, -9, 0, 5), FLAWS[2]),
        ((0, 0, 40.5, 20), FLAWS[3]),
        ((3, 3, 5, 19), FLAWS[4]),
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
        "1 boxes with reversed corners were put in order; `mg-data verify` counts them",
        "1 boxes without area became one pixel at the nearest place; `mg-data verify` counts them",
    ]
    dog = data.classes.index("dog")
    # Reversed, the box spans 5 to 9 in both directions of an image of 40 × 20 pixels.
    assert split.masks([0], [dog])[0, 4:7, 2:3].all()
    assert split.masks([0], [dog]).sum() in (3, 4)


def test_masks_that_cannot_be_read_are_left_out(devkit, tmp_path, caplog):
    folder = devkit.folder / "SegmentationClass"
    folder.mkdir()
    Image.new("RGB", (40, 20)).save(folder / "val-1.png")
    Image.new("L", (20, 40)).save(folder / "val-0.png")
    Image.new("L", (80, 40)).save(folder / "test-0.png")
    found = verify(Voc(devkit.root, VocOptions()), 32)
    assert found.problems == []
    assert found.splits["val"].n_segmented == 0
    assert found.splits["test"].n_segmented == 1
    lines = "\n".join(report_lines(found, ("dog",)))
    assert "val-1.png is a RGB image; class ids need" in lines
    assert "val-0.png has 20 × 40 pixels and its image 40 × 20" in lines
    split = open_data("voc2007", devkit.root, tmp_path / "cache", image_size=8).split("val")
    assert not split.has_segmentation
    assert "val split: the masks of 2 images are left out: " in caplog.text


def test_problems_of_one_kind_are_grouped():
    many = [f"/d/a {n}.xml, object {n}: class 'c{n}' is not one of a, b" for n in range(2944)]
    lines = grouped([*many[:2000], "/d/x.jpg is missing", *many[2000:]], "problem: ")
    assert lines[:3] == [f"problem: {sentence}" for sentence in many[:3]]
    assert lines[3:] == [
        "problem: 2,941 more of this kind (2,944 in all)",
        "problem: /d/x.jpg is missing",
    ]
