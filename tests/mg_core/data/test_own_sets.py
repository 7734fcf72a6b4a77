"""Images of one's own: a table, YOLO, LabelMe and COCO exports say the same of the same images."""

from __future__ import annotations

import numpy as np
import pytest
from exports import CLASSES, WRITERS, photographs
from PIL import Image

from mg_core.data import data_config, open_data
from mg_core.data.dataset import open_reader
from mg_core.data.layouts.voc import VOC_CLASSES, Voc, VocOptions
from mg_core.data.reader import SPLITS
from mg_core.data.verification import report_lines, verify

SIZE = 48


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("own") / "photographs")


def reader(name, root, **options):
    return open_reader(data_config(name, SIZE, options=options), root)


def verified(name, root, **options):
    opened = reader(name, root, **options)
    found = verify(opened, SIZE)
    return found, "\n".join(report_lines(found, opened.classes))


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_drawn_is_what_is_read(name, photos, tmp_path):
    WRITERS[name](tmp_path / "set", photos)
    data = open_data(data_config(name, SIZE), tmp_path / "set", tmp_path / "cache")
    data.prepare()
    assert data.classes == CLASSES
    for split in SPLITS:
        found = data.split(split)
        wanted = {photo.path.name: photo for photo in photos if photo.split == split}
        assert sorted(item.rpartition("/")[2] for item in found.ids) == sorted(wanted)
        for index, item in enumerate(found.ids):
            photo = wanted[item.rpartition("/")[2]]
            masks = np.zeros((3, SIZE, SIZE), dtype=bool)
            for label, *corners in photo.objects:
                x0, x1 = (int(x * (SIZE / photo.size[0])) for x in corners[::2])
                y0, y1 = (int(y * (SIZE / photo.size[1])) for y in corners[1::2])
                masks[CLASSES.index(label), y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
            assert np.array_equal(found.masks([index] * 3, [0, 1, 2]).numpy(), masks)
            assert np.array_equal(found.labels[index], masks.any(axis=(1, 2)))
            with Image.open(photo.path) as image:
                small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            assert np.array_equal(found.images([index])[0].permute(1, 2, 0), np.asarray(small))


@pytest.fixture(scope="module")
def devkit_photos(real_data):
    """The photographs of the VOC set, as its own reader reads them."""
    from exports import Photo

    voc = Voc(real_data / "voc2007_mini", VocOptions())
    return [
        Photo(
            split,
            record.image,
            record.size,
            tuple((VOC_CLASSES[box.class_index], *box[1:]) for box in record.boxes),
        )
        for split in SPLITS
        for record in voc.records(split)
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_photographs_are_those_of_the_voc_reader(name, devkit_photos, real_data, tmp_path):
    root = tmp_path / "set"
    if name in ("yolo", "coco"):
        WRITERS[name](root, devkit_photos, VOC_CLASSES)
    else:
        WRITERS[name](root, devkit_photos)
    classes = ",".join(VOC_CLASSES)
    voc = open_data("voc2007", real_data / "voc2007_mini", tmp_path / "a", image_size=SIZE)
    own = open_data(name, root, tmp_path / "b", image_size=SIZE, classes=classes)
    assert own.classes == voc.classes
    every = np.arange(20)
    for split in SPLITS:
        ours, theirs = own.split(split), voc.split(split)
        places = {item.rpartition("/")[2].rpartition(".")[0]: i for i, item in enumerate(ours.ids)}
        order = [places[item] for item in theirs.ids]
        assert len(ours) == len(theirs)
        assert np.array_equal(ours.images(order), theirs.images(np.arange(len(theirs))))
        assert np.array_equal(ours.labels[order], theirs.labels)
        for index, other in enumerate(order):
            for k in np.flatnonzero(theirs.labels[index]):
                assert np.array_equal(ours.boxes(other, k), theirs.boxes(index, k))
            assert np.array_equal(
                ours.masks([other] * 20, every, 0.1), theirs.masks([index] * 20, every, 0.1)
            )
