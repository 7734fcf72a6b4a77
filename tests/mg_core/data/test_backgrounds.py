"""Swapped backgrounds against plain loops over images and pixels."""

import numpy as np
import pytest
import torch

from mg_core.counter import permutation
from mg_core.data import backgrounds, open_data
from mg_core.data.backgrounds import GRID, objects, pair_up, swapped_backgrounds, without_objects

SIDE = 24


@pytest.fixture(scope="module")
def split():
    data = open_data("shapes", image_size=SIDE, train=8, val=8, test=30, size=SIDE, classes=3)
    return data.split("test")


def slow_without_objects(image, is_object):
    """Cover each pixel of an object (3, S, S) from the nearest place on the grid, one by one."""
    side, step = image.shape[-1], image.shape[-1] // GRID
    steps = range(-(GRID // 2), GRID // 2 + 1)
    places = sorted(
        (dy * dy + dx * dx, dy * step, dx * step) for dy in steps for dx in steps if dy or dx
    )
    found = image.copy()
    mean = [round(channel[~is_object].mean()) for channel in image] if not is_object.all() else 0
    for y, x in zip(*np.nonzero(is_object), strict=True):
        sources = (((y - dy) % side, (x - dx) % side) for _, dy, dx in places)
        known = next((place for place in sources if not is_object[place]), None)
        found[:, y, x] = mean if known is None else image[:, known[0], known[1]]
    return found


def test_images_are_swapped_as_written_out(split):
    order = permutation(len(split), backgrounds.SEED, "backgrounds")
    union = {}
    for i in order:
        union[i] = np.zeros((SIDE, SIDE), dtype=bool)
        for k in np.flatnonzero(split.labels[i]):
            union[i] |= split.segmentation([i], [k])[0].numpy()
    chosen = [i for i in order if union[i].any() and not union[i].all()]
    found = list(swapped_backgrounds(split, 7))
    assert np.concatenate([indices for indices, *_ in found]).tolist() == chosen
    own, changed = (torch.cat([batch[place] for batch in found]).numpy() for place in (1, 2))
    assert own.dtype == changed.dtype == np.uint8
    for place, i in enumerate(chosen):
        following = chosen[place + 1 :] + chosen[:place]
        without = [j for j in following if not (split.labels[j] & split.labels[i]).any()]
        donor = (without or following)[0]
        behind = slow_without_objects(split.images([donor])[0].numpy(), union[donor])
        expected = np.where(union[i], split.images([i])[0].numpy(), behind)
        np.testing.assert_array_equal(own[place], split.images([i])[0].numpy())
        np.testing.assert_array_equal(changed[place], expected)


def test_every_call_gives_the_same_images_whatever_the_batch(split):
    one, other = (
        torch.cat([changed for *_, changed in swapped_backgrounds(split, size)]) for size in (3, 64)
    )
    assert torch.equal(one, other)


def test_pairs_share_no_class_where_that_is_possible():
    rng = np.random.default_rng(0)
    labels = rng.random((60, 5)) < 0.3
    pairs = pair_up(labels)
    for image, other in enumerate(pairs):
        assert image != other
        is_free = ~(labels & labels[image]).any(1)
        is_free[image] = False
        assert is_free[other] or not is_free.any()
    assert pair_up(np.ones((3, 1), dtype=bool)).tolist() == [1, 2, 0]
    assert len(pair_up(np.ones((1, 1), dtype=bool))) == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97, 1.0])
def test_covered_objects_agree_with_single_pixels(share):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    is_object = rng.random((3, 16, 16)) < share
    found = without_objects(torch.from_numpy(images), torch.from_numpy(is_object))
    expected = [slow_without_objects(i, m) for i, m in zip(images, is_object, strict=True)]
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), expected)


class _WithoutMasks:
    """A split whose images have boxes alone."""

    def __init__(self, split, is_outside=False):
        self._split, self._is_outside = split, is_outside

    def __len__(self):
        return len(self._split)

    def __getattr__(self, name):
        return getattr(self._split, name)

    def segmentation(self, indices, classes):
        return None

    def masks(self, indices, classes):
        found = self._split.masks(indices, classes)
        return ~found if self._is_outside else found


@pytest.mark.parametrize("is_outside", [False, True])
def test_in_a_set_without_masks_boxes_say_what_stays(split, is_outside):
    plain = _WithoutMasks(split, is_outside)
    for indices, own, changed in swapped_backgrounds(plain, 16):
        stays = objects(plain, indices)[:, None].expand_as(own)
        assert torch.equal(own[stays], changed[stays])
        assert (own[~stays] != changed[~stays]).float().mean() > 0.5


def test_no_more_images_are_swapped_than_wanted(split, monkeypatch):
    monkeypatch.setattr(backgrounds, "MOST_IMAGES", 10)
    found = np.concatenate([indices for indices, *_ in swapped_backgrounds(split, 4)])
    assert len(found) == len(set(found)) == 10
