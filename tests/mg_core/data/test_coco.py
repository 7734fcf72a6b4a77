from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.boxes import annotated_indices
from mg_core.data.layouts.coco import COCO_CLASSES, Coco, CocoOptions, stratified_draw
from mg_core.data.layouts.polygons import draw, parse_outline
from mg_core.errors import InputError

SIZE = 48


def config(size=SIZE, **options):
    return DataConfig(name="coco2014", image_size=size, horizontal_flip=False, options=options)


@pytest.fixture
def folder(coco_folder):
    return coco_folder


@pytest.fixture(scope="module")
def mini(real_data, tmp_path_factory):
    root = real_data / "coco2014_mini"
    return open_data(config(), str(root), str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_images_read_as_pycocotools_and_pillow_do(real_data, mini, split, capsys):
    part = "val" if split == "test" else "train"
    root = real_data / "coco2014_mini"
    reference = COCO(str(root / "annotations" / f"instances_{part}2014.json"))
    dense = {key: k for k, key in enumerate(sorted(reference.getCatIds()))}
    assert len(dense) == 80
    assert [reference.cats[key]["name"] for key in sorted(dense)] == list(COCO_CLASSES)
    found = mini.split(split)
    assert len(found) == {"train": 176, "val": 19, "test": 120}[split]
    everything = list(range(80))
    for index, name in enumerate(found.ids):
        info = reference.imgs[int(name)]
        with Image.open(root / f"{part}2014" / info["file_name"]) as image:
            resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        assert torch.equal(found.images([index])[0], pixels)
        boxes = np.zeros((80, SIZE, SIZE), dtype=bool)
        stored = np.zeros((80, info["height"], info["width"]), dtype=bool)
        labels = np.zeros(80, dtype=bool)
        for thing in reference.loadAnns(reference.getAnnIds(int(name), iscrowd=None)):
            k = dense[thing["category_id"]]
            labels[k] = True
            x, y, w, h = thing["bbox"]
            x0, x1 = (int(v * (SIZE / info["width"])) for v in (x, x + w))
            y0, y1 = (int(v * (SIZE / info["height"])) for v in (y, y + h))
            x0, y0 = min(x0, SIZE - 1), min(y0, SIZE - 1)
            boxes[k, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
            stored[k] |= reference.annToMask(thing).astype(bool)
        assert np.array_equal(found.labels[index], labels)
        assert np.array_equal(found.masks([index] * 80, everything).numpy(), boxes)
        objects = found.segmentation([index] * 80, everything).numpy()
        assert not objects[~labels].any()
        for k in np.flatnonzero(labels):
            whole = Image.fromarray(stored[k].astype(np.uint8))
            small = np.array(whole.resize((SIZE, SIZE), Image.Resampling.NEAREST))
            assert np.array_equal(objects[k], small.astype(bool))
        assert bool(found.segmented([index])[0]) == labels.any()


def test_images_without_annotations_are_negatives_without_boxes(mini):
    splits = [mini.split(name) for name in ("train", "val")]
    empty = [split.labels[~split.labels.any(axis=1)] for split in splits]
    assert sum(map(len, empty)) == 2
    train = splits[0]
    chosen = annotated_indices(train.labels, 0.1, 0)
    assert train.labels[chosen].any(axis=1).all()


def test_validation_is_drawn_by_seed_or_named_by_a_list(folder, tmp_path):
    def ids(**options):
        return [record.id for record in Coco(folder.root, CocoOptions(**options)).records("val")]

    assert len(ids(val_fraction=0.25)) == 3
    assert ids(val_fraction=0.25) == ids(val_fraction=0.25)
    assert len({tuple(ids(val_fraction=0.25, val_seed=seed)) for seed in range(5)}) > 1
    (folder.root / "mine.txt").write_text("103\n100\n")
    assert ids(val_list="mine.txt") == ["100", "103"]
    reader = Coco(folder.root, CocoOptions(val_list="mine.txt"))
    assert len(reader.records("train")) == 10
    before = reader.fingerprint()
    (folder.root / "mine.txt").write_text("103\n")
    assert reader.fingerprint() != before


@given(
    st.lists(st.sets(st.integers(0, 5), max_size=3), min_size=1, max_size=300),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_every_stratum_keeps_its_share(sets, fraction, seed):
    labels = np.zeros((len(sets), 6), dtype=bool)
    for row, classes in enumerate(sets):
        labels[row, list(classes)] = True
    drawn = stratified_draw(labels, fraction, seed)
    assert drawn.sum() == int(fraction * len(sets) + 1e-9)
    counts = labels.sum(axis=0).tolist()
    strata = [min(s, key=lambda k: (counts[k], k)) if s else None for s in sets]
    for stratum in set(strata):
        members = np.array([s == stratum for s in strata])
        assert abs(drawn[members].sum() - fraction * members.sum()) < 1 + 1e-6


def test_a_tenth_of_train2014_keeps_rare_classes():
    rng = np.random.default_rng(0)
    labels = rng.random((82_783, 80)) < np.geomspace(0.45, 0.002, 80)
    drawn = stratified_draw(labels, 0.1, 0)
    assert drawn.sum() == 8278
    share = labels[drawn].sum(axis=0) / labels.sum(axis=0)
    assert abs(share - 0.1).max() < 0.03


def test_classes_and_folders_of_ones_own(tmp_path):
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "train" / "deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "train" / "deep" / "a.png")
    Image.new("RGB", (8, 8)).save(root / "train" / "b.png")
    content = {
        "images": [
            {"id": 7, "file_name": "deep/a.png", "width": 8, "height": 8},
            {"id": 3, "file_name": "b.png", "width": 8, "height": 8},
        ],
        "categories": [{"id": 0, "name": "wug"}],
        "annotations": [{"image_id": 7, "category_id": 0, "bbox": [0, 0, 4, 4]}],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    options = {"year": "", "classes": "blicket, wug", "val_fraction": 0.5}
    data = open_data(config(8, **options), str(root), str(tmp_path / "cache"))
    found = [data.split(name) for name in ("train", "val")]
    assert sorted(i for split in found for i in split.ids) == ["3", "7"]
    assert data.classes == ("blicket", "wug")
    assert sum(split.labels[:, 1].sum() for split in found) == 1
    assert not any(split.has_segmentation for split in found)
    with pytest.raises(InputError, match=r"instances_val\.json is missing"):
        data.split("test")


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30))
def test_run_lengths_are_those_of_pycocotools(seed, width, height):
    rng = np.random.default_rng(seed)
    pixels = rng.random((height, width)) < rng.random()
    encoded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    size = [height, width]
    compressed = {"size": size, "counts": encoded["counts"].decode()}
    outline = parse_outline(compressed, width, height, "here")
    assert np.array_equal(draw(outline, width, height), pixels)
    plain = {"size": size, "counts": outline.tolist()}
    assert np.array_equal(draw(parse_outline(plain, width, height, "here"), width, height), pixels)


def test_fingerprint_follows_content_and_not_the_place(folder, tmp_path):
    before = Coco(folder.root, CocoOptions()).fingerprint()
    folder.image("train", 0).touch()
    folder.root.rename(tmp_path / "elsewhere")
    assert Coco(tmp_path / "elsewhere", CocoOptions()).fingerprint() == before
    image = tmp_path / "elsewhere" / "train2014" / "train_0.png"
    image.write_bytes(image.read_bytes() + b"x")
    assert Coco(tmp_path / "elsewhere", CocoOptions()).fingerprint() != before


def test_fingerprint_covers_what_the_annotations_name(folder):
    def fingerprints():
        reader = Coco(folder.root, CocoOptions())
        return reader.fingerprint(), reader.former_fingerprint()

    for item in folder.content["train"]["images"][:2]:
        name = item["file_name"] = item["file_name"].replace(".png", ".webp")
        Image.new("RGB", (40, 20)).save(folder.root / "train2014" / name)
    elsewhere = folder.root / "elsewhere"
    elsewhere.mkdir()
    (folder.root / "train2014" / "linked").symlink_to(elsewhere)
    item = folder.content["train"]["images"][2]
    item["file_name"] = 'linked/a "é".png'
    image = elsewhere / 'a "é".png'
    folder.image("train", 2).rename(image)
    folder.write()
    before = fingerprints()
    stray = folder.root / "train2014" / "._train_3.png"
    stray.write_bytes(b"a file that nothing names")
    (folder.root / "train2014" / "stray.webp").write_bytes(b"another")
    assert fingerprints()[0] == before[0]
    assert fingerprints()[1] != before[1]
    stray.unlink()
    for path in (folder.root / "train2014" / "train_1.webp", image, folder.image("train", 5)):
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[-1] ^= 1
        path.write_bytes(changed)
        assert fingerprints()[0] != before[0]
        assert fingerprints()[1] == before[1]  # Went by sizes, which is why it is the former one.
        path.write_bytes(whole)
    assert fingerprints() == before


def test_former_fingerprints_are_those_of_earlier_versions(folder):
    total = hashlib.sha256()
    root = folder.root
    for path in sorted((root / "annotations").iterdir()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root)}\0{content}\n".encode())
    for path in sorted(root.glob("*2014/*.png")):
        total.update(f"{path.relative_to(root)}\0{path.stat().st_size}\n".encode())
    assert Coco(root, CocoOptions()).former_fingerprint() == total.hexdigest()[:32]


def test_categories_that_nothing_uses_do_no_harm(folder, tmp_path):
    before = [record.boxes for record in Coco(folder.root, CocoOptions()).records("train")]
    for content in folder.content.values():
        content["categories"] += [
            {"id": 0, "name": "dog"}, {"id": 90, "name": "nothing"}, {"id": 91}, {"name": "x"}, 5
        ]  # fmt: skip
    folder.write()
    after = [record.boxes for record in Coco(folder.root, CocoOptions()).records("train")]
    assert after == before
    for category, sentence in (
        (90, r"annotations\[0\]: class 'nothing' is not one of person"),
        (91, r"categories\[4\]: 'name' is 'None', not a name"),
    ):
        folder.content["train"]["annotations"][0]["category_id"] = category
        folder.write()
        with pytest.raises(InputError, match=sentence):
            Coco(folder.root, CocoOptions()).records("train")


def test_other_classes_are_ignored_if_asked(folder, tmp_path):
    thing = folder.content["train"]["annotations"][3]
    thing["category_id"] = 1
    folder.content["train"]["annotations"].append({**thing, "id": 99, "category_id": 18})
    folder.write()
    with pytest.raises(
        InputError, match=r"annotations\[3\]: class 'person' is not one of dog; add"
    ):
        Coco(folder.root, CocoOptions(classes="dog")).records("train")
    some = CocoOptions(classes="dog", other_classes="ignore", val_fraction=0.2)
    splits = [Coco(folder.root, some).records(split) for split in ("train", "val")]
    assert sum(map(len, splits)) == 12
    (found,) = [r for records in splits for r in records if r.n_other]
    assert (found.id, found.boxes, found.n_other) == ("103", ((0, 4, 2, 12, 9),), 1)
    assert Coco(folder.root, some).segmentation(found, 20)[0].any()
    every = CocoOptions(other_classes="ignore")
    assert Coco(folder.root, every).records("train")  # The official names need not all be shown.
    with pytest.raises(InputError, match="no training image shows 'cat'; other classes there: p"):
        Coco(folder.root, CocoOptions(classes="dog,cat", other_classes="ignore")).records("train")


def test_a_limit_draws_images_of_each_split(folder):
    whole = Coco(folder.root, CocoOptions()).records("train")
    few = Coco(folder.root, CocoOptions(limit=4)).records("train")
    assert len(few) == 4
    ids = [record.id for record in whole]
    assert [record.id for record in few] == [name for name in ids if name in {r.id for r in few}]


def test_one_id_of_two_categories_is_refused_where_it_is_used(folder):
    folder.content["train"]["categories"].append({"id": 18, "name": "cat"})
    folder.write()
    with pytest.raises(InputError, match=r"categories\[2\] repeats id 18"):
        Coco(folder.root, CocoOptions()).records("train")


def test_a_flat_outline_is_one_polygon(folder):
    before = Coco(folder.root, CocoOptions()).records("train")
    for content in folder.content.values():
        for thing in content["annotations"]:
            thing["segmentation"] = thing["segmentation"][0]
    folder.write()
    reader = Coco(folder.root, CocoOptions())
    for one, other in zip(before, reader.records("train"), strict=True):
        masks = [reader.segmentation(record, 20) for record in (one, other)]
        assert list(masks[0]) == list(masks[1])
        assert all(np.array_equal(masks[0][key], masks[1][key]) for key in masks[0])


def annotation(**changes):
    return lambda f: f.content["train"]["annotations"][1].update(changes)


def image(**changes):
    return lambda f: f.content["train"]["images"][1].update(changes)


def _duplicate(f):
    f.content["train"]["images"][1]["id"] = 100


def _no_images(f):
    del f.content["train"]["images"]


BROKEN = {
    _no_images: r"instances_train2014\.json has no list 'images'",
    _duplicate: r"images\[1\] repeats id 100 of .*images\[0\]",
    image(file_name="../annotations/x.png"): r"images\[1\] names '\.\./annotations/x\.png', which",
    image(file_name="/etc/passwd"): r"images\[1\] names '/etc/passwd', which is no file below",
    image(file_name="a\0b"): r"images\[1\] names 'a\\x00b', which is no file below",
    image(file_name="\ud800"): r"images\[1\] names .*, which is no file below",
    image(file_name="x" * 5000): r"images\[1\] names 'xxx.*, which is no file below",
    image(file_name="gone.png"): r"gone\.png, named by .*images\[1\], is missing",
    image(width=0): r"images\[1\]: 0 × 20 is no size of an image",
    image(width=50): r"png has 40 × 20 pixels, but its annotations are for 50 × 20$",
    image(width=20, height=40): r"are for 20 × 40: the picture is turned; turn its pixels",
    annotation(image_id=5): r"annotations\[1\] is about image 5, which is not listed",
    annotation(category_id=99): r"annotations\[1\]: category 99 is not one of dog, person",
    annotation(id=1): r"annotations\[1\] repeats id 1",
    annotation(bbox=[1, 2, 3]): r"annotations\[1\]: bbox is \[1, 2, 3\], not four numbers",
    annotation(bbox=[1, 2, float("nan"), 4]): r"annotations\[1\]: bbox is .*, not four numbers",
    annotation(bbox=[1, 2, 10**400, 4]): r"annotations\[1\]: bbox is .*, not four numbers",
}  # fmt: skip


LEFT_OUT = {
    annotation(segmentation=[[1, 2, 3]]): r"annotations\[1\]: a polygon is no list of at least",
    annotation(segmentation=[[0, 0, 9, 9, 1e9, 3]]): r"annotations\[1\]: a polygon leads far out",
    annotation(segmentation={"size": [20, 40], "counts": [5]}): r"run lengths do not add up to",
    annotation(segmentation={"size": [20, 40], "counts": "\x7f"}): r"run lengths do not add up",
    annotation(segmentation={"size": [9, 9], "counts": [81]}): r"is no outline of 40 × 20 pixels",
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(LEFT_OUT)))
def test_outlines_that_cannot_be_drawn_are_left_out(folder, tmp_path, number, caplog):
    damage, sentence = list(LEFT_OUT.items())[number]
    damage(folder)
    folder.write()
    data = open_data(config(16), str(folder.root), str(tmp_path / "cache"))
    splits = [data.split(name) for name in ("train", "val")]
    assert sum(len(split) for split in splits) == 12
    for split in splits:
        with_masks = split.segmented(range(len(split))).tolist()
        assert with_masks == [name != "101" for name in split.ids]
    assert re.search(rf"the masks of 1 images are left out: .*{sentence}", caplog.text)


def read(root, cache):
    data = open_data(config(16), str(root), str(cache))
    for split in ("train", "val"):
        data.split(split)


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_broken_files_are_named_in_one_sentence(folder, tmp_path, number):
    damage, sentence = list(BROKEN.items())[number]
    damage(folder)
    folder.write()
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=sentence) as caught:
        read(folder.root, cache)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\ufeff{}", '{"images": 3}'])
def test_files_that_are_no_annotations(folder, content):
    (folder.root / "annotations" / "instances_train2014.json").write_text(content)
    with pytest.raises(InputError, match=r"instances_train2014\.json (is not|holds no|has no)"):
        Coco(folder.root, CocoOptions()).records("train")


def test_folders_that_are_no_coco(tmp_path):
    with pytest.raises(InputError, match=r"holds no COCO: .*instances_train2014\.json is missing"):
        open_data(config(), str(tmp_path))
