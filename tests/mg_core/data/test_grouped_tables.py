"""Tables whose columns make up groups: in the layouts of CelebA, ISIC, MetaShift and WILDS."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from mg_core.config import TrialConfig
from mg_core.data import class_names, data_config, open_data
from mg_core.data.dataset import open_reader
from mg_core.data.layouts.waterbirds import FOLDER, read_boxes, read_metadata
from mg_core.data.reader import SPLITS
from mg_core.data.verification import report_lines, verify
from mg_core.errors import InputError
from mg_core.losses import NEEDS_ONE_LABEL
from mg_core.training.checks import check_recipe

CORNERS = ("xmin", "ymin", "xmax", "ymax")
BOX = (4, 2, 12, 9)


def write_pictures(folder, count):
    """Write pictures of 40 × 20 pixels, 0.png and on, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return names


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def celeba(root):
    """Attributes of 1 and -1, splits by number, boxes in a table of their own."""
    kinds = [(hair, male, split) for split in range(3) for hair in (1, -1) for male in (1, -1)]
    names = write_pictures(root / "img", len(kinds))
    rows = [
        (name, hair, male, split) for name, (hair, male, split) in zip(names, kinds, strict=True)
    ]
    write_table(root / "attributes.csv", ["image_id", "Blond_Hair", "Male", "partition"], rows)
    boxes = [(name, *BOX) for name in names]
    write_table(root / "bbox.csv", ["image_id", *CORNERS], boxes)
    return {
        "file": "attributes.csv",
        "images": "img",
        "boxes": "bbox.csv",
        "columns": {"path": "image_id"},
        "groups": ["Blond_Hair", "Male"],
        "tasks": "Blond_Hair",
        "names": {"Blond_Hair": {1: "blond", -1: "dark"}},
    }


def isic(root):
    """Benign images may have a coloured patch, malignant ones never; objects have masks."""
    kinds = [("benign", "patch"), ("benign", "none"), ("malignant", "none")]
    names = write_pictures(root, 9)
    pixels = np.zeros((20, 40), dtype=np.uint8)
    pixels[2:9, 4:12] = 1
    Image.fromarray(pixels).save(root / "mask.png")
    rows = [
        (name, *kind, *BOX, "mask.png", split)
        for name, (split, kind) in zip(names, itertools.product(SPLITS, kinds), strict=True)
    ]
    header = ["path", "diagnosis", "patches", *CORNERS, "mask", "split"]
    write_table(root / "annotations.csv", header, rows)
    return {"columns": {"class": "diagnosis"}, "groups": ["class", "patches"]}


def metashift(root):
    """One column names the group; there are no tasks besides the class."""
    kinds = [("train", "cat", "cat(sofa)"), ("train", "dog", "dog(bench)")]
    kinds += [(split, *own) for split in ("val", "test") for own in (
        ("cat", "cat(sofa)"), ("cat", "cat(shelf)"), ("dog", "dog(bench)"), ("dog", "dog(shelf)")
    )]  # fmt: skip
    names = write_pictures(root, len(kinds))
    rows = [(name, *kind, *BOX) for name, kind in zip(names, kinds, strict=True)]
    write_table(root / "annotations.csv", ["path", "split", "class", "group", *CORNERS], rows)
    return {"groups": "group"}


