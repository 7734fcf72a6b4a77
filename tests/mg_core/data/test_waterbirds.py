from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.layouts.choice import LimitOptions
from mg_core.data.layouts.waterbirds import Waterbirds, read_boxes, read_metadata
from mg_core.errors import InputError

SIZE = 20
CONFIG = DataConfig(name="waterbirds100", image_size=SIZE, horizontal_flip=False, options={})
HEADER = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
ROWS = [
    *((0, 0, 0), (1, 0, 1), (0, 0, 0)),
    *((0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 1, 1)),
    *((0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1)),
]
"""y, split and place of each image."""


class Birds:
    """Eleven images of 40 × 30 pixels, to be broken by a test."""

    def __init__(self, root):
        self.root = root
        self.folder, self.cub = root / "waterbird_1.0_forest2water2", root / "CUB_200_2011"
        self.cub.mkdir(parents=True)
        self.rows, self.boxes, self.names = [HEADER], [], []
        rng = np.random.default_rng(0)
        for number, (y, split, place) in enumerate(ROWS, start=1):
            name = f"00{y}.Bird/bird_{number}.png"
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
            self.rows.append([number, name, y, split, place, "/f/forest.jpg"])
            # Not the number of the row: CUB has its own order.
            self.names.append([50 - number, name])
            self.boxes.append([50 - number, 4.0 + number, 6.0, 10.0, 12.0])
        self.write()

    def write(self):
        with (self.folder / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(self.rows)
        for name, rows in (("images.txt", self.names), ("bounding_boxes.txt", self.boxes)):
            lines = (" ".join(map(str, row)) + "\n" for row in rows)
            (self.cub / name).write_text("".join(lines))


@pytest.fixture
def birds(tmp_path):
    return Birds(tmp_path / "data")


@pytest.fixture
def data(birds, tmp_path):
    return open_data(CONFIG, str(birds.root), str(tmp_path / "cache"))


def box_mask(number):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    left, right = int((4 + number) * 0.5), int((14 + number) * 0.5)
    top, bottom = (int(y * (SIZE / 30)) for y in (6, 18))
    mask[top:bottom, left:right] = True
    return mask


def test_splits_groups_and_the_validation_filter(data):
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [3, 2, 4]
    assert list(data.split("val").ids) == ["000.Bird/bird_4", "001.Bird/bird_7"]
    assert data.split("test").groups.tolist() == [0, 1, 2, 3]
    assert data.tasks == ("conventional", "reversed")
    assert data.split("test") is data.split("test", "conventional")


def test_tasks_agree_in_training_and_differ_in_test(data):
    for name in ("train", "val"):
        conventional, reverse = (data.split(name, task) for task in data.tasks)
        assert np.array_equal(conventional.labels, reverse.labels)
    labels = {task: data.split("test", task).labels[:, 1].tolist() for task in data.tasks}
    assert labels["conventional"] == [False, False, True, True]
    assert labels["reversed"] == [False, True, False, True]
    assert (data.split("test", "reversed").labels.sum(axis=1) == 1).all()


def test_masks_are_inside_or_outside_the_box_of_the_label(data):
    for task in data.tasks:
        split = data.split("test", task)
        for index in range(4):
            inside = box_mask(8 + index)
            wanted = inside if task == "conventional" else ~inside
            label = int(split.labels[index].argmax())
            masks = split.masks([index, index], [label, 1 - label])
            assert torch.equal(masks[0], wanted)
            assert not masks[1].any()


def test_dilation_takes_from_what_lies_outside(data):
    conventional, reverse = (data.split("train", task) for task in data.tasks)
    assert torch.equal(reverse.masks([0, 1], [0, 1], 0.5), ~conventional.masks([0, 1], [0, 1], 0.5))
    assert reverse.masks([0], [0], 0.5).sum() < reverse.masks([0], [0]).sum()


def test_unknown_tasks_are_named(data, small_shapes, small_options):
    with pytest.raises(InputError, match="unknown task 'x'; this data set has conventional, rev"):
        data.split("val", "x")
    config = DataConfig(
        name="shapes",
        image_size=8,
        horizontal_flip=False,
        options=small_options.model_dump(exclude_none=True),
    )
    shapes = open_data(config, str(small_shapes))
    with pytest.raises(InputError, match="unknown task 'x'; this data set has no tasks"):
        shapes.split("val", "x")
    assert shapes.split("val").groups is None


def test_cub_ids_come_from_its_list_or_else_from_the_table(birds):
    with_list = Waterbirds(birds.root, LimitOptions()).records("train")
    (birds.cub / "images.txt").unlink()
    for row, box in zip(birds.rows[1:], birds.boxes, strict=True):
        row[0] = box[0]
    birds.write()
    (birds.cub / "images.txt").unlink()
    assert Waterbirds(birds.root, LimitOptions()).records("train") == with_list


def test_root_may_be_the_images_folder(birds):
    inside, above = (Waterbirds(p, LimitOptions()) for p in (birds.folder, birds.root))
    assert inside.fingerprint() == above.fingerprint()


def test_columns_may_come_in_any_order(birds):
    before = read_metadata(birds.folder / "metadata.csv")
    birds.rows = [row[::-1] for row in birds.rows]
    birds.write()
    assert read_metadata(birds.folder / "metadata.csv") == before


def test_the_real_lists_have_the_published_counts(real_data):
    folder = real_data / "waterbirds_lists"
    rows = read_metadata(folder / "metadata.csv")
    boxes = read_boxes(folder / "bounding_boxes.txt")
    assert len(rows) == len(boxes) == 11_788
    assert boxes["1"] == (60.0, 27.0, 385.0, 331.0)
    counts = np.zeros((3, 4), dtype=int)
    for row in rows:
        counts[row.split, row.group] += 1
    assert counts[0].tolist() == [3694, 0, 0, 1101]
    assert counts[1].sum() == 1199
    assert counts[1, 0] + counts[1, 3] == 600
    assert counts[2].tolist() == [2255, 2255, 642, 642]


def cell(column, value):
    return lambda b: b.rows[2].__setitem__(HEADER.index(column), value)


def _missing_column(b):
    b.rows = [[row[0], row[1], row[2], row[4]] for row in b.rows]


def _no_box(b):
    del b.boxes[1]


def _not_in_cub(b):
    del b.names[1]


def _bad_box(b):
    b.boxes[1] = [48, 1, "wide", 3, 4]


def _short_box(b):
    b.boxes[1] = [48, 1]


def _repeated_box(b):
    b.boxes[1] = b.boxes[0]


def _no_test(b):
    b.rows = [row for row in b.rows if row[3] != 2]


BROKEN = {
    _missing_column: r"metadata\.csv has no column 'split'; it needs img_id, img_filename, y",
    cell("y", 2): r"metadata\.csv line 3: y is '2'; choose from 0, 1",
    cell("split", ""): r"metadata\.csv line 3: split is ''; choose from 0, 1, 2",
    cell("place", "water"): r"metadata\.csv line 3: place is 'water'; choose from 0, 1",
    cell("img_filename", ""): r"metadata\.csv line 3: img_filename is empty",
    cell("img_filename", "../x.jpg"): r"line 3 names '\.\./x\.jpg', which is no file below",
    cell("img_filename", "x.jpg"): r"x\.jpg, named by .*metadata\.csv line 3, is missing",
    cell("img_filename", "000.Bird/bird_1.png"): r"line 3 repeats image 000.* of .*line 2",
    _no_box: r"image 48 of .*metadata\.csv line 3 has no line in bounding_boxes\.txt",
    _not_in_cub: r"bird_2\.png, named by .*metadata\.csv line 3, is not in .*images\.txt",
    _bad_box: r"bounding_boxes\.txt line 2: '1 wide 3 4' is no box x y w h",
    _short_box: r"bounding_boxes\.txt line 2 has 2 words, 5 are wanted",
    _repeated_box: r"bounding_boxes\.txt line 2 repeats image 49",
    _no_test: r"metadata\.csv lists no image of the test split",
}


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_broken_tables_are_named_in_one_sentence(birds, number):
    damage, sentence = list(BROKEN.items())[number]
    damage(birds)
    birds.write()
    with pytest.raises(InputError, match=sentence) as caught:
        read_all(birds.root)
    assert "\n" not in str(caught.value)


def read_all(root):
    reader = Waterbirds(root, LimitOptions())
    reader.fingerprint()
    for split in ("train", "val", "test"):
        reader.records(split)


def test_names_may_hold_spaces(birds):
    before = Waterbirds(birds.root, LimitOptions()).records("train")
    name = "000.Bird/a bird (1).png"
    (birds.folder / birds.rows[1][1]).rename(birds.folder / name)
    birds.rows[1][1] = birds.names[0][1] = name
    birds.write()
    after = Waterbirds(birds.root, LimitOptions()).records("train")
    assert [record.boxes for record in after] == [record.boxes for record in before]
    assert after[0].image == birds.folder / name


def test_fingerprint_follows_an_image_of_the_same_size(birds):
    reader = Waterbirds(birds.root, LimitOptions())
    before, former = reader.fingerprint(), reader.former_fingerprint()
    path = birds.folder / birds.rows[3][1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reader.fingerprint() != before
    assert reader.former_fingerprint() == former


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,"b\0'])
def test_files_that_are_no_table(birds, content):
    (birds.folder / "metadata.csv").write_bytes(content)
    with pytest.raises(InputError, match=re.escape("metadata.csv ")):
        read_all(birds.root)


def test_folders_that_are_no_waterbirds(tmp_path):
    with pytest.raises(InputError, match=r"holds no Waterbirds-100: .*metadata\.csv is missing"):
        open_data(CONFIG, str(tmp_path))


def test_a_limit_draws_images_of_each_split(birds):
    whole = Waterbirds(birds.root, LimitOptions()).records("train")
    few = Waterbirds(birds.root, LimitOptions(limit=2)).records("train")
    assert few == [record for record in whole if record in few]
    assert len(few) == 2
