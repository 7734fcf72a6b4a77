"""YOLO's folders, label files and data.yaml."""

from __future__ import annotations

import pytest
from exports import reader, verified, write_yolo

from mg_core.errors import InputError


def test_outlines_of_yolo_are_masks(photos, tmp_path):
    write_yolo(tmp_path, photos)
    (tmp_path / "labels/train/train 0.txt").write_text("1 0.1 0.2 0.9 0.2 0.9 0.8 0.1 0.8\n")
    opened = reader("yolo", tmp_path)
    record = next(r for r in opened.records("train") if r.id == "images/train/train 0.jpg")
    width, height = photos[0].size
    assert record.boxes[0][0] == 1
    assert record.boxes[0][1:] == pytest.approx(
        (0.1 * width, 0.2 * height, 0.9 * width, 0.8 * height), abs=0.01
    )
    (mask,) = opened.segmentation(record, 20).values()
    assert mask[5:15, 3:17].all()
    assert mask.sum() == pytest.approx(0.48 * 400, rel=0.15)
    assert not mask[:3].any()


def test_key_points_of_yolo_are_no_outline(photos, tmp_path):
    write_yolo(tmp_path, photos)
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text + "kpt_shape: [2, 2]\n")
    (tmp_path / "labels/train/train 0.txt").write_text("1 0.5 0.5 0.2 0.4 0.9 0.8 0.1 0.8\n")
    record = next(r for r in reader("yolo", tmp_path).records("train") if "train 0" in r.id)
    width, height = photos[0].size
    wanted = (1, 0.4 * width, 0.3 * height, 0.6 * width, 0.7 * height)
    assert record.boxes == (pytest.approx(wanted, abs=0.01),)
    assert record.segmentation is None


def test_lists_and_numbered_names_of_yolo(photos, tmp_path):
    write_yolo(tmp_path, photos)
    wanted = [r.boxes for r in reader("yolo", tmp_path).records("train")]
    names = sorted(path.name for path in (tmp_path / "images/train").iterdir())
    (tmp_path / "list.txt").write_text("".join(f"./images/train/{name}\n" for name in names))
    (tmp_path / "mine.yaml").write_text(
        "train: [list.txt]\nval: images/val\ntest: images/test\n"
        "names:\n  0: cat\n  1: dog\n  2: hedgehog\n"
    )
    opened = reader("yolo", tmp_path, file="mine.yaml")
    assert [r.boxes for r in opened.records("train")] == wanted
    (tmp_path / "list.txt").write_text("./images/train/gone.jpg\n/etc/passwd\n")
    found, _ = verified("yolo", tmp_path, file="mine.yaml")
    assert "list.txt line 1 names './images/train/gone.jpg', which is no" in found.problems[0]
    assert "list.txt line 2 names '/etc/passwd', which is no" in found.problems[1]


def test_labels_of_yolo_lie_beside_the_images_or_in_their_own_folder(photos, tmp_path):
    root = tmp_path / "images" / "mine"  # A name above the data folder means nothing.
    write_yolo(root, photos)
    wanted = [r.boxes for r in reader("yolo", root).records("train")]
    for path in (root / "labels/train").iterdir():
        path.rename(root / "images/train" / path.name)
    before = reader("yolo", root)
    assert [r.boxes for r in before.records("train")] == wanted
    (root / "images").rename(root / "pictures")
    text = (root / "data.yaml").read_text().replace("images/train", "pictures/train")
    (root / "data.yaml").write_text(text.replace("images/val", "pictures/val"))
    text = (root / "data.yaml").read_text().replace("images/test", "pictures/test")
    (root / "data.yaml").write_text(text)
    after = reader("yolo", root)
    assert [r.boxes for r in after.records("train")] == wanted
    first = after.fingerprint()
    with (root / "pictures/train/train 0.txt").open("a") as file:
        file.write("\n")
    assert reader("yolo", root).fingerprint() != first


def test_a_folder_of_roboflow_that_is_not_there(photos, tmp_path):
    write_yolo(tmp_path, photos)
    (tmp_path / "images/test").rename(tmp_path / "kept")
    with pytest.raises(InputError, match="no folder or list below"):
        reader("yolo", tmp_path).records("train")
    found, _ = verified("yolo", tmp_path)
    assert found.problems[0].endswith(
        f"test: 'images/test' is no folder or list below {tmp_path}; without this key, the images "
        f"are drawn"
    )
    text = (tmp_path / "data.yaml").read_text().replace("test: images/test\n", "test:\n")
    (tmp_path / "data.yaml").write_text(text)
    assert len(reader("yolo", tmp_path).records("test")) == 1


YAML = {
    "names: [a]\n": r"data\.yaml has no key 'train': it names a folder or a list",
    "train: images/train\n": r"data\.yaml has no key 'names'",
    "train: images/train\nnames: [yes]\n": r"names: 0: True is no class name by its number",
    "train: images/train\nnames: {a: b}\n": r"names: 'a': 'b' is no class name by its number",
    "train: images/train\nnames: [a, b]\nnc: 3\n": r"data\.yaml has nc: 3, and 2 names",
    "train: ../../x\nnames: [a]\n": r"data\.yaml, train: '\.\./\.\./x' is no folder or list below",
    "train: /etc\nnames: [a]\n": r"data\.yaml, train: '/etc' is no folder or list below",
    "train: [images/train]\nnames: [a]\n": r"txt line 1: class \d is not in data\.yaml, which",
    "- a\n": r"data\.yaml has no key 'names'",
    "a: [\n": r"data\.yaml line \d: not valid YAML",
}


@pytest.mark.parametrize("text", YAML)
def test_mistakes_in_yolos_yaml(photos, tmp_path, text):
    write_yolo(tmp_path, photos)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=YAML[text]):
        reader("yolo", tmp_path).records("train")


LABELS = {
    "1 0.5 0.5 0.1": r"train 0\.txt line 1: '1 0\.5 0\.5 0\.1' is no class x y w h, nor an outline",
    "1 0.5 0.5 0.1 0.1 0.9": r"is no class x y w h, nor an outline",
    "cat 0.5 0.5 0.1 0.1": r"is no class x y w h, nor an outline",
    "1 nan 0.5 0.1 0.1": r"is no class x y w h, nor an outline",
    "7 0.5 0.5 0.1 0.1": r"class 7 is not in data\.yaml, which has 0 to 2",
    "1.5 0.5 0.5 0.1 0.1": r"class 1\.5 is not in data\.yaml",
    "1 50 50 10 10": r"the box 45, 45, 55, 55 is no share of the image from 0 to 1",
}


@pytest.mark.parametrize("line", LABELS)
def test_mistakes_in_yolos_labels(photos, tmp_path, line):
    write_yolo(tmp_path, photos)
    (tmp_path / "labels/train/train 0.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=LABELS[line]):
        reader("yolo", tmp_path).records("train")
