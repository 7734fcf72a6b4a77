"""Annotations: what is drawn of an object, against slow drawings of the same."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mg_core.config import GuidanceConfig
from mg_core.counter import generator
from mg_core.data import data_config, open_data
from mg_core.data.annotations import (
    ANNOTATIONS,
    Located,
    annotatable,
    annotation_masks,
    check_annotatable,
    check_annotation,
)
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.errors import InputError

LADDER = [
    "mask",
    "box",
    {"box": {"dilate": 0.25}},
    {"box": {"shrink": 0.2}},
    {"box": {"shift": 0.3}},
    {"points": 1},
    {"points": 5},
    "random_box",
    "none",
]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    data = open_data(
        "shapes", cache=tmp_path_factory.mktemp("c"), image_size=40, train=40, val=2, test=2
    )
    return data.split("train")


@pytest.fixture(scope="module")
def pairs(split):
    """All (image, class) pairs with a box."""
    return np.nonzero(split.located)


def slowly(split, index, class_id, annotation, seed):
    """Draw the pixels of an annotation one by one."""
    drawn = np.zeros((split.size, split.size), dtype=bool)
    pixels = split.segmentation([index], [class_id])[0].numpy()
    ((name, given),) = annotation.items() if isinstance(annotation, dict) else [(annotation, {})]
    if name in ("mask", "none"):
        return pixels if name == "mask" else drawn
    key = (seed, "annotation", str(split.ids[index]), class_id)
    for box in split.boxes(index, class_id).tolist():
        draws = {kind: generator(*key, kind, *box) for kind in ("points", "random_box", "shift")}
        if name == "points":
            discs_slowly(drawn, pixels, box, given, draws["points"])
            continue
        if name == "random_box":
            left, top, right, bottom = box
            extent = np.array([right - left, bottom - top])
            low = draws["random_box"].integers(split.size - extent + 1)
            box = [*low, *(low + extent)]
        left, top, right, bottom = moved_slowly(box, given, split.size, draws["shift"])
        for y in range(max(0, top), min(split.size, bottom)):
            drawn[y, max(0, left) : min(split.size, right)] = True
    return drawn


def discs_slowly(drawn, pixels, box, count, draws):
    left, top, right, bottom = box
    size = len(pixels)
    inside = [(y, x) for y in range(top, bottom) for x in range(left, right) if pixels[y, x]]
    chosen = [inside[place] for place in draws.permutation(len(inside))[:count]]
    for y in range(size):
        for x in range(size):
            drawn[y, x] |= any(math.dist((y, x), point) <= 0.05 * size for point in chosen)


def moved_slowly(box, given, size, draws):
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    grown = given.get("dilate", 0) or -given.get("shrink", 0)
    wide, high = int(grown * width), int(grown * height)
    left, top, right, bottom = left - wide, top - high, right + wide, bottom + high
    if "shift" in given:
        angle = 2 * math.pi * draws.random()
        right_by = round(given["shift"] * width * math.cos(angle))
        down_by = round(given["shift"] * height * math.sin(angle))
        right_by = min(max(right_by, -left), size - right)
        down_by = min(max(down_by, -top), size - bottom)
        left, right = left + right_by, right + right_by
        top, bottom = top + down_by, bottom + down_by
    return left, top, right, bottom


@pytest.mark.parametrize("annotation", LADDER, ids=str)
def test_every_rung_is_drawn_as_a_slow_drawing_says(split, pairs, annotation):
    images, classes = (found[::3] for found in pairs)
    masks = annotation_masks(split, images, classes, annotation, seed=7)
    for mask, index, class_id in zip(masks.numpy(), images, classes, strict=True):
        wanted = slowly(split, int(index), int(class_id), annotation, 7)
        assert np.array_equal(mask, wanted)


@pytest.mark.parametrize("annotation", LADDER, ids=str)
def test_draws_depend_on_neither_order_nor_batch(split, pairs, annotation):
    images, classes = pairs
    whole = annotation_masks(split, images, classes, annotation, seed=1)
    order = np.random.default_rng(0).permutation(len(images))
    again = annotation_masks(split, images[order], classes[order], annotation, seed=1)
    assert torch.equal(again, whole[order])
    one = annotation_masks(split, images[5:6], classes[5:6], annotation, seed=1)
    assert torch.equal(one[0], whole[5])


@pytest.mark.parametrize("annotation", [{"box": {"shift": 0.3}}, {"points": 2}, "random_box"])
def test_another_seed_draws_others(split, pairs, annotation):
    one, other = (annotation_masks(split, *pairs, annotation, seed=seed) for seed in (0, 1))
    assert (one != other).any((1, 2)).float().mean() > 0.8


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 3])
def test_a_box_is_what_box_dilation_draws(split, pairs, share):
    images, classes = pairs
    annotation = {"box": {"dilate": share}}
    fast = annotation_masks(split, images, classes, annotation)
    assert torch.equal(fast, split.masks(images, classes, share))
    place = Located(split.boxes(images[0], classes[0]), split.size)
    assert np.array_equal(ANNOTATIONS["box"](place, dilate=share), fast[0].numpy())


def test_a_random_box_has_the_size_and_is_anywhere():
    boxes = np.array([[3, 2, 8, 5]])
    places = set()
    for number in range(400):
        drawn = ANNOTATIONS["random_box"](Located(boxes, 10, (number,)))
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        assert (len(rows), len(columns), drawn.sum()) == (3, 5, 15)
        places.add((columns[0], rows[0]))
    assert len(places) == 6 * 8  # Each possible corner, the right one too.
    whole = np.array([[0, 0, 10, 10]])
    assert ANNOTATIONS["random_box"](Located(whole, 10)).all()


def test_points_are_nested_and_lie_in_the_box_where_there_is_no_mask():
    place = Located(np.array([[2, 4, 9, 9]]), 20, ("a",))
    exact = {"radius": 0.0}
    few, more = (ANNOTATIONS["points"](place, n, **exact) for n in (3, 9))
    assert (few.sum(), more.sum()) == (3, 9)
    assert not (few & ~more).any()
    assert not (more & ~place.fill(place.boxes)).any()
    # More points than pixels are all of them.
    assert np.array_equal(ANNOTATIONS["points"](place, 99, **exact), place.fill(place.boxes))
    apart = np.zeros((20, 20), dtype=bool)
    elsewhere = Located(place.boxes, 20, ("a",), lambda: apart)
    assert np.array_equal(ANNOTATIONS["points"](elsewhere, 3, **exact), few)


def test_where_the_evidence_lies_outside_the_rest_counts(tmp_path):
    write_birds(tmp_path / "data", BirdsOptions(train=12, val=10, test=10, size=24))
    data = open_data("waterbirds100", tmp_path / "data", tmp_path / "cache", image_size=24)
    inside, outside = data.split("train", "conventional"), data.split("train", "reversed")
    for annotation in ({"box": {"shift": 0.3}}, "random_box", {"points": 2}):
        drawn = {
            split.is_outside: annotation_masks(
                split, [3], [int(split.labels[3].argmax())], annotation
            )
            for split in (inside, outside)
        }
        assert 0 < drawn[True].sum() < 24 * 24
        assert 0 < drawn[False].sum() < 24 * 24
    box = annotation_masks(outside, [3], [int(outside.labels[3].argmax())], {"box": {"shrink": 0}})
    assert torch.equal(box, outside.masks([3], [int(outside.labels[3].argmax())]))
    nothing = annotation_masks(outside, [3], [int(outside.labels[3].argmax())], "none")
    assert not nothing.any()
    with pytest.raises(InputError, match=r"annotation: mask needs segmentation masks.*12 training"):
        check_annotatable(inside, [check_annotation("mask")])


@pytest.fixture
def table(tmp_path):
    """Write a table of four images, the masks of which are given by their names."""
    rng = np.random.default_rng(0)
    painted = np.zeros((20, 20), dtype=np.uint8)
    painted[4:9, 5:8] = 255
    Image.fromarray(painted).save(tmp_path / "object.png")
    Image.fromarray(painted * 0).save(tmp_path / "nothing.png")

    def write(masks):
        lines = ["path,class,xmin,ymin,xmax,ymax,split,mask"]
        for number, mask in enumerate([*masks, "", ""]):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            name = "train" if number < len(masks) else ("val", "test")[number - len(masks)]
            lines.append(f"{number}.png,cat,3,3,12,12,{name},{mask}")
        (tmp_path / "annotations.csv").write_text("\n".join(lines))
        data = open_data(data_config("csv", 20), tmp_path, tmp_path / f"cache{len(lines)}")
        return data.split("train")

    return write


def test_images_without_a_mask_are_counted_and_not_guided(table):
    split = table(["object.png", "", "nothing.png", "object.png", ""])
    mask = check_annotation("mask")
    assert annotatable(split, mask)[:, 0].tolist() == [True, False, False, True, False]
    (sentence,) = check_annotatable(split, [mask, check_annotation("box"), mask])
    assert "3 of 5 training images with a box have no mask" in sentence
    drawn = annotation_masks(split, range(5), [0] * 5, "mask")
    assert drawn.sum((1, 2)).tolist() == [15, 0, 0, 15, 0]
    clicks = annotation_masks(split, range(5), [0] * 5, {"points": {"count": 2, "radius": 0}})
    assert (clicks[0] & drawn[0]).sum() == 2
    assert (clicks[2] & split.masks([2], [0])[0]).sum() == 2
    with pytest.raises(InputError, match="none of the 2 training images"):
        check_annotatable(table(["", "nothing.png"]), [mask])


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("boxes", "unknown annotation 'boxes' (did you mean 'box'?)"),
        ("points", "its arguments are count, radius"),
        ({"points": 0}, "count is 0"),
        ({"points": 1.5}, "count is 1.5"),
        ({"points": {"count": 1, "radius": 1}}, "radius is 1, and must be a share"),
        ({"points": {"number": 1}}, "its arguments are count, radius"),
        ({"box": {"shrink": 0.5}}, "shrink is 0.5"),
        ({"box": {"shift": -1}}, "shift is -1"),
        ({"box": {"dilate": 0.1, "shrink": 0.1}}, "dilated or shrunk, not both"),
        ({"box": 3}, "its arguments are dilate, shrink, shift"),
        ({"mask": {"dilate": 1}}, "its arguments are none"),
        (["box"], "a name or {name: {argument: value}} is wanted"),
        (3, "a name or {name: {argument: value}} is wanted"),
    ],
)
def test_what_is_wrong_is_said(written, wrong):
    with pytest.raises(InputError) as caught:
        check_annotation(written)
    assert wrong in str(caught.value)


def test_an_annotation_has_one_form():
    assert str(check_annotation({"points": 5})) == "points(count=5)"
    assert check_annotation({"points": {"radius": 0.05, "count": 5.0}}) == check_annotation(
        {"points": 5}
    )
    assert check_annotation({"box": {"shift": 0.0}}) == check_annotation("box")


def test_one_way_of_dilation_is_in_the_id(guided):
    plain = guided.guidance.model_dump(mode="json", exclude={"annotation"})
    older = GuidanceConfig(**plain | {"box_dilation": 0.25})
    newer = GuidanceConfig(**plain, annotation={"box": {"dilate": 0.25}})
    assert newer == older
    assert newer.canonical == older.canonical
    assert "annotation" not in newer.canonical
    assert str(newer.drawn) == "box(dilate=0.25)"
    moved = GuidanceConfig(**plain, annotation={"box": {"dilate": 0.25, "shift": 0.1}})
    assert (moved.box_dilation, str(moved.annotation)) == (0.25, "box(shift=0.1)")
    assert moved.drawn.arguments == {"dilate": 0.25, "shift": 0.1}
    assert GuidanceConfig.model_validate(moved.model_dump(mode="json")) == moved
    for annotation in ("mask", {"box": {"dilate": 0.1}}):
        with pytest.raises(ValueError, match="box_dilation dilates boxes"):
            GuidanceConfig(**plain | {"box_dilation": 0.25}, annotation=annotation)
