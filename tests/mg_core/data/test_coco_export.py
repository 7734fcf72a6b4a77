"""Exports in COCO's format, in the places where programs put them."""

from __future__ import annotations

import pytest
from exports import CLASSES, reader, write_coco

from mg_core.data.reader import SPLITS
from mg_core.errors import InputError


def test_exports_of_cvat_and_others(photos, tmp_path):
    """One file of annotations for all images, in the places where programs put them."""
    named = [photo._replace(split="train") for photo in photos]
    write_coco(tmp_path / "one", named)
    content = (tmp_path / "one" / "train" / "_annotations.coco.json").read_text()
    boxes = {}
    for file, folder in (
        ("annotations/instances_default.json", "images/default"),
        ("annotations/instances_default.json", "images"),
        ("labels.json", "data"),
        ("_annotations.coco.json", "."),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_Train.json", "images/Train"),
    ):
        root = tmp_path / f"{len(boxes)}"
        for path in (root / file, root / folder / "x"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(content)
        for photo in photos:
            (root / folder / photo.path.name).write_bytes(photo.path.read_bytes())
        opened = reader("coco", root)
        assert opened.classes == CLASSES  # Without the category that nothing uses.
        records = [record for split in SPLITS for record in opened.records(split)]
        assert [len(opened.records(split)) for split in SPLITS] == [20, 2, 2]
        boxes[root] = sorted((r.id.rpartition("/")[2], r.boxes) for r in records)
    assert all(found == boxes[root] for found in boxes.values())
    assert reader("coco", root, file="annotations/instances_Train.json", images="images/Train")
    with pytest.raises(InputError, match=r"holds no COCO export: x/train\.json is missing"):
        reader("coco", root, file="x/{split}.json")


def test_a_wrong_folder_of_coco_is_named(photos, tmp_path):
    write_coco(tmp_path, photos)
    with pytest.raises(InputError, match=r"pictures/train 0\.jpg, named by .*images\[0\], is"):
        reader("coco", tmp_path, images="pictures").records("train")
