"""LabelMe's JSON files, one an image."""

from __future__ import annotations

import json

import pytest
from exports import CLASSES, reader, write_labelme

from mg_core.errors import InputError


def shapes_of(path, *shapes, **more):
    content = json.loads(path.read_text())
    content["shapes"] = [{"label": "cat", **shape} for shape in shapes]
    path.write_text(json.dumps(content | more))


def test_shapes_of_labelme(photos, tmp_path):
    write_labelme(tmp_path, photos)
    path = tmp_path / "train" / "train 0.json"
    polygon = {"shape_type": "polygon", "points": [[2, 3], [20, 3], [20, 30], [2, 30.5]]}
    circle = {"shape_type": "circle", "points": [[20, 15], [23, 19]]}
    line = {"shape_type": "line", "points": [[20, 15], [23, 19]]}
    shapes_of(path, polygon, circle)
    opened = reader("labelme", tmp_path)
    record = next(r for r in opened.records("train") if r.id == "train/train 0.jpg")
    assert record.boxes == ((0, 2, 3, 20, 30.5), (0, 15, 10, 25, 20))
    assert record.segmentation is None  # A circle has no outline.
    shapes_of(path, polygon)
    opened = reader("labelme", tmp_path)
    record = next(r for r in opened.records("train") if r.id == "train/train 0.jpg")
    masks = opened.segmentation(record, 64)
    width, height = photos[0].size
    assert masks[0].sum() / 64**2 == pytest.approx(18 * 27 / width / height, rel=0.1)
    shapes_of(path, line)
    with pytest.raises(InputError, match=r"shapes\[0\]: a line has no area; use rectangle,"):
        reader("labelme", tmp_path).records("train")
    shapes_of(path, {**line, "label": "way"})
    some = reader("labelme", tmp_path, classes=list(CLASSES), other_classes="ignore")
    record = next(r for r in some.records("train") if r.id == "train/train 0.jpg")
    assert (record.boxes, record.n_other) == ((), 1)


def test_images_of_labelme_lie_elsewhere_or_were_renamed(photos, tmp_path):
    write_labelme(tmp_path, photos)
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "train" / "train 0.json"
    path.with_suffix(".jpg").rename(tmp_path / "pictures" / "x.jpg")
    shapes_of(path, imagePath="..\\pictures\\x.jpg")
    shapes_of(tmp_path / "train" / "train 1.json", imagePath="C:\\mine\\old name.jpg")
    ids = [r.id for r in reader("labelme", tmp_path).records("train")]
    assert "pictures/x.jpg" in ids
    assert "train/train 1.jpg" in ids
    shapes_of(path, imagePath="../../x.jpg")
    with pytest.raises(InputError, match=r"names '\.\./x\.jpg', which is no file below"):
        reader("labelme", tmp_path).records("train")


SHAPES = {
    "{": r"train 0\.json is not valid JSON",
    "[]": r"train 0\.json holds no object with shapes",
    "{}": r"train 0\.json has no list 'shapes', so it is not LabelMe's",
    '{"shapes": [], "imagePath": 3}': r"'imagePath' is '3', not a name",
    '{"shapes": [3], "imagePath": "train 0.jpg"}': r"shapes\[0\]: 'label' is 'None', not a name",
    '{"shapes": [{"label": "a", "points": [[1, 2]]}]}': r"points are \[\[1, 2\]\], not two or more",
    '{"shapes": [{"label": "a", "points": [[1, 2], [3, "x"]]}]}': r"not two or more pairs x, y",
    '{"shapes": [], "imagePath": "train 0.jpg", "imageWidth": 0, "imageHeight": 3}': (
        r"0 × 3 is no size of an image"
    ),
}


@pytest.mark.parametrize("text", SHAPES)
def test_mistakes_in_labelmes_files(photos, tmp_path, text):
    write_labelme(tmp_path, photos)
    (tmp_path / "train" / "train 0.json").write_text(text)
    with pytest.raises(InputError, match=SHAPES[text]):
        reader("labelme", tmp_path).records("train")
