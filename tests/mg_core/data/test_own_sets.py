"""Images of one's own: a table, YOLO, LabelMe and COCO exports say the same of the same images."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from exports import CLASSES, WRITERS, Photo, reader, verified, write_csv, write_yolo
from PIL import Image

from mg_core.data import DATASETS, Data, class_names, data_config, open_data
from mg_core.data.layouts.voc import VOC_CLASSES, Voc, VocOptions
from mg_core.data.reader import SPLITS, Reader
from mg_core.errors import InputError

SIZE = 48


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


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_other_programs_are_no_part_of_a_set(name, photos, tmp_path):
    WRITERS[name](tmp_path, photos)
    opened = reader(name, tmp_path)
    before, ids = opened.fingerprint(), [record.id for record in opened.records("train")]
    whole = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in whole:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 what macOS writes beside a file")
        hidden = path.parent / ".ipynb_checkpoints"
        hidden.mkdir(exist_ok=True)
        (hidden / path.name).write_bytes(path.read_bytes())
    opened = reader(name, tmp_path)
    assert opened.fingerprint() == before
    assert [record.id for record in opened.records("train")] == ids


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_linked_folders_are_read_and_a_loop_ends(name, photos, tmp_path):
    WRITERS[name](tmp_path / "set", photos)
    place = tmp_path / "set" / ("images/train" if name == "yolo" else "train")
    wanted = len(reader(name, tmp_path / "set").records("train"))
    (tmp_path / "elsewhere").mkdir()
    for path in place.glob("train 0.*"):
        path.rename(tmp_path / "elsewhere" / path.name)
    (place / "part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(place)
    assert len(reader(name, tmp_path / "set").records("train")) == wanted
    before = reader(name, tmp_path / "set").fingerprint()
    picture = tmp_path / "elsewhere" / "train 0.jpg"
    Image.new("RGB", photos[0].size).save(picture)
    assert reader(name, tmp_path / "set").fingerprint() != before
