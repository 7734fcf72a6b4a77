"""A table with a row for each object."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from mg_core.data import data_config, open_data
from mg_core.data.dataset import open_reader
from mg_core.data.reader import SPLITS
from mg_core.data.verification import report_lines, verify
from mg_core.errors import InputError
from mg_core.training.evaluation import averages, evaluate

SIDES = (40, 20, 40, 20)
HEADER = "path,class,xmin,ymin,xmax,ymax,split\n"
ROWS = (
    "a.png,cat,4,2,12,9,train\n"
    "a.png,dog,20,5,30,15,train\n"
    "b.png,cat,1,1,39,19,train\n"
    "c.png,dog,4,2,12,9,val\n"
    "d.png,cat,4,2,12,9,test\n"
)


@pytest.fixture
def folder(tmp_path):
    """A data folder of pictures of 40 × 20 pixels and a table."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "annotations.csv").write_text(HEADER + ROWS)
    return tmp_path


def opened(folder, **options):
    return open_reader(data_config("csv", 20, options=options), folder)


def all_records(folder, **options):
    reader = opened(folder, **options)
    return [reader.records(split) for split in SPLITS]


SPELLED = {
    "byte order mark": lambda t: t.encode("utf-8-sig"),
    "lines of Windows": lambda t: t.replace("\n", "\r\n").encode(),
    "lines of old Macs": lambda t: t.replace("\n", "\r").encode(),
    "spaces": lambda t: t.replace(",", " ,  ").encode(),
    "semicolons": lambda t: t.replace(",", ";").encode(),
    "tabs": lambda t: t.replace(",", "\t").encode(),
    "bars": lambda t: t.replace(",", "|").encode(),
    "quotes": lambda t: "\n".join(
        ",".join(f'"{value}"' for value in line.split(",")) for line in t.splitlines()
    ).encode(),
    "empty lines": lambda t: t.replace("\n", "\n\n , ,\n").encode(),
    "upper case": lambda t: t.replace(HEADER, HEADER.upper()).encode(),
    "other names": lambda t: t.replace(
        HEADER, "Image Path,Label,x1,y1,x2,y2,Subset\n"
    ).encode(),
    "other splits": lambda t: t.replace("val\n", "Validation\n").encode(),
    "other slashes": lambda t: t.replace("a.png", ".\\a.png").encode(),
    "no suffixes": lambda t: t.replace(".png", "").encode(),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_table_may_be_spelled_in_many_ways(folder, spelling):
    wanted = all_records(folder)
    (folder / "annotations.csv").write_bytes(SPELLED[spelling](HEADER + ROWS))
    found = all_records(folder)
    for split, other in zip(wanted, found, strict=True):
        assert [(r.image, r.boxes) for r in split] == [(r.image, r.boxes) for r in other]


def test_columns_of_other_names_are_named_by_an_option(folder):
    wanted = all_records(folder)
    text = (folder / "annotations.csv").read_text()
    (folder / "mine.csv").write_text(text.replace("class", "species").replace("path", "Bild"))
    columns = {"class": "species", "path": "Bild"}
    assert all_records(folder, file="mine.csv", columns=columns) == wanted
    joined = data_config("csv", options={"columns": "path=Bild, class=species"})
    assert joined == data_config("csv", options={"columns": columns})


def test_shares_of_the_image_are_pixels(folder):
    wanted = all_records(folder)
    lines = [line.split(",") for line in ROWS.splitlines()]
    relative = [
        [*line[:2], *(f"{int(v) / s:.6f}" for v, s in zip(line[2:6], SIDES, strict=True)), line[6]]
        for line in lines
    ]
    text = HEADER + "\n".join(map(",".join, relative))
    (folder / "annotations.csv").write_text(text)
    assert all_records(folder, box_units="relative") == wanted
    sized = HEADER.replace("split", "split,width,height")
    sized += "\n".join(",".join([*line, "400", "200"]) for line in relative)
    (folder / "sized.csv").write_text(sized)
    data = open_data(
        data_config("csv", 20, options={"box_units": "relative", "file": "sized.csv"}), folder
    )
    assert data.split("train").boxes(0, 0).tolist() == [[2, 2, 6, 9]]
    with pytest.raises(InputError, match="or set the option box_units: relative"):
        open_data(data_config("csv", 20), folder, folder / "cache").split("train")


def test_boxes_refer_to_the_size_that_is_given(folder):
    text = HEADER.replace("split", "split,width,height")
    text += "".join(f"{line},80,40\n" for line in ROWS.splitlines())
    (folder / "annotations.csv").write_text(text)
    data = open_data(data_config("csv", 20), folder, folder / "cache")
    assert data.split("train").boxes(0, 0).tolist() == [[1, 1, 3, 4]]


def test_one_table_a_split(folder):
    wanted = all_records(folder)
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        (folder / name).mkdir()
        rows = [line.rpartition(",")[0] for line in ROWS.splitlines() if line.endswith(split)]
        head = HEADER.replace(",split", "")
        (folder / name / "boxes.csv").write_text(head + "\n".join(rows))
    found = all_records(folder, file="{split}/boxes.csv", images=".")
    assert found == wanted
    for letter, name in (("a", "train"), ("b", "train"), ("c", "valid"), ("d", "test")):
        (folder / f"{letter}.png").rename(folder / name / f"{letter}.png")
    below = all_records(folder, file="{split}/boxes.csv")
    assert [r.id for records in below for r in records] == [
        "train/a.png", "train/b.png", "valid/c.png", "test/d.png"
    ]  # fmt: skip


def test_whole_paths_into_the_folder_are_good(folder):
    wanted = all_records(folder)
    (folder / "annotations.csv").write_text(HEADER + ROWS.replace("a.png", f"{folder}/a.png"))
    assert all_records(folder) == wanted


def test_spellings_of_a_name_are_one_image(folder):
    (folder / "a.png").rename(folder / unicodedata.normalize("NFD", "é.png"))
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    text = ROWS.replace("a.png", names[0], 1).replace("a.png", names[1], 1)
    (folder / "annotations.csv").write_text(HEADER + text)
    first, second = opened(folder).records("train")
    assert len(first.boxes) == 2
    assert second.id == "b.png"


def test_rows_without_a_box_are_labels_that_guide_nothing(folder):
    text = ROWS + "b.png,dog,,,,,train\nc.png,cat,,,,,val\na.png,dog,,,,,train\n"
    (folder / "annotations.csv").write_text(HEADER + text)
    data = open_data(data_config("csv", 20), folder, folder / "cache")
    train = data.split("train")
    assert train.labels.tolist() == [[True, True], [True, True]]
    assert train.located.tolist() == [[True, True], [True, False]]
    assert not train.masks([1], [1]).any()
    val = data.split("val")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )  # fmt: skip
    found = evaluate(network, val, [("gradcam", "0")])
    (scores,) = found.scores.values()
    assert averages(scores)["n_pairs"] == val.located.sum() == 1
    assert averages(scores)["n_empty_mask"] == 0
    assert found.classification["n_images"] == 1
    lines = report_lines(verify(opened(folder), 20), data.classes)
    assert lines[0] == "train: 2 images, 3 boxes, 0 images without labels, 0 with masks"
    assert lines[1] == "  1 labels without a box"
    (dogs,) = [line for line in lines if line.startswith("dog")]
    assert dogs.split() == ["dog", "2", "/", "1", "1", "/", "1", "0", "/", "0"]