LAYOUTS = {
    celeba: ("blond, Male 1", "blond, Male -1", "dark, Male 1", "dark, Male -1"),
    isic: ("benign, none", "benign, patch", "malignant, none"),
    metashift: ("cat(shelf)", "cat(sofa)", "dog(bench)", "dog(shelf)"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_are_those_that_occur_in_the_layouts_of_the_field(layout, tmp_path):
    data = open_data("csv", tmp_path, tmp_path / "cache", image_size=20, **layout(tmp_path))
    assert data.groups == LAYOUTS[layout]
    for name in SPLITS:
        split = data.split(name)
        assert split.group_names == data.groups
        assert len(split.groups) == len(split)
        assert (split.labels.sum(axis=1) == 1).all()
        for index, group in enumerate(split.groups):
            shown = split.classes[int(split.labels[index].argmax())]
            assert data.groups[group].startswith(shown)
        assert split.located.sum() == len(split)
    assert data.split("val").has_segmentation == (layout is isic)


def test_validation_may_keep_to_the_groups_of_training(tmp_path):
    options = metashift(tmp_path)
    whole = open_data("csv", tmp_path, tmp_path / "cache", image_size=20, **options)
    assert len(whole.split("val")) == len(whole.split("test")) == 4
    kept = open_data(
        "csv", tmp_path, tmp_path / "cache", image_size=20, **options, val_groups="trained"
    )
    assert len(kept.split("val")) == 2
    assert set(kept.split("val").groups) == set(kept.split("train").groups)
    assert len(kept.split("test")) == 4


def test_tasks_learn_a_column_and_look_inside_or_outside_the_boxes(tmp_path):
    options = isic(tmp_path) | {"groups": ["diagnosis", "patches"]}
    options |= {"tasks": ["diagnosis", "patches"], "outside": "patches"}
    data = open_data("csv", tmp_path, tmp_path / "cache", image_size=20, **options)
    assert data.tasks == ("diagnosis", "patches")
    inside, outside = (data.split("test", task) for task in data.tasks)
    assert inside.classes == ("benign", "malignant")
    assert outside.classes == ("none", "patch")
    assert inside.labels.argmax(axis=1).tolist() == [0, 0, 1]
    assert outside.labels.argmax(axis=1).tolist() == [1, 0, 0]
    for index in range(3):
        own, other = (int(s.labels[index].argmax()) for s in (inside, outside))
        assert (inside.masks([index], [own]) == ~outside.masks([index], [other])).all()
        objects = outside.segmentation([index], [other])
        assert (objects == inside.segmentation([index], [own])).all()
        assert objects.any()


def test_class_names_of_tasks_come_from_the_files(tmp_path):
    options = isic(tmp_path) | {"groups": ["diagnosis", "patches"], "tasks": ["patches"]}
    config = data_config("csv", 20, options=options)
    assert class_names(config, tmp_path) == ("none", "patch")
    with pytest.raises(InputError, match="unknown task 'diagnosis'; this data set has patches"):
        class_names(config, tmp_path, task="diagnosis")


def test_a_table_in_the_layout_of_wilds_is_the_waterbirds_it_is_of(real_data, tmp_path):
    real = real_data / "waterbirds100"
    rows = read_metadata(real / FOLDER / "metadata.csv")[::150]
    ids = {name: key for key, name in map(str.split, (real / "CUB_200_2011/images.txt").open())}
    boxes = read_boxes(real / "CUB_200_2011/bounding_boxes.txt")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "CUB_200_2011").mkdir()
    for row in rows:
        path = tmp_path / FOLDER / row.name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(real / FOLDER / row.name)
    for name in ("images.txt", "bounding_boxes.txt"):
        (tmp_path / "CUB_200_2011" / name).symlink_to(real / "CUB_200_2011" / name)
    header = ["img_id", "img_filename", "y", "split", "place"]
    lines = [(row.image_id, row.name, row.y, row.split, row.place) for row in rows]
    write_table(tmp_path / FOLDER / "metadata.csv", header, lines)
    corners = [(row.name, *boxes[ids[row.name]]) for row in rows]
    write_table(
        tmp_path / FOLDER / "boxes.csv",
        ["img_filename", *CORNERS],
        corners,
    )
    official = open_data("waterbirds100", tmp_path, tmp_path / "cache", image_size=24)
    table = open_data(
        "csv",
        tmp_path / FOLDER,
        tmp_path / "cache",
        image_size=24,
        file="metadata.csv",
        boxes="boxes.csv",
        groups=["y", "place"],
        tasks=["y", "place"],
        outside="place",
        names={"y": {0: "landbird", 1: "waterbird"}, "place": {0: "land", 1: "water"}},
        val_groups="trained",
    )
    assert table.groups == official.groups
    for split, tasks in itertools.product(SPLITS, zip(official.tasks, table.tasks, strict=True)):
        ours, theirs = official.split(split, tasks[0]), table.split(split, tasks[1])
        assert len(ours) == len(theirs)
        places = {name: place for place, name in enumerate(theirs.ids)}
        order = np.array([places[f"{name}.jpg"] for name in ours.ids])
        index = np.arange(len(ours))
        labels = ours.labels.argmax(axis=1)
        assert ours.classes == theirs.classes
        assert np.array_equal(ours.labels, theirs.labels[order])
        assert np.array_equal(ours.groups, theirs.groups[order])
        assert (ours.images(index) == theirs.images(order)).all()
        assert (ours.masks(index, labels) == theirs.masks(order, labels)).all()


def test_verification_tells_the_groups_and_those_without_an_image(tmp_path):
    options = metashift(tmp_path)
    reader = open_reader(data_config("csv", 20, options=options), tmp_path)
    lines = report_lines(verify(reader, 20), reader.classes, reader.group_names)
    assert "  groups 1: 1, 2: 1; none of 0, 3" in lines
    assert "group 1: cat(sofa)" in lines
    assert "0 problems" in lines


def test_images_of_groups_have_one_label_so_that_cross_entropy_fits(tmp_path, baseline):
    assert "cross_entropy" in NEEDS_ONE_LABEL
    grouped = {
        "data": data_config("csv", 20, options=metashift(tmp_path)),
        "classification_loss": "cross_entropy",
    }
    check_recipe(baseline.model_copy(update=grouped))
    several = grouped | {"data": data_config("shapes", 20)}
    with pytest.raises(InputError, match="cross_entropy needs exactly one label in each image"):
        check_recipe(baseline.model_copy(update=several))


def test_training_may_stop_by_the_lowest_group_where_there_are_groups(tmp_path, baseline):
    stop = {"metric": "accuracy_min_group", "patience": 1}
    grouped = data_config("csv", 20, options=metashift(tmp_path))
    for data in (grouped, data_config("csv", 20)):
        values = baseline.model_dump() | {"data": data.model_dump(), "early_stop": stop}
        config = TrialConfig.model_validate(values)
        if data is grouped:
            check_recipe(config)
        else:
            with pytest.raises(InputError, match="accuracy_min_group needs groups, which csv"):
                check_recipe(config)


WRONG = {
    "unknown column": ({"groups": "place"}, "has no column 'place', which the option groups names"),
    "single group": ({"groups": "split_of"}, "all images are of one group, all; name columns"),
    "task outside the groups": ({"tasks": "group"}, r"tasks: 'group' is none of the groups \(none"),
    "side of no task": (
        {"groups": "group", "outside": "group"},
        r"outside: 'group' is none of the tasks \(none: the option tasks is not given\)",
    ),
    "name of no column": (
        {"groups": "group", "names": {"place": {0: "land"}}},
        "names: 'place.0=land' begins with no column of the option groups",
    ),
    "names of no form": ({"groups": "group", "names": {"group": "x"}}, "give names as in"),
    "repeated column": ({"groups": "group,group"}, "'group' is there twice"),
    "unknown word": ({"groups": "group", "val_groups": "seen"}, "choose from all, trained"),
    "validation without groups": ({"val_groups": "trained"}, "the option groups is not given"),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_fit_no_group_are_refused_in_a_sentence(name, tmp_path):
    options, sentence = WRONG[name]
    metashift(tmp_path)
    table = tmp_path / "annotations.csv"
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},split_of", *(f"{line},all" for line in rest)]))
    with pytest.raises(InputError, match=sentence) as caught:
        open_reader(data_config("csv", 20, options=options), tmp_path)
    assert "\n" not in str(caught.value)


BROKEN = {
    "no group": (("cat(sofa)", ""), "annotations.csv line 2: group is empty, and every image"),
    "unknown split": (("val", "3"), "line 4, split: '3' is no split; choose from .* 0, 1, 2"),
    "no class": (("val,cat,", "val,,"), "line 4: there is a box and no class"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rows_that_fit_no_group_are_refused_in_a_sentence(name, tmp_path):
    (old, new), sentence = BROKEN[name]
    options = metashift(tmp_path)
    table = tmp_path / "annotations.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=sentence):
        open_data("csv", tmp_path, tmp_path / "cache", image_size=20, **options).prepare()


def test_an_image_has_one_class_and_one_group(tmp_path):
    options = metashift(tmp_path)
    table = tmp_path / "annotations.csv"
    first, row, *rest = table.read_text().splitlines()
    table.write_text("\n".join([first, row, row.replace(",cat,", ",dog,"), *rest]))
    with pytest.raises(InputError, match=r"has one class, and '0\.png' has cat, dog"):
        open_reader(data_config("csv", 20, options=options), tmp_path).records("train")
    table.write_text("\n".join([first, row, row.replace("(sofa)", "(bed)"), *rest]))
    with pytest.raises(InputError, match=r"line 3: another group than in .*line 2"):
        open_reader(data_config("csv", 20, options=options), tmp_path).records("train")


def test_a_mistake_in_the_table_of_boxes_is_found_there(tmp_path):
    options = celeba(tmp_path)
    boxes = tmp_path / "bbox.csv"
    boxes.write_text(boxes.read_text().replace("1.png,4,", "1.png,four,", 1))
    with pytest.raises(InputError, match=r"bbox\.csv line 3: xmin is 'four', not a number"):
        open_reader(data_config("csv", 20, options=options), tmp_path).records("train")


def test_boxes_of_other_images_are_noticed(tmp_path):
    options = celeba(tmp_path)
    boxes = tmp_path / "bbox.csv"
    boxes.write_text(boxes.read_text().replace(".png", ".jpg"))
    with pytest.raises(InputError, match=r"bbox\.csv names none of the images of .*as in '0\.jpg'"):
        open_reader(data_config("csv", 20, options=options), tmp_path).records("train")


@pytest.mark.parametrize("key", ["mask", "split", "width"])
def test_a_misspelt_column_is_noticed_in_two_tables(tmp_path, key):
    options = celeba(tmp_path)
    options |= {"columns": options["columns"] | {key: "partiton"}}
    said = rf"neither .*attributes\.csv nor .*bbox\.csv has a column 'partiton'.* for {key}; their"
    with pytest.raises(InputError, match=said):
        open_reader(data_config("csv", 20, options=options), tmp_path).records("train")


def test_a_named_column_may_be_in_either_of_two_tables(tmp_path):
    options = celeba(tmp_path)
    options |= {"columns": options["columns"] | {"split": "Partition", "xmin": "Xmin"}}
    reader = open_reader(data_config("csv", 20, options=options), tmp_path)
    assert all(record.boxes for record in reader.records("train"))
