from __future__ import annotations

import numpy as np
import pytest
import torch

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.data.boxes import dilate
from mg_core.data.drawn.shapes import Shapes
from mg_core.errors import InputError

SIZE = 32


@pytest.fixture(scope="module")
def data(small_shapes, small_options, tmp_path_factory):
    config = DataConfig(
        name="shapes",
        image_size=SIZE,
        horizontal_flip=False,
        options=small_options.model_dump(exclude_none=True),
    )
    return open_data(config, str(small_shapes), str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def split(data):
    return data.split("train")


def test_splits_have_their_sizes(data):
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [24, 7, 5]
    assert data.split("train") is data.split("train")
    with pytest.raises(InputError, match="unknown split 'trainval'; choose from train, val, test"):
        data.split("trainval")


@pytest.mark.parametrize(
    "indices", [[3, 1, 3], np.array([3, 1, 3], dtype=np.int32), torch.tensor([3, 1, 3])]
)
def test_batches_take_any_kind_of_index(split, indices):
    images = split.images(indices)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], split.images([1])[0])
    assert split.masks(indices, [0, 1, 2]).shape == (3, SIZE, SIZE)
    assert split.segmented(indices).tolist() == [True] * 3


def test_an_index_outside_is_an_error(split):
    with pytest.raises(IndexError):
        split.images([24])


@pytest.mark.parametrize("dilation", [0.0, 0.1, 0.5])
def test_masks_of_a_batch_are_those_of_its_images(split, small_shapes, small_options, dilation):
    records = Shapes(small_shapes, small_options).records("train")
    rng = np.random.default_rng(0)
    indices, classes = rng.integers(24, size=200), rng.integers(6, size=200)
    masks = split.masks(indices, classes, dilation).numpy()
    for row, (index, class_index) in enumerate(zip(indices, classes, strict=True)):
        wanted = np.zeros((SIZE, SIZE), dtype=bool)
        for box in records[index].boxes:
            if box.class_index == class_index:
                corners = [int(value * (SIZE / 48)) for value in box[1:]]
                widened = dilate(np.array([corners], dtype=np.int32), dilation, SIZE)[0]
                wanted[widened[1] : widened[3], widened[0] : widened[2]] = True
        assert np.array_equal(masks[row], wanted)
        assert wanted.any() == split.labels[index, class_index]


def test_segmentation_lies_where_the_boxes_are(split):
    rows, classes = np.nonzero(split.labels)
    objects = split.segmentation(rows, classes)
    assert objects.dtype == torch.bool
    assert objects.flatten(1).any(dim=1).all()
    # Masks take the nearest pixel while boxes are cut down: one pixel may stick out.
    boxes = split.masks(rows, classes, 0.2)
    assert not (objects & ~boxes).any()
    absent_rows, absent = np.nonzero(~split.labels)
    assert not split.segmentation(absent_rows, absent).any()


def test_a_set_without_masks_says_so(devkit, tmp_path):
    config = DataConfig(name="voc2007", image_size=8, horizontal_flip=False, options={})
    split = open_data(config, str(devkit.root), str(tmp_path / "cache")).split("train")
    assert not split.has_segmentation
    assert split.segmentation([0], [0]) is None
    assert split.segmented([0, 1]).tolist() == [False, False]