def test_a_set_of_labels_alone_cannot_guide(folder):
    rows = "".join(f"{n}.png,cat,,,,,{s}\n" for n, s in zip("acd", SPLITS, strict=True))
    (folder / "annotations.csv").write_text(HEADER + rows)
    with pytest.raises(InputError, match="no image of the train split has a box"):
        open_data(data_config("csv", 20), folder, folder / "cache").prepare()


def test_a_row_with_a_path_alone_is_a_negative(folder):
    (folder / "annotations.csv").write_text(HEADER + ROWS.replace("cat,1,1,39,19", ",,,,"))
    records = opened(folder).records("train")
    assert [len(record.boxes) for record in records] == [2, 0]


def test_masks_are_pictures(folder):
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[2:9, 4:12] = 7
    for name, mode in (("m.png", "L"), ("p.png", "P"), ("c.png", "RGB")):
        Image.fromarray(mask).convert(mode).save(folder / name)
    Image.fromarray(mask[:, :30]).save(folder / "narrow.png")
    head = HEADER.replace("split", "split,mask")

    def write(first, second):
        rows = ROWS.splitlines()
        rows = [f"{rows[0]},{first}", f"{rows[1]},{second}", *(f"{row}," for row in rows[2:])]
        (folder / "annotations.csv").write_text(head + "\n".join(rows))

    write("m.png", "c.png")
    reader = opened(folder)
    first, second = reader.records("train")
    masks = reader.segmentation(first, 40)
    assert list(masks) == [0, 1]
    for found in masks.values():
        assert np.array_equal(np.flatnonzero(found.any(axis=0)), np.arange(4, 12))
        assert found.sum() == 8 * 14
    assert second.segmentation is None
    before = reader.fingerprint()
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes() + b"x")
    assert opened(folder).fingerprint() != before
    write("m.png", "")
    assert opened(folder).records("train")[0].segmentation is None
    write("m.png", "narrow.png")
    data = open_data(data_config("csv", 20), folder, folder / "cache")
    assert not data.split("train").has_segmentation
    lines = report_lines(verify(opened(folder), 20), data.classes)
    assert any("narrow.png has 30 × 20 pixels, and its image 40 × 20" in line for line in lines)
    write("m.png", "gone.png")
    with pytest.raises(InputError, match=r"gone\.png, named by .*csv line 3, is missing"):
        opened(folder).records("train")


