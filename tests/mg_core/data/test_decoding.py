"""Images that are not as they were annotated: scaled, turned, copied, or with boxes in shares."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mg_core.data import DATASETS, data_config, open_data
from mg_core.data.decoding import RESIZED, TURNED, check_units, copies, shortcomings
from mg_core.data.reader import Box, Record
from mg_core.data.verification import verify
from mg_core.errors import InputError

BOX = (10, 8, 30, 24)
"""In an image of 60 × 40 pixels."""


def picture(number, size=(60, 40)):
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_voc(root, stored, box, orientation, annotated=(60, 40)):
    folder = root / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    size = "" if annotated is None else "<size><width>{}</width><height>{}</height></size>"
    for number, split in enumerate(("train", "val", "test")):
        save(folder / "JPEGImages" / f"{split}.jpg", number, stored, orientation)
        corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>".format(*box)
        (folder / "Annotations" / f"{split}.xml").write_text(
            f"<annotation>{size.format(*(annotated or ()))}<object><name>dog</name>"
            f"<bndbox>{corners}</bndbox></object></annotation>"
        )
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{split}\n")


def write_coco(root, stored, box, orientation, annotated=(60, 40)):
    (root / "annotations").mkdir(parents=True)
    x0, y0, x1, y1 = box
    for part, count in (("train", 2), ("val", 1)):
        (root / f"{part}2014").mkdir()
        images, things = [], []
        for k in range(count):
            name = f"{part}_{k}.jpg"
            save(root / f"{part}2014" / name, 2 * k + (part == "val"), stored, orientation)
            sides = {"width": annotated[0], "height": annotated[1]}
            images.append({"id": k, "file_name": name, **sides})
            outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            thing = {"image_id": k, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            things.append({**thing, "segmentation": outline})
        content = {"images": images, "annotations": things}
        content["categories"] = [{"id": 1, "name": "dog"}]
        path = root / "annotations" / f"instances_{part}2014.json"
        path.write_text(json.dumps(content))


def write_birds(root, stored, box, orientation, annotated=None):
    folder, cub = root / "waterbird_1.0_forest2water2", root / "CUB_200_2011"
    folder.mkdir(parents=True)
    cub.mkdir()
    rows = [["img_id", "img_filename", "y", "split", "place"]]
    for k in range(3):
        save(folder / f"{k}.jpg", k, stored, orientation)
        rows.append([k, f"{k}.jpg", 0, k, 0])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    x0, y0, x1, y1 = box
    lines = "".join(f"{k} {x0} {y0} {x1 - x0} {y1 - y0}\n" for k in range(3))
    (cub / "bounding_boxes.txt").write_text(lines)


def save(path, number, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(number, size).save(path, exif=exif, quality=95)


WRITERS = {"voc2007": write_voc, "coco2014": write_coco, "waterbirds100": write_birds}
SIZED = ["voc2007", "coco2014"]


def options(name):
    return {"coco2014": {"classes": "dog", "val_fraction": 0.5}, "voc2007": {"classes": "dog"}}.get(
        name, {}
    )


@pytest.fixture
def opened(tmp_path):
    """Write a set of pictures of one stored size and open it, with its verification."""

    def open_it(name, stored=(60, 40), box=BOX, orientation=1, **annotated):
        root = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        WRITERS[name](root, stored, box, orientation, **annotated)
        data = open_data(name, root, tmp_path / "cache", image_size=20, **options(name))
        config = data_config(name, 20, options=options(name))
        variant = DATASETS[name]
        return data, verify(variant(root, variant.Options(**config.options)), 20)

    return open_it


def drawn(data):
    return [data.split(split).masks([0], [0]).numpy() for split in ("train", "val", "test")]


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("stored", [(30, 20), (120, 80), (180, 120), (45, 30), (100, 67)])
def test_boxes_of_a_resized_picture_lie_on_its_objects(opened, caplog, name, stored):
    data, found = opened(name)
    wanted = drawn(data)
    # int(x / 3) from 3 to 10, int(y / 2) from 4 to 12.
    assert all(mask[0, 4:12, 3:10].all() and mask.sum() == 7 * 8 for mask in wanted)
    assert not found.splits["train"].oddities
    resized, found = opened(name, stored)
    assert all(np.array_equal(*pair) for pair in zip(drawn(resized), wanted, strict=True))
    if name == "coco2014":
        pixels = [d.split("train").segmentation([0], [0]).numpy() for d in (data, resized)]
        assert np.array_equal(*pixels)
        assert pixels[0].any()
    assert found.problems == []
    assert found.splits["train"].oddities == {RESIZED: 1}
    assert f"train split: 1 images {RESIZED}" in caplog.text


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize(
    ("stored", "orientation", "sentence"),
    [
        ((40, 60), 6, "are for 60 × 40: the picture is turned (EXIF orientation 6); turn its pix"),
        ((40, 60), 1, "are for 60 × 40: the picture is turned; turn its pixels"),
        ((80, 120), 8, "are for 60 × 40: the picture is turned (EXIF orientation 8)"),
        ((60, 60), 1, "has 60 × 60 pixels, but its annotations are for 60 × 40"),
    ],
)
def test_another_picture_than_the_annotated_one_is_refused(
    opened, name, stored, orientation, sentence
):
    data, found = opened(name, stored, orientation=orientation)
    assert len(found.problems) == 3
    assert all(sentence in problem for problem in found.problems)
    with pytest.raises(InputError) as caught:
        data.split("train")
    assert sentence in str(caught.value)
    assert not list(data.folder.rglob("*.u8"))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_of_stored_pixels_stay_as_they_are(opened, caplog, name, orientation):
    wanted = drawn(opened(name)[0])
    data, found = opened(name, orientation=orientation)
    assert all(np.array_equal(*pair) for pair in zip(drawn(data), wanted, strict=True))
    # Only a turn by a quarter of a picture that has an annotated size shows what boxes refer to.
    is_known = orientation == 6 and name in SIZED
    assert found.splits["train"].oddities == ({} if is_known else {TURNED: 1})
    assert found.problems == []
    assert (TURNED in caplog.text) != is_known


@pytest.mark.parametrize("name", WRITERS)
def test_reversed_corners_are_put_in_order(opened, name):
    wanted = drawn(opened(name)[0])
    data, found = opened(name, box=(BOX[2], BOX[3], BOX[0], BOX[1]))
    assert all(np.array_equal(*pair) for pair in zip(drawn(data), wanted, strict=True))
    assert found.splits["val"].flaws == {"with reversed corners": 1}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.6), (0, 0, 1, 1), (0.9, 0.25, 0.2, 1.0)])
def test_boxes_in_shares_of_the_image_are_refused(opened, name, box):
    data, found = opened(name, box=box)
    assert len(found.problems) == 3
    for problem, split in zip(found.problems, ("train", "val", "test"), strict=True):
        assert f"1 of 1 boxes of the {split} split lie under a pixel, as if given as" in problem
    with pytest.raises(InputError, match=r"\.jpg: 1 of 1 boxes of the train split lie under"):
        data.split("train")


def record(number, *boxes):
    found = tuple(Box(0, *box) for box in boxes)
    return Record(str(number), Path(f"{number}.jpg"), found)


def test_a_part_of_the_boxes_in_shares_is_refused_and_a_slip_is_not():
    share, pixels, nothing = (0.1, 0.2, 0.5, 0.6), (1, 2, 30, 40), (0, 0, 0, 0)
    check_units([record(1, *[pixels] * 39, share, nothing)], "train", "")
    check_units([record(1, pixels), record(2, share)], "train", "")  # One of two may be a slip.
    half = [record(1, pixels, pixels), record(2, share, pixels), record(3, share)]
    with pytest.raises(InputError, match=r"2\.jpg: 2 of 5 boxes of the val split .*; in pixels"):
        check_units(half, "val", "in pixels")


def test_a_test_split_without_labels_or_boxes_is_said():
    assert shortcomings([record(1), record(2, BOX)]) == ""
    assert "cannot be tested: no image of the test split has a label" in shortcomings([record(1)])
    labelled = Record("1", Path("1.jpg"), (), image_classes=(0,))
    assert "maps cannot be judged" in shortcomings([labelled])


def test_birds_that_lie_outside_of_smaller_pictures_are_told(opened, caplog):
    data, found = opened("waterbirds100", stored=(24, 16))
    data.split("train")
    sentence = "1 of 1 boxes of the train split reach out of their images: the images seem to be"
    assert sentence in caplog.text
    assert sentence in found.problems[0]
    assert len(found.problems) == 3


def test_a_voc_annotation_without_a_size_refers_to_the_stored_image(opened):
    wanted = drawn(opened("voc2007")[0])
    for annotated in (None, (0, 0), ("", ""), ("60.0", "40.0")):
        data, found = opened("voc2007", annotated=annotated)
        assert all(np.array_equal(*pair) for pair in zip(drawn(data), wanted, strict=True))
        assert not found.splits["train"].oddities


def test_copies_are_named_within_and_between_splits():
    contents = {
        "train": [("a", 1), ("b", 2), ("c", 1), ("d", 4)],
        "val": [("v", 2), ("w", 9)],
        "test": [("a", 1), ("x", 9), ("d", 4), ("y", 2), ("z", 1)],
    }
    assert copies(contents) == [
        "1 images of the train split are copies of others in it: c = a",
        "1 images of the val split are in the train split too: v = b",
        "4 images of the test split are in the train split too: a, d, y = b, …",
        "2 images of the test split are in the val split too: x = w, y = v",
        "1 images of the test split are copies of others in it: z = a",
    ]
    assert copies({"train": [("a", 1)], "val": [("b", 2)]}) == []


def test_copies_are_told_by_verify_and_before_training(devkit, tmp_path, caplog):
    devkit.image("val-0").write_bytes(devkit.image("train-1").read_bytes())
    devkit.image("test-1").write_bytes(devkit.image("train-1").read_bytes())
    devkit.image("test-0").write_bytes(devkit.image("test-1").read_bytes())
    variant = DATASETS["voc2007"]
    problems = verify(variant(devkit.root, variant.Options()), 16).problems
    assert problems == [
        "1 images of the val split are in the train split too: val-0 = train-1",
        "2 images of the test split are in the train split too: test-0 = train-1, test-1 = train-1",
        "2 images of the test split are in the val split too: test-0 = val-0, test-1 = val-0",
        "1 images of the test split are copies of others in it: test-1 = test-0",
    ]
    for _ in range(2):  # Also from arrays that were decoded before.
        caplog.clear()
        open_data("voc2007", devkit.root, tmp_path / "cache", image_size=16).prepare()
        assert [record.getMessage() for record in caplog.records] == problems


def test_a_sound_set_is_prepared_without_a_word(devkit, tmp_path, caplog):
    data = open_data("voc2007", devkit.root, tmp_path / "cache", image_size=16)
    data.prepare()
    assert caplog.records == []
    assert sorted(path.name for path in data.folder.iterdir()) == ["train", "val"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_refused_before_training(devkit, tmp_path, split):
    for number in range(2):
        devkit.write_objects(f"{split}-{number}")
    variant = DATASETS["voc2007"]
    sentence = f"no image of the {split} split has a label, so there is nothing to learn"
    problems = verify(variant(devkit.root, variant.Options()), 16).problems
    assert [problem.startswith(sentence) for problem in problems] == [True]
    with pytest.raises(InputError, match=sentence):
        open_data("voc2007", devkit.root, tmp_path / "cache", image_size=16).prepare()


@pytest.mark.parametrize("what", ["list", "image", "annotation"])
def test_a_test_split_that_cannot_be_read_is_told_before_training(devkit, tmp_path, caplog, what):
    path = devkit.list("test") if what == "list" else getattr(devkit, what)("test-1")
    path.unlink()
    if what == "list":
        data = open_data("voc2007", devkit.root, tmp_path / "cache", image_size=16)
        data.prepare()
        assert f"trained models cannot be tested: {path}" in caplog.text
    else:
        with pytest.raises(InputError, match=path.name):
            open_data("voc2007", devkit.root, tmp_path / "cache", image_size=16)
