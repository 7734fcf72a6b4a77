"""The drawn decoy set against its own description, pixel by pixel."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from PIL import Image

from mg_core.counter import generator
from mg_core.data import data_config, open_data
from mg_core.data.drawn.decoy import GROUPS, DecoyOptions, draw_decoy, grey_of, write_decoy
from mg_core.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
OPTIONS = {"train": 40, "val": 20, "test": 60, "size": 32, "classes": 4, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoy") / "set"
    assert write_decoy(folder, DecoyOptions(**OPTIONS))
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "annotations.csv").open() as file:
        return list(csv.DictReader(file))


def hashed(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_patch_tells_the_label_in_training_and_lies_in_test(rows):
    names = ("ellipse", "rectangle", "triangle", "star")
    for row in rows:
        told = [grey_of(k, 4) for k in range(4)].index(int(row["grey"]))
        assert row["patch"] == GROUPS[names[told] == row["class"]]
    of_split = {s: [r["patch"] for r in rows if r["split"] == s] for s in ("train", "val", "test")}
    assert set(of_split["train"]) == set(of_split["val"]) == {"patch tells"}
    assert 0 < of_split["test"].count("patch tells") < 30, "one in four by chance"


def test_ten_classes_would_have_the_published_greys():
    assert [grey_of(k, 10) for k in (0, 1, 9)] == [255, 230, 30]
    greys = [grey_of(k, 6) for k in range(6)]
    assert min(greys) > 40
    assert np.diff(greys).tolist() == [-41] * 5


def test_every_pixel_of_patch_object_and_box_is_where_the_table_says(folder, rows):
    corners = set()
    for row in rows:
        image = np.asarray(Image.open(folder / row["path"]))
        mask = np.asarray(Image.open(folder / row["mask"])) != 0
        left, top, right, bottom = (
            int(row[f"patch_{key}"]) for key in ["xmin", "ymin", "xmax", "ymax"]
        )
        assert (image[top:bottom, left:right] == int(row["grey"])).all()
        assert (right - left, bottom - top) == (5, 5)
        assert not mask[top:bottom, left:right].any()
        corners.add((left, top))
        ys, xs = np.nonzero(mask)
        box = [int(row[key]) for key in CORNERS]
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        apart = box[2] <= left or box[0] >= right or box[3] <= top or box[1] >= bottom
        assert apart, "no box holds the patch"
    assert corners == {(x, y) for x in (0, 27) for y in (0, 27)}


def test_the_same_options_give_the_same_bytes_whatever_the_number(folder, tmp_path):
    again = DecoyOptions(**OPTIONS | {"train": 50})
    write_decoy(tmp_path / "again", again)
    ours, more = hashed(folder), hashed(tmp_path / "again")
    shared = [name for name in ours if name.endswith(".bmp")]
    assert len(shared) == 2 * 120
    assert all(ours[name] == more[name] for name in shared)
    write_decoy(tmp_path / "other", DecoyOptions(**OPTIONS | {"seed": 4}))
    other = hashed(tmp_path / "other")
    assert all(ours[name] != other[name] for name in shared)


def test_pictures_are_those_of_every_machine():
    picture = draw_decoy(generator(7, "a picture"), 32, 2, 200)
    digest = hashlib.sha256(picture.image.tobytes() + picture.mask.tobytes()).hexdigest()
    assert digest[:16] == "29b82a9f1e8a2d50"


def test_the_data_set_has_two_groups_and_masks(folder, tmp_path):
    data = open_data("decoy", folder, tmp_path, image_size=32, **OPTIONS)
    assert data.groups == GROUPS
    assert data.classes == ("ellipse", "rectangle", "triangle", "star")
    test = data.split("test")
    assert set(test.groups) == {0, 1}
    assert test.has_segmentation
    for index in range(len(test)):
        label = int(test.labels[index].argmax())
        box, objects = test.masks([index], [label]), test.segmentation([index], [label])
        assert objects.any()
        assert not (objects & ~box).any()
    data.prepare()


@pytest.mark.parametrize(("correlation", "val"), [(0.0, "train"), (0.5, "train"), (1.0, "test")])
def test_how_far_the_patch_tells_is_an_option(correlation, val, tmp_path):
    own = OPTIONS | {"train": 80, "val": 80, "correlation": correlation, "val_patches": val}
    write_decoy(tmp_path / "set", DecoyOptions(**own))
    with (tmp_path / "set" / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    chance = {"train": correlation, "val": correlation if val == "train" else 0.0, "test": 0.0}
    for split, share in chance.items():
        patches = [row["patch"] == "patch tells" for row in rows if row["split"] == split]
        expected = share + (1 - share) / 4
        error = 3 * np.sqrt(expected * (1 - expected) / len(patches))
        assert np.mean(patches) == pytest.approx(expected, abs=error + 1e-9)


def test_mistaken_options_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="val_patches"):
        data_config("decoy", options={"val_patches": "random"})
    with pytest.raises(InputError, match="correlation"):
        data_config("decoy", options={"correlation": 1.5})
