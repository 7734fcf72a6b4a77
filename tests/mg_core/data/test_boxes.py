from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mg_core.data.boxes import annotated_indices, boxes_to_masks, dilate, rasterise, scale_boxes
from mg_core.errors import InputError

coordinate = st.one_of(st.integers(-50, 700), st.floats(-1e9, 1e300))
stored_boxes = st.lists(st.tuples(*[coordinate] * 4), min_size=1, max_size=5)
sides = st.integers(1, 600)
trained_sizes = st.sampled_from([1, 7, 32, 64, 224])


def scaled_slowly(box, width, height, size):
    """STUDY: int(x · scale), inside the image, max = max(max, min + 1), with corners in order."""
    low, high = [], []
    for first_end, second_end, side in ((box[0], box[2], width), (box[1], box[3], height)):
        minimum, maximum = sorted((first_end, second_end))
        scale = size / side
        first = min(max(int(minimum * scale), 0), size - 1)
        last = min(max(int(maximum * scale), first + 1), size)
        low.append(first)
        high.append(last)
    return low + high


def trained_boxes(size=40):
    corner = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    extent = st.tuples(st.integers(1, size), st.integers(1, size))
    return st.builds(
        lambda low, wide: [*low, min(low[0] + wide[0], size), min(low[1] + wide[1], size)],
        corner,
        extent,
    )


@given(stored_boxes, sides, sides, trained_sizes)
def test_scaling_equals_the_definition(boxes, width, height, size):
    found = scale_boxes(np.array(boxes, dtype=np.float64), width, height, size)
    wanted = [scaled_slowly([float(v) for v in box], width, height, size) for box in boxes]
    assert found.tolist() == wanted
    assert (found[:, :2] < found[:, 2:]).all()
    assert found.min() >= 0
    assert found.max() <= size


def test_no_box_scales_to_no_box():
    assert scale_boxes(np.array([]), 10, 10, 8).shape == (0, 4)


@given(trained_boxes(), st.floats(0, 3))
def test_dilation_widens_by_a_share_of_width_and_height(box, share):
    xmin, ymin, xmax, ymax = box
    dx, dy = int(share * (xmax - xmin)), int(share * (ymax - ymin))
    wanted = [max(xmin - dx, 0), max(ymin - dy, 0), min(xmax + dx, 40), min(ymax + dy, 40)]
    assert dilate(np.array([box], dtype=np.int32), share, 40).tolist() == [wanted]


def test_an_enormous_dilation_covers_the_image():
    assert dilate(np.array([[3, 4, 5, 6]], dtype=np.int32), 1e300, 8).tolist() == [[0, 0, 8, 8]]


@given(st.lists(st.tuples(st.integers(0, 2), trained_boxes(9)), max_size=6))
def test_masks_are_unions_of_boxes(entries):
    rows = np.array([row for row, _ in entries], dtype=np.int64)
    boxes = np.array([box for _, box in entries], dtype=np.int32).reshape(-1, 4)
    masks = rasterise(boxes, rows, 3, 9)
    for row in range(3):
        for y in range(9):
            for x in range(9):
                inside = any(
                    r == row and xmin <= x < xmax and ymin <= y < ymax
                    for r, (xmin, ymin, xmax, ymax) in entries
                )
                assert masks[row, y, x] == inside


finite_boxes = st.lists(st.tuples(*[st.floats(-20, 300)] * 4), max_size=3)


@given(
    st.lists(st.tuples(finite_boxes, sides, sides), max_size=3),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_masks_of_given_boxes_equal_the_definition(images, size, dilation):
    boxes = [found for found, _, _ in images]
    masks = boxes_to_masks(boxes, size, [image[1:] for image in images], dilation)
    assert masks.dtype == torch.bool
    assert masks.shape == (len(images), size, size)
    for mask, (found, width, height) in zip(masks, images, strict=True):
        wanted = torch.zeros((size, size), dtype=torch.bool)
        for box in found:
            xmin, ymin, xmax, ymax = scaled_slowly(box, width, height, size)
            dx, dy = int(dilation * (xmax - xmin)), int(dilation * (ymax - ymin))
            rows, columns = slice(max(ymin - dy, 0), ymax + dy), slice(max(xmin - dx, 0), xmax + dx)
            wanted[rows, columns] = True
        assert torch.equal(mask, wanted)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: torch.tensor(v).float()])
def test_boxes_of_any_kind_at_the_trained_size(kind):
    masks = boxes_to_masks([kind([[1, 0, 3, 2], [0, 3, 1, 4]]), kind([[2, 2, 2, 2]]), []], 4)
    assert masks.int().tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
        [[0] * 4] * 4,
    ]
    assert boxes_to_masks(torch.tensor([[[0, 0, 8, 4]]]), 2, np.array([[8, 8]])).tolist() == [
        [[True, True], [False, False]]
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[1, 2, 3, 4]], 8), r"boxes of image 0: rows of 4 finite numbers .* not shape \(4,\)"),
        (([[], [[1, 2, 3]]], 8), "boxes of image 1: rows of 4 finite numbers"),
        (([[[1, 2, 3, float("nan")]]], 8), "boxes of image 0: rows of 4 finite numbers"),
        (([[[1, 2, 3, 4], [1]]], 8), "boxes of image 0: rows of 4 numbers"),
        (([[]], (8, 8)), r"size is \(8, 8\): masks are square"),
        (([[]], 0), "size is 0: masks are square"),
        (([[]], 8, [(8, 8), (8, 8)]), r"image_sizes needs one positive \(width, height\) for 1"),
        (([[]], 8, [(0, 8)]), "image_sizes needs one positive"),
        (([[]], 8, [8]), "image_sizes: rows of 2 finite numbers"),
        (([[]], 8, None, -0.1), "dilation is -0.1"),
    ],
)
def test_malformed_boxes_are_a_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        boxes_to_masks(*arguments)


@given(st.integers(1, 400), st.integers(0, 9), st.floats(0.001, 1), st.floats(0.001, 1))
def test_annotated_subsets_are_nested(n_images, seed, a, b):
    small, large = sorted((a, b))
    few, more = (annotated_indices(n_images, share, seed) for share in (small, large))
    assert len(few) == max(1, int(small * n_images))
    assert set(few) <= set(more) <= set(range(n_images))
    assert np.array_equal(few, annotated_indices(n_images, small, seed))


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 25), (0.1, 250), (1.0, 2501)])
def test_annotated_subsets_of_voc_have_the_published_sizes(fraction, count):
    assert len(annotated_indices(2501, fraction, 0)) == count


def test_annotated_subsets_differ_between_seeds():
    assert not np.array_equal(annotated_indices(500, 0.1, 0), annotated_indices(500, 0.1, 1))


def test_images_without_labels_are_annotated_last():
    labels = np.zeros((50, 3), dtype=bool)
    labels[10:20, 1] = True
    chosen = annotated_indices(labels, 0.2, 4)
    assert chosen.tolist() == list(range(10, 20))
    assert len(annotated_indices(labels, 1.0, 4)) == 50