def _many(folder, n=60):
    lines = []
    for number in range(n):
        (folder / f"p{number}.png").write_bytes((folder / "a.png").read_bytes())
        lines.append(f"p{number}.png,{'cat' if number % 3 else 'dog'},4,2,12,9")
    return lines


def test_splits_that_are_not_named_are_drawn(folder):
    lines, head = _many(folder), HEADER.replace(",split", "")
    (folder / "annotations.csv").write_text(head + "\n".join(lines))
    first = all_records(folder, val_fraction=0.2)
    assert [len(split) for split in first] == [42, 12, 6]
    ids = [{record.id for record in split} for split in first]
    assert len(set.union(*ids)) == 60
    # Every class keeps its share.
    assert [sum(r.boxes[0].class_index for r in split) for split in first] == [14, 4, 2]
    (folder / "annotations.csv").write_text(head + "\n".join(lines[::-1]))
    assert [{r.id for r in split} for split in all_records(folder, val_fraction=0.2)] == ids
    other = all_records(folder, val_fraction=0.2, split_seed=1)
    assert [{r.id for r in split} for split in other] != ids
    # Where test images are named, those for validation are drawn from the others.
    named = [f"{line},{'test' if number < 10 else 'train'}" for number, line in enumerate(lines)]
    (folder / "annotations.csv").write_text(HEADER + "\n".join(named))
    assert [len(split) for split in all_records(folder)] == [45, 5, 10]
    named = [f"{line},{'val' if number < 10 else 'train'}" for number, line in enumerate(lines)]
    (folder / "annotations.csv").write_text(HEADER + "\n".join(named))
    assert [len(split) for split in all_records(folder)] == [45, 10, 5]
    named = [f"{line},{'val' if number < 10 else 'test'}" for number, line in enumerate(lines)]
    (folder / "annotations.csv").write_text(HEADER + "\n".join(named))
    with pytest.raises(InputError, match=r"has no image for the train split \(60 images in all\)"):
        opened(folder).records("train")


def test_a_small_draw_has_labels(folder):
    lines = [*_many(folder, 8), "d.png,,,,,"]
    (folder / "annotations.csv").write_text(HEADER.replace(",split", "") + "\n".join(lines))
    found = all_records(folder)
    assert [len(split) for split in found] == [7, 1, 1]
    assert all(record.boxes for record in (*found[1], *found[2]))


