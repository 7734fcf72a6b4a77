"""Images of one's own: a table, YOLO, LabelMe and COCO exports say the same of the same images."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
from exports import (
    CLASSES,
    WRITERS,
    Photo,
    photographs,
    write_coco,
    write_csv,
    write_labelme,
    write_yolo,
)
from PIL import Image

from mg_core.data import DATASETS, Data, class_names, data_config, open_data
from mg_core.data.dataset import open_reader
from mg_core.data.layouts.voc import VOC_CLASSES, Voc, VocOptions
from mg_core.data.reader import SPLITS, Reader
from mg_core.data.verification import report_lines, verify
from mg_core.errors import InputError

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


@pytest.mark.parametrize("name", WRITERS)
def test_only_some_classes(name, photos, tmp_path):
    WRITERS[name](tmp_path, photos)
    everything = {split: reader(name, tmp_path).records(split) for split in SPLITS}
    chosen = reader(name, tmp_path, classes=["dog", "cat"], other_classes="ignore")
    for split in SPLITS:
        wanted = {
            record.id: sorted(("dog", "cat").index(CLASSES[b.class_index]) for b in record.boxes
                              if b.class_index < 2)
            for record in everything[split]
        }  # fmt: skip
        found = {r.id: sorted(b.class_index for b in r.boxes) for r in chosen.records(split)}
        assert found == wanted  # Images without any stay, as negatives.
        n_boxes = sum(len(r.boxes) for r in everything[split])
        n_other = sum(r.n_other for r in chosen.records(split))
        assert n_other == n_boxes - sum(map(len, found.values())) > 0
    _, text = verified(name, tmp_path, classes="dog,cat", other_classes="ignore")
    assert text.count(" objects of other classes left out") == 3
    with pytest.raises(InputError, match=r"class 'hedgehog' is not one of cat, dog; add it to the"):
        reader(name, tmp_path, classes=["cat", "dog"]).records("train")
    with pytest.raises(InputError, match=r"no training image shows 'cta'; other .*: cat, hedgehog"):
        reader(name, tmp_path, classes="cta,dog", other_classes="ignore").records("train")


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_draws_some_images_of_each_split(name, photos, tmp_path):
    WRITERS[name](tmp_path, photos)
    everything = [r.id for r in reader(name, tmp_path).records("train")]
    few = [r.id for r in reader(name, tmp_path, limit=3).records("train")]
    more = [r.id for r in reader(name, tmp_path, limit=7).records("train")]
    assert (len(few), len(more)) == (3, 7)
    assert set(few) < set(more) < set(everything)
    assert more == [item for item in everything if item in more] != everything[:7]
    assert len(reader(name, tmp_path, limit=3).records("test")) == 3
    assert data_config(name, options={"limit": 3}).key != data_config(name).key
    assert reader(name, tmp_path, limit=100).records("train") == reader(name, tmp_path).records(
        "train"
    )


ODD = (
    ("cat", 30, 20, 10, 5),
    ("cat", 45, 25, 60, 35),
    ("cat", -9, 3, 12, 12),
    ("dog", 5, 5, 5.2, 9),
)


@pytest.mark.parametrize("name", WRITERS)
def test_odd_boxes_are_counted_and_repaired(name, photos, tmp_path):
    path = tmp_path / "odd.png"
    Image.new("RGB", (40, 20), "red").save(path)
    odd = Photo("train", path, (40, 20), ODD)
    WRITERS[name](tmp_path / "set", [*photos, odd])
    _, text = verified(name, tmp_path / "set")
    # Any two corners make a rectangle of LabelMe.
    assert ("  1 boxes with reversed corners\n" in text) == (name != "labelme")
    assert "  1 boxes outside their image\n" in text
    assert "  1 boxes partly outside their image\n" in text
    assert "  1 boxes under a pixel as trained on\n" in text


@pytest.mark.parametrize("name", WRITERS)
def test_turned_pictures_and_copies_are_said(name, photos, tmp_path):
    turned, copied = tmp_path / "turned.jpg", tmp_path / "copied.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 60), "blue").save(turned, exif=exif)
    copied.write_bytes(photos[0].path.read_bytes())
    more = [
        Photo("train", turned, (60, 60), (("cat", 3, 3, 20, 20),)),
        Photo("test", copied, photos[0].size, photos[0].objects),
    ]
    WRITERS[name](tmp_path / "set", [*photos, *more])
    found, text = verified(name, tmp_path / "set")
    assert "  1 images that EXIF tags turn: the boxes are taken for stored pixels\n" in text
    assert "1 images of the test split are in the train split too" in found.problems[-1]


def test_shares_of_a_turned_picture_are_said_to_be_of_stored_pixels(tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30), "blue").save(turned, exif=exif)
    photos = [Photo(s, turned, (60, 30), (("cat", 3, 3, 20, 20),)) for s in SPLITS]
    write_yolo(tmp_path / "set", photos)
    _, text = verified("yolo", tmp_path / "set")
    assert "  1 images that EXIF tags turn: the boxes are taken for stored pixels\n" in text


@pytest.mark.parametrize("name", WRITERS)
def test_fingerprints_cover_every_file_that_is_read(name, photos, tmp_path):
    root = tmp_path / "set"
    WRITERS[name](root, photos)
    before = reader(name, root).fingerprint()
    (root / "notes.txt").write_text("not ours")
    (root / "stray.jpg").write_bytes(photos[0].path.read_bytes())
    assert reader(name, root).fingerprint() == before
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    seen = {before}
    for path in files:
        if path.name in ("notes.txt", "stray.jpg"):
            continue
        whole = path.read_bytes()
        path.write_bytes(whole + b"\n")
        seen.add(reader(name, root).fingerprint())
        path.write_bytes(whole)
    assert len(seen) == len(files) - 2 + 1
    copy = root.rename(tmp_path / "copy")
    assert reader(name, copy).fingerprint() == before


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_read_does_not_stay_in_memory(name, photos, tmp_path):
    WRITERS[name](tmp_path / "set", photos)
    opened = reader(name, tmp_path / "set")
    data = Data(data_config(name, SIZE), opened, tmp_path / "cache")
    assert "_content" not in vars(opened)
    data.prepare()
    assert "_content" not in vars(opened)
    assert len(data.split("test")) == 6
    assert "_content" not in vars(opened)
    assert len(opened.records("train")) == 12


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_image_is_named_with_the_place_that_names_it(name, photos, tmp_path):
    WRITERS[name](tmp_path, photos)
    (path,) = tmp_path.rglob("train 3.jpg")
    path.unlink()
    if name == "yolo":  # Its folder of images is the list.
        assert len(reader(name, tmp_path).records("train")) == 11
        return
    with pytest.raises(InputError, match=r"train 3\.jpg, named by .+, is missing"):
        reader(name, tmp_path).records("train")


@pytest.mark.parametrize("name", WRITERS)
def test_class_names_need_no_folder_if_they_are_given(name):
    assert class_names(data_config(name, options={"classes": ["b", "a"]}), "/gone") == ("b", "a")
    with pytest.raises(InputError, match="data folder /gone does not exist"):
        class_names(data_config(name), "/gone")


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_the_set_is_a_sentence(name, tmp_path):
    with pytest.raises(InputError, match=r" is missing|there is no JSON file"):
        reader(name, tmp_path)


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


YAML = {
    "names: [a]\n": r"data\.yaml has no key 'train': it names a folder or a list",
    "train: images/train\n": r"data\.yaml has no key 'names'",
    "train: images/train\nnames: [yes]\n": r"names: 0: True is no class name by its number",
    "train: images/train\nnames: {a: b}\n": r"names: 'a': 'b' is no class name by its number",
    "train: images/train\nnames: [a, b]\nnc: 3\n": r"data\.yaml has nc: 3, and 2 names",
    "train: ../../x\nnames: [a]\n": r"data\.yaml names '\.\./\.\./x', which is not below",
    "train: /etc\nnames: [a]\n": r"data\.yaml names '/etc', which is not below",
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


def test_the_reader_of_the_documentation_reads_as_the_one_that_is_there(
    photos, tmp_path, monkeypatch
):
    (example,) = doctest.DocTestFinder(recurse=False).find(Reader, "Reader", globs={})
    sources = [line.source for line in example.examples]
    assert len(sources[-1].splitlines()) <= 22
    monkeypatch.setattr(DATASETS, "_variants", dict(DATASETS))
    exec("".join(sources), {})
    write_csv(tmp_path, photos)
    kept = [
        row for row in (tmp_path / "annotations.csv").read_text().splitlines() if ",," not in row
    ]
    text = "\n".join(kept).replace("cat", "robin").replace("dog", "wren")
    text = "\n".join(row for row in text.splitlines() if "hedgehog" not in row)
    (tmp_path / "birds.csv").write_text(text)
    data = open_data("robins", tmp_path, tmp_path / "cache", image_size=SIZE)
    ours = reader("csv", tmp_path, file="birds.csv")
    assert data.classes == ours.classes
    for split in SPLITS:
        wanted = [(record.id, record.boxes) for record in ours.records(split)]
        assert [(r.id, r.boxes) for r in reader("robins", tmp_path).records(split)] == wanted
        assert len(data.split(split)) == len(wanted)
