from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import VOCDetection

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.layouts.voc import VOC_CLASSES, Voc, VocOptions, read_annotation
from mg_core.errors import InputError

SIZE = 64


def config(size=SIZE, **options):
    return DataConfig(name="voc2007", image_size=size, horizontal_flip=False, options=options)


@pytest.fixture(scope="module")
def mini(real_data, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return open_data(config(), str(real_data / "voc2007_mini"), str(cache))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_devkit_reads_as_torchvision_and_pillow_do(real_data, mini, split):
    found = mini.split(split)
    root = real_data / "voc2007_mini"
    reference = VOCDetection(str(root), year="2007", image_set=split)
    assert len(found) == len(reference) > 50
    # The devkit's folder for masks; its files are found by id alone.
    mask_folder = root / "VOCdevkit" / "VOC2007" / "SegmentationClass"
    n_segmented = 0
    for index, (image, target) in enumerate(reference):
        annotation = target["annotation"]
        assert found.ids[index] == annotation["filename"].removesuffix(".jpg")
        resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        assert torch.equal(found.images([index])[0], pixels)
        masks = {}
        for thing in annotation["object"]:
            corners = {key: int(value) for key, value in thing["bndbox"].items()}
            x0, x1 = (int(corners[key] * (SIZE / image.width)) for key in ("xmin", "xmax"))
            y0, y1 = (int(corners[key] * (SIZE / image.height)) for key in ("ymin", "ymax"))
            mask = masks.setdefault(thing["name"], torch.zeros(SIZE, SIZE, dtype=torch.bool))
            mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
        assert {VOC_CLASSES[k] for k in np.flatnonzero(found.labels[index])} == set(masks)
        every_class = list(range(20))
        drawn = found.masks([index] * 20, every_class)
        for k in every_class:
            wanted = masks.get(VOC_CLASSES[k], torch.zeros(SIZE, SIZE, dtype=torch.bool))
            assert torch.equal(drawn[k], wanted)
        mask_file = mask_folder / f"{found.ids[index]}.png"
        assert bool(found.segmented([index])[0]) == mask_file.is_file()
        if mask_file.is_file():
            n_segmented += 1
            with Image.open(mask_file) as stored:
                ids = np.array(stored.resize((SIZE, SIZE), Image.Resampling.NEAREST))
            pixels = found.segmentation([index] * 20, every_class)
            for k in every_class:
                assert np.array_equal(pixels[k].numpy(), ids == k + 1)
    assert n_segmented > 0


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_root_may_be_any_of_the_devkits_folders(devkit, tmp_path, below):
    data = open_data(config(), str(devkit.root / below), str(tmp_path / "cache"))
    assert list(data.split("val").ids) == ["val-0", "val-1"]


def test_difficult_objects_are_labels_and_boxes(devkit, tmp_path):
    devkit.write_objects("train-0", ("dog", 0, 0, 0, 20, 10), ("cat", 1, 20, 10, 40, 20))
    split = open_data(config(40), str(devkit.root), str(tmp_path / "cache")).split("train")
    assert {VOC_CLASSES[k] for k in np.flatnonzero(split.labels[0])} == {"cat", "dog"}
    mask = split.masks([0], [VOC_CLASSES.index("cat")])
    assert mask[0, 20:, 20:].all()
    assert mask.sum() == 400


def test_coordinates_may_be_floats(devkit):
    devkit.write_objects("val-0", ("dog", 0, 1.5, "2.25", 3e0, " 7 "))
    objects, _ = read_annotation(devkit.annotation("val-0"))
    assert [(found.name, *found.corners) for found in objects] == [("dog", 1.5, 2.25, 3.0, 7.0)]


def test_parts_of_an_object_are_no_objects(devkit):
    devkit.annotation("val-0").write_text(
        "<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
        "<ymax>4</ymax></bndbox><part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></part></object></annotation>"
    )
    objects, _ = read_annotation(devkit.annotation("val-0"))
    assert [(found.name, *found.corners) for found in objects] == [("dog", 1, 2, 3, 4)]


def test_classes_of_ones_own(devkit, tmp_path):
    for split in ("train", "val", "test"):
        for number in range(2):
            devkit.write_objects(f"{split}-{number}", ("wug", 0, 1, 1, 5, 5))
    mine = config(16, classes="blicket, wug")
    data = open_data(mine, str(devkit.root), str(tmp_path / "cache"))
    assert data.classes == ("blicket", "wug")
    assert data.split("train").labels.tolist() == [[False, True]] * 2


def test_other_classes_are_ignored_if_asked(devkit):
    devkit.write_objects("train-0", ("cat", 0, 0, 0, 20, 10), ("yeti", 1, 20, 10, 40, 20))
    devkit.write_objects("train-1", ("yeti", 0, 4, 2, 12, 9))
    with pytest.raises(InputError, match=r"train-0\.xml, object 2: class 'yeti' is not one of"):
        Voc(devkit.root, VocOptions(classes="cat")).records("train")
    reader = Voc(devkit.root, VocOptions(classes="cat", other_classes="ignore"))
    found = reader.records("train")
    assert [(r.id, r.boxes, r.n_other) for r in found] == [
        ("train-0", ((0, 0, 0, 20, 10),), 1), ("train-1", (), 1),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no training image shows 'dog'; other classes there: y"):
        Voc(devkit.root, VocOptions(classes="cat,dog", other_classes="ignore")).records("train")


def test_masks_that_number_other_classes_are_left_out(devkit):
    folder = devkit.folder / "SegmentationClass"
    folder.mkdir()
    Image.fromarray(np.ones((20, 40), dtype=np.uint8)).save(folder / "train-0.png")
    some = Voc(devkit.root, VocOptions(classes="dog,wug", other_classes="ignore"))
    devkit.write_objects("train-0", ("wug", 0, 0, 0, 20, 10))
    with pytest.raises(InputError, match="numbers all classes of the set, and only some are named"):
        some.segmentation(some.records("train")[0], 8)


def test_a_limit_draws_images_of_each_split(devkit):
    (found,) = Voc(devkit.root, VocOptions(limit=1)).records("train")
    assert found in Voc(devkit.root, VocOptions()).records("train")


def test_official_mask_ids_hold_for_any_order_of_official_classes(devkit):
    folder = devkit.folder / "SegmentationClass"
    folder.mkdir()
    ids = np.zeros((20, 40), dtype=np.uint8)
    ids[:5], ids[5:10], ids[10:12] = VOC_CLASSES.index("dog") + 1, 1, 255
    Image.fromarray(ids).save(folder / "train-0.png")
    reader = Voc(devkit.root, VocOptions(classes="dog,cat,aeroplane"))
    masks = reader.segmentation(reader.records("train")[0], 20)
    assert sorted(masks) == [0, 2]
    assert masks[0].sum() == masks[2].sum() == 5 * 20


def test_fingerprint_follows_content_and_not_the_clock(devkit):
    before = Voc(devkit.root, VocOptions()).fingerprint()
    devkit.image("train-0").touch()
    (devkit.folder / "JPEGImages" / "Thumbs.db").write_text("not ours")
    assert Voc(devkit.root, VocOptions()).fingerprint() == before
    devkit.write_objects("train-0", ("dog", 0, 4, 2, 12, 10))
    changed = Voc(devkit.root, VocOptions()).fingerprint()
    assert changed != before
    devkit.image("train-0").write_bytes(devkit.image("train-0").read_bytes() + b"x")
    assert Voc(devkit.root, VocOptions()).fingerprint() not in (before, changed)


def test_a_copy_elsewhere_has_the_same_fingerprint(devkit, tmp_path):
    copy = devkit.root.rename(tmp_path / "elsewhere")
    reader = Voc(copy, VocOptions())
    moved = reader.fingerprint()
    copy.rename(tmp_path / "data")
    assert Voc(tmp_path / "data", VocOptions()).fingerprint() == moved


def test_fingerprint_follows_an_image_of_the_same_size(devkit):
    reader = Voc(devkit.root, VocOptions())
    before, former = reader.fingerprint(), reader.former_fingerprint()
    content = bytearray(devkit.image("val-1").read_bytes())
    content[-1] ^= 1
    devkit.image("val-1").write_bytes(content)
    assert reader.fingerprint() != before
    assert reader.former_fingerprint() == former


LINES = {
    "as Windows writes it": ("{}", "\r\n"),
    "space at the ends": ("  {} \t", "\n"),
    "a column": ("{}  1", "\n"),
    "a negative column": ("{} -1", "\n"),
    "two columns": ("{} 0 1", "\n"),
    "a suffix": ("{}.jpg", "\n"),
    "another suffix": ("{}.JPG 1", "\n"),
    "a folder": ("JPEGImages/{}", "\n"),
    "a path": ("/data/VOC2007/JPEGImages/{}.jpg", "\n"),
    "a path of Windows": (r"JPEGImages\{}.jpg", "\r\n"),
    "here": ("./{}.jpg", "\n"),
}


@pytest.mark.parametrize("name", ["x", "a b (1)", "photo 2", "img.v2", "grün", "below/x"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("form", LINES)
def test_lists_in_many_forms(devkit, name, mark, form):
    line, end = LINES[form]
    for number in range(2):
        new = f"{name}{number}" if number else name
        for old, path in (("image", devkit.image(new)), ("annotation", devkit.annotation(new))):
            path.parent.mkdir(exist_ok=True)
            getattr(devkit, old)(f"train-{number}").rename(path)
    names = [name, f"{name}1"]
    text = mark + "".join(line.format(each) + end for each in names)
    devkit.list("train").write_bytes(text.encode())
    reader = Voc(devkit.root, VocOptions())
    assert [record.id for record in reader.records("train")] == names
    assert reader.fingerprint()


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_names_in_any_unicode_form(devkit, stored, listed):
    name = unicodedata.normalize(stored, "grün")
    devkit.image("train-0").rename(devkit.image(name))
    devkit.annotation("train-0").rename(devkit.annotation(name))
    (devkit.folder / "SegmentationClass").mkdir()
    Image.new("L", (40, 20)).save(devkit.folder / "SegmentationClass" / f"{name}.png")
    devkit.list("train").write_text(unicodedata.normalize(listed, "grün") + "\ntrain-1\n")
    first = Voc(devkit.root, VocOptions()).records("train")[0]
    assert first.image == devkit.image(name)
    assert first.segmentation is not None


@pytest.mark.parametrize("text", ["train-0 cat\n", "train-0,train-1\n", "train-0 train-1\n"])
def test_lists_that_are_none_are_refused(devkit, text):
    devkit.list("train").write_text(text)
    with pytest.raises(InputError, match=r"named by .*train\.txt line 1, is missing"):
        Voc(devkit.root, VocOptions()).records("train")


def test_a_name_that_no_file_can_have_is_refused(devkit):
    devkit.list("train").write_text("9" * 300 + "\n")
    reader = Voc(devkit.root, VocOptions())
    for read in (reader.fingerprint, reader.former_fingerprint, lambda: reader.records("train")):
        with pytest.raises(InputError, match=r"train\.txt line 1 names .*, which is no file below"):
            read()


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".PNG", ".gif"])
def test_images_of_many_formats(devkit, suffix):
    with Image.open(devkit.image("train-0")) as image:
        image.save(devkit.image("train-0").with_suffix(suffix))
    devkit.image("train-0").unlink()
    reader = Voc(devkit.root, VocOptions())
    assert reader.records("train")[0].image.suffix == suffix


def _unknown_class(devkit):
    devkit.write_objects("train-1", ("dog", 0, 1, 1, 5, 5), ("unicorn", 0, 1, 1, 5, 5))


def _truncated_xml(devkit):
    devkit.annotation("train-1").write_text("<annotation><object>")


def _xml_bomb(devkit):
    devkit.annotation("train-1").write_text(
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    )


def _bad_number(devkit):
    devkit.write_objects("train-1", ("dog", 0, 1, "wide", 5, 5))


def _infinite_number(devkit):
    devkit.write_objects("train-1", ("dog", 0, 1, 1, "inf", 5))


def _no_box(devkit):
    devkit.annotation("train-1").write_text(
        "<annotation><object><name>dog</name></object></annotation>"
    )


def _repeated_id(devkit):
    devkit.list("train").write_text("train-0\ntrain-1\ntrain-0\n")


def _binary_list(devkit):
    devkit.list("train").write_bytes(b"\xff\xfe\x00")


def _empty_list(devkit):
    devkit.list("train").write_text("\n\n")


def _truncated_image(devkit):
    content = devkit.image("train-1").read_bytes()
    devkit.image("train-1").write_bytes(content[: len(content) // 2])


BROKEN = {
    _unknown_class: r"train-1\.xml, object 2: class 'unicorn' is not one of aeroplane, .*tvmonitor",
    _truncated_xml: r"train-1\.xml is not valid XML",
    _xml_bomb: r"train-1\.xml declares XML entities, which are refused",
    _bad_number: r"train-1\.xml, object 1: ymin is 'wide', not a number",
    _infinite_number: r"train-1\.xml, object 1: xmax is 'inf', not a number",
    _no_box: r"train-1\.xml, object 1 has no bndbox/xmin",
    _repeated_id: r"train\.txt line 3 repeats image train-0 of .*train\.txt line 1",
    _binary_list: r"train\.txt cannot be read as an image list",
    _empty_list: r"train\.txt lists no image",
    _truncated_image: r"train-1\.jpg cannot be read as an image \(OSError: .*[Tt]runcated",
    lambda d: d.image("train-1").write_text("no"): r"train-1\.jpg cannot be read as an image",
    lambda d: d.image(
        "train-1"
    ).unlink(): r"train-1\.jpg, named by .*train\.txt line 2, is missing",
    lambda d: d.annotation("train-1").unlink(): r"train-1\.xml, named by .*line 2, is missing",
    lambda d: d.list(
        "train"
    ).unlink(): r"train\.txt, the image list of the train split, is missing",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_files_are_named_in_one_sentence(devkit, tmp_path, broken):
    broken(devkit)
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=BROKEN[broken]) as caught:
        open_data(config(16), str(devkit.root), str(cache)).split("train")
    assert "\n" not in str(caught.value)
    assert not list(cache.glob("**/*.u8"))


def test_a_devkit_without_a_test_list_trains(devkit, tmp_path):
    devkit.list("test").unlink()
    data = open_data(config(16), str(devkit.root), str(tmp_path / "cache"))
    assert len(data.split("train")) == 2
    with pytest.raises(InputError, match=r"test\.txt, the image list of the test split"):
        data.split("test")


def test_folders_that_are_no_devkit(tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        open_data(config(), str(tmp_path / "gone"))
    with pytest.raises(InputError, match="holds no VOC devkit"):
        open_data(config(), str(tmp_path))
    with pytest.raises(InputError, match="needs the folder it lies in: give it as `root`"):
        open_data(config())


@pytest.mark.parametrize("classes", ["dog,,cat", "dog,cat,dog"])
def test_bad_class_lists(devkit, classes):
    with pytest.raises(InputError, match="option classes: "):
        open_data(config(classes=classes), str(devkit.root))


def test_unknown_options_and_names():
    with pytest.raises(InputError, match=r"unknown key 'clases'; allowed here: .*, classes"):
        open_data(config(clases="a"), "x")
    unknown = DataConfig(name="voc2008", image_size=8, horizontal_flip=False, options={})
    with pytest.raises(InputError, match="unknown data set 'voc2008'"):
        open_data(unknown)


VALID = (
    b"<annotation><size><width>40</width><height>20</height></size><object><name>dog</name>"
    b"<difficult>0</difficult><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>12</xmax><ymax>9</ymax>"
    b"</bndbox></object></annotation>"
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.binary(max_size=4)), max_size=5))
def test_mutated_annotations_give_boxes_or_a_sentence(tmp_path_factory, mutations):
    content = VALID
    for position, replacement in mutations:
        content = content[:position] + replacement + content[position + len(replacement) :]
    path = tmp_path_factory.getbasetemp() / "mutated.xml"
    path.write_bytes(content)
    try:
        objects, _ = read_annotation(path)
    except InputError as error:
        assert "mutated.xml" in str(error)  # noqa: PT017
    else:
        assert all(np.isfinite(found.corners).all() for found in objects)
