from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from mg_core.counter import generator
from mg_core.data.drawn.birds import BirdsOptions, draw_bird, write_birds
from mg_core.data.layouts.choice import LimitOptions
from mg_core.data.layouts.waterbirds import Waterbirds, read_boxes, read_metadata
from mg_core.errors import InputError

OPTIONS = BirdsOptions(train=40, val=20, test=26, size=32, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "birds"
    assert write_birds(folder, OPTIONS)
    return folder


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_birds(tmp_path / "again", OPTIONS)
    assert contents(tmp_path / "again") == contents(folder)
    write_birds(tmp_path / "other", OPTIONS.model_copy(update={"seed": 2}))
    ours, others = contents(folder), contents(tmp_path / "other")
    assert not any(ours[name] == others.get(name) for name in ours if name.endswith(".jpg"))


def test_groups_are_spread_as_in_the_real_set(folder):
    rows = read_metadata(folder / "waterbird_1.0_forest2water2" / "metadata.csv")
    counts = np.zeros((3, 4), dtype=int)
    for row in rows:
        counts[row.split, row.group] += 1
    assert counts[0].tolist() == [31, 0, 0, 9]
    assert counts.sum(axis=1).tolist() == [40, 20, 26]
    for split in (1, 2):
        land, water = counts[split, ::2], counts[split, 1::2]
        assert (abs(land - water) <= 1).all()
        assert counts[split].min() > 0


def test_the_reader_of_the_real_set_reads_it(folder):
    reader = Waterbirds(folder, LimitOptions())
    boxes = read_boxes(folder / "CUB_200_2011" / "bounding_boxes.txt")
    assert len(boxes) == 86
    for record in reader.records("test"):
        with Image.open(record.image) as image:
            assert image.size == (32, 32)
        _, xmin, ymin, xmax, ymax = record.boxes[0]
        assert 0 <= xmin < xmax <= 32
        assert 0 <= ymin < ymax <= 32


@pytest.mark.parametrize("y", [0, 1])
@pytest.mark.parametrize("place", [0, 1])
def test_boxes_hold_the_bird_and_nothing_else_differs(y, place):
    # The background depends on the generator alone, so another bird shows what was painted.
    boxes, areas = [], []
    for index in range(10):
        bird = draw_bird(generator(3, index), 64, y, place)
        other = draw_bird(generator(3, index), 64, 1 - y, place)
        changed = (bird.image.astype(int) != other.image).any(axis=2)
        hull = np.zeros((64, 64), dtype=bool)
        for xmin, ymin, xmax, ymax in (bird.box, other.box):
            # Half-covered pixels stand out by one.
            hull[max(ymin - 1, 0) : ymax + 1, max(xmin - 1, 0) : xmax + 1] = True
        assert not changed[~hull].any()
        boxes.append(bird.box)
        areas.append((bird.box[2] - bird.box[0]) * (bird.box[3] - bird.box[1]) / 64**2)
    assert len(set(boxes)) == 10
    assert 0.05 < np.mean(areas) < 0.3


def test_backgrounds_tell_land_from_water():
    # Blue exceeds green over water and nowhere on land.
    for index in range(20):
        for place in (0, 1):
            image = draw_bird(generator(4, index), 32, index % 2, place).image
            corner = np.median(image.reshape(-1, 3).astype(float), axis=0)
            assert (corner[2] > corner[1]) == bool(place)


def test_a_changed_or_foreign_folder_is_left_alone(folder, tmp_path):
    assert not write_birds(folder, OPTIONS)
    with pytest.raises(InputError, match=r"holds another set of birds \(train 40"):
        write_birds(folder, OPTIONS.model_copy(update={"train": 41}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="neither empty nor a generated set of birds"):
        write_birds(tmp_path / "mine", OPTIONS)


def test_a_background_that_is_not_clear_tells_less():
    """Land and water differ less in colour and grain, and birds stay what they were."""

    def distance(clarity):
        means = []
        for place in (0, 1):
            pictures = [
                draw_bird(np.random.default_rng(n), 32, 0, place, clarity).image for n in range(40)
            ]
            means.append(np.mean(pictures, axis=(0, 1, 2)))
        return np.abs(means[0] - means[1]).sum()

    assert distance(0.0) < 0.1 * distance(1.0)
    assert distance(0.3) < 0.5 * distance(1.0)
    boxes = {draw_bird(np.random.default_rng(7), 32, 1, 1, 1.0).box}
    assert boxes == {draw_bird(np.random.default_rng(7), 32, 1, 1).box}