BROKEN = {
    HEADER.replace("class", "species") + ROWS: (
        r"annotations\.csv has no column 'class'; its first line has 'path', 'species', .*: name "
        r"it by the option columns, as in \{class: its name there\}"
    ),
    HEADER.replace("ymax,", "") + ROWS: r"has no column 'ymax'",
    HEADER.replace("class,", "Path,class,", 1) + ROWS: r"its first line has 'path' 2 times; each c",
    (HEADER + ROWS).replace(",", "~"): r"has no column 'path'; .*: say by the option delimiter",
    "": r"annotations\.csv is empty; its first line has the names of the columns",
    HEADER: r"the annotations name no class",
    HEADER + ROWS.replace("4,2", "4", 1): r"csv line 2 has 6 values, and the header 7",
    HEADER + ROWS.replace("4,2", "left,2", 1): r"csv line 2: xmin is 'left', not a number",
    HEADER + ROWS.replace("4,2", "inf,2", 1): r"csv line 2: xmin is 'inf', not a number",
    HEADER + ROWS.replace("4,2", ",2", 1): r"csv line 2: xmin is '', not a number",
    HEADER + ROWS.replace("cat", "", 1): r"csv line 2: there is a box and no class",
    HEADER + ROWS.replace("a.png", "", 1): r"csv line 2: path is empty",
    HEADER + ROWS.replace("a.png", "z.png", 1): r"z\.png, named by .*csv line 2, is missing",
    HEADER + ROWS.replace("a.png", "../a.png", 1): r"csv line 2 names '\.\./a\.png', which is no",
    HEADER + ROWS.replace("a.png", "/a.png", 1): r"csv line 2 names '/a\.png', which is no file",
    HEADER + ROWS.replace("train", "trian", 1): (
        r"csv line 2, split: 'trian' is no split; choose from train, training, val,"
    ),
    HEADER + ROWS.replace("test", "", 1): r"csv line 6 names no split for 'd\.png', as others do",
    HEADER + ROWS.replace("train", "", 1): (
        r"csv line 3 names 'a\.png' in the train split, as .*csv line 2 does$"
    ),
    HEADER + ROWS.replace("train", "test", 1): (
        r"csv line 3 names 'a\.png' in the train split, as .*csv line 2 does in the test split$"
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_mistakes_are_one_sentence_that_names_file_and_line(folder, text):
    (folder / "annotations.csv").write_text(text)
    with pytest.raises(InputError, match=BROKEN[text]) as caught:
        all_records(folder)
    assert "\n" not in str(caught.value)


def test_mistakes_of_a_kind_are_counted_together(folder):
    lines = [line.replace(",4,2,", ",left,2,") for line in _many(folder)]
    (folder / "annotations.csv").write_text(HEADER.replace(",split", "") + "\n".join(lines))
    reader = opened(folder, classes="cat,dog")
    text = report_lines(verify(reader, 20), reader.classes)
    assert sum("xmin is 'left', not a number" in line for line in text) == 3
    assert "problem: 57 more of this kind (60 in all)" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"file": "gone.csv"}, r"gone\.csv is missing: .* there is annotations\.csv$"),
        ({"file": "../a.csv"}, r"option file names '\.\./a\.csv', which is no file below"),
        ({"file": "{split}.csv"}, r"\{split\}\.csv is missing"),
        ({"images": "../x"}, r"names '\.\./x/a\.png', which is no file below"),
        ({"columns": {"class": "kind"}}, r"has no column 'kind'"),
        ({"columns": {"klass": "kind"}}, r"columns: 'klass' is no column; choose from path, class"),
        ({"columns": {"class": ""}}, r"columns: a column's name is empty"),
        ({"columns": 3}, r"columns: "),
        ({"delimiter": ", "}, r"delimiter: "),
        ({"box_units": "cm"}, r"box_units: unknown unit 'cm'; choose from pixels, relative"),
        ({"val_fraction": 0}, r"val_fraction: "),
        ({"box_units": "relative"}, r"the box 4, 2, 12, 9 is no share of the image from 0 to 1"),
    ],
)
def test_wrong_options_are_a_sentence(folder, options, sentence):
    with pytest.raises(InputError, match=sentence):
        all_records(folder, **options)


@pytest.mark.parametrize("content", [b"\xff\xfep\0a\0", b"path\0", b"caf\xe9,x\n"])
def test_what_is_no_text_is_refused(folder, content):
    (folder / "annotations.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"annotations\.csv (cannot be read as a table|has no)"):
        all_records(folder)


def test_no_number_is_asked_for_that_a_default_names():
    assert data_config("csv", options={"box_units": "pixels"}) == data_config("csv")
    assert data_config("csv", options={"other_classes": "refuse"}) == data_config("csv")
