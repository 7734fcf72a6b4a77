"""Mutated annotation files: a data set or a sentence, never a traceback or a partial cache."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from exports import WRITERS, photographs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.data.drawn.shapes import ShapesOptions, write_shapes
from mg_core.data.readers import DATASETS
from mg_core.data.verification import report_lines, verify
from mg_core.errors import InputError

SIZE = 24
SHAPES = ShapesOptions(train=3, val=2, test=2, size=SIZE)
TOKENS = (
    *(b"", b"0", b"-1", b"3", b"1e999", b"-1e308", b"NaN", b"Infinity", b"9" * 400, b"0.5"),
    *(b"null", b"true", b'""', b'"x"', b"[]", b"{}", b"[[]]", b"[" * 2000, b'{"a":' * 2000),
    *(b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\n", b"\r", b",", b'"', b"'", b" ", b"/"),
    *(b"../", b"<", b">", b"&amp;", b"&x;", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<object>"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"\x1b[2J", b"x" * 300, b"\xef\xbb\xbf"),
)

edits = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3)),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content, changes):
    for where, removed, added in changes:
        start = int(where * len(content))
        content = content[:start] + added + content[start + removed :]
    return content


def write_coco(root):
    (root / "annotations").mkdir(parents=True)
    pixels = np.zeros((20, 30), dtype=np.uint8)
    pixels[4:9, 2:20] = 1
    encoded = coco_mask.encode(np.asfortranarray(pixels))
    runs = {"size": [20, 30], "counts": encoded["counts"].decode()}
    plain = {"size": [20, 30], "counts": [40, 60, 500]}
    polygon = [[3, 3, 9, 3, 9, 9.5, 3, 9]]
    for part in ("train", "val"):
        (root / f"{part}2014").mkdir()
        names = [f"{part}_{number}.png" for number in range(3)]
        for name in names:
            Image.fromarray(pixels * 200).save(root / f"{part}2014" / name)
        content = {
            "images": [
                {"id": k, "file_name": name, "width": 30, "height": 20}
                for k, name in enumerate(names)
            ],
            "categories": [{"id": 7, "name": "wug"}, {"id": 9, "name": "blicket"}],
            "annotations": [
                {"id": k, "image_id": k, "category_id": category, "bbox": [3, 3.5, 6, 6],
                 "segmentation": outline, "iscrowd": 0}
                for k, (category, outline) in enumerate(((7, polygon), (9, runs), (7, plain)))
            ],
        }  # fmt: skip
        (root / "annotations" / f"instances_{part}2014.json").write_text(json.dumps(content))
    (root / "val.txt").write_text("1\n")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folder and configuration of a small data set of every layout."""
    root = tmp_path_factory.mktemp("fuzz")
    write_shapes(root / "voc", SHAPES)
    write_birds(root / "birds", BirdsOptions(train=10, val=10, test=10, size=SIZE))
    write_coco(root / "coco")
    options = {
        "voc2007": {"classes": ",".join(SHAPES.names)},
        "coco2014": {"classes": "wug,blicket", "val_list": "val.txt"},
        "waterbirds100": {},
    }
    folders = {"voc2007": "voc", "coco2014": "coco", "waterbirds100": "birds"}
    photos = photographs(root / "photographs", (("train", 3), ("val", 2), ("test", 2)))
    for name, write_set in WRITERS.items():
        write_set(root / name / "own", photos)
        folders[name], options[name] = f"{name}/own", {}
    return {
        name: (
            root / folder,
            DataConfig(name=name, image_size=8, horizontal_flip=False, options=options[name]),
        )
        for name, folder in folders.items()
    }


FILES = [
    ("voc2007", "VOCdevkit/VOC2007/Annotations/train_000000.xml"),
    ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/train.txt"),
    ("coco2014", "annotations/instances_train2014.json"),
    ("coco2014", "val.txt"),
    ("waterbirds100", "waterbird_1.0_forest2water2/metadata.csv"),
    ("waterbirds100", "CUB_200_2011/bounding_boxes.txt"),
    ("waterbirds100", "CUB_200_2011/images.txt"),
    ("csv", "annotations.csv"),
    ("yolo", "data.yaml"),
    ("yolo", "labels/train/train 0.txt"),
    ("labelme", "train/train 0.json"),
    ("coco", "train/_annotations.coco.json"),
]


def check(folder, config, cache):
    """Open the data set and verify it; whatever is wrong must be an InputError of one line."""
    try:
        split = open_data(config, str(folder), str(cache)).split("train")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        # A split is there completely or not at all.
        assert not list(cache.rglob("*.u8")) if cache.exists() else True
    else:
        everything = np.arange(len(split))
        split.masks(everything, split.labels.argmax(axis=1))
        split.segmentation(everything, split.labels.argmax(axis=1))
        assert split.images(everything).shape == (len(split), 3, 8, 8)
    variant = DATASETS[config.name]
    try:
        reader = variant(folder, variant.Options(**config.options))
    except InputError as error:  # The file of class names cannot be read.
        assert "\n" not in str(error)  # noqa: PT017
        return
    found = verify(reader, 8)
    assert all("\n" not in line for line in report_lines(found, ("a",)))


def fuzz(sets, tmp_path, name, file, count):
    folder, config = sets[name]
    path, cache = folder / file, tmp_path / "cache"
    whole = path.read_bytes()

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(edits)
    def run(changes):
        path.write_bytes(mutated(whole, changes))
        shutil.rmtree(cache, ignore_errors=True)
        check(folder, config, cache)

    try:
        run()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_few_mutated_files(sets, tmp_path, name, file):
    fuzz(sets, tmp_path, name, file, 25)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), FILES)
def test_ten_thousand_mutated_files(sets, tmp_path, name, file):
    fuzz(sets, tmp_path, name, file, 10_000)


@pytest.mark.parametrize("name", ["voc2007", "coco2014", "waterbirds100", *WRITERS])
def test_the_sets_are_whole_before_they_are_mutated(sets, tmp_path, name):
    folder, config = sets[name]
    data = open_data(config, str(folder), str(tmp_path))
    assert all(len(data.split(split)) for split in ("train", "val", "test"))
