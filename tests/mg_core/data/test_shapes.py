from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from mg_core.config import DataConfig
from mg_core.counter import generator
from mg_core.data import open_data
from mg_core.data.drawn.drawing import SHAPES, draw_scene
from mg_core.data.drawn.shapes import Shapes, ShapesOptions, write_shapes
from mg_core.errors import InputError


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def scenes(count, size=64, n_classes=8, correlation=0.9, **further):
    return [
        draw_scene(generator(5, index), size, n_classes, correlation, **further)
        for index in range(count)
    ]


def test_the_same_seed_gives_the_same_bytes(small_shapes, small_options, tmp_path):
    assert write_shapes(tmp_path / "again", small_options)
    assert contents(tmp_path / "again") == contents(small_shapes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def test_another_seed_gives_other_images(small_shapes, small_options, tmp_path):
    write_shapes(tmp_path / "other", small_options.model_copy(update={"seed": 4}))
    ours, others = contents(small_shapes), contents(tmp_path / "other")
    images = [name for name in ours if name.endswith(".jpg")]
    assert all(ours[name] != others[name] for name in images)


def test_images_do_not_depend_on_how_many_there_are(small_shapes, small_options, tmp_path):
    write_shapes(tmp_path / "more", small_options.model_copy(update={"train": 30, "val": 3}))
    ours, more = contents(small_shapes), contents(tmp_path / "more")
    shared = [n for n in ours if n.endswith((".jpg", ".xml", "0.png")) and n in more]
    assert len(shared) > 60
    assert all(ours[name] == more[name] for name in shared)


def test_torchvision_reads_the_devkit(small_shapes):
    detection = VOCDetection(str(small_shapes), year="2007", image_set="train")
    segmentation = VOCSegmentation(str(small_shapes), year="2007", image_set="train")
    assert len(detection) == len(segmentation) == 24
    names = list(SHAPES)[:6]
    for (image, target), (_, mask) in zip(detection, segmentation, strict=True):
        assert image.size == mask.size == (48, 48)
        objects = target["annotation"]["object"]
        assert 1 <= len(objects) <= 3
        ids = np.array(mask)
        assert set(np.unique(ids)) - {0} == {names.index(thing["name"]) + 1 for thing in objects}
        covered = np.zeros((48, 48), dtype=bool)
        for thing in objects:
            corners = {key: int(value) for key, value in thing["bndbox"].items()}
            box = np.s_[corners["ymin"] : corners["ymax"], corners["xmin"] : corners["xmax"]]
            covered[box] = True
            assert (ids[box] == names.index(thing["name"]) + 1).mean() > 0.15
        assert not ids[~covered].any()


def test_lists_say_which_images_hold_a_class(small_shapes):
    main = small_shapes / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    assert (main / "trainval.txt").read_text() == (
        (main / "train.txt").read_text() + (main / "val.txt").read_text()
    )
    reader = Shapes(small_shapes, ShapesOptions(train=24, val=7, test=5, size=48, seed=3))
    for split in ("train", "val", "test"):
        records = reader.records(split)
        for index, name in enumerate(reader.classes):
            lines = (main / f"{name}_{split}.txt").read_text().splitlines()
            wanted = [
                f"{r.id} {1 if index in {b.class_index for b in r.boxes} else -1:2d}"
                for r in records
            ]
            assert lines == wanted


def test_objects_are_seen_and_tightly_boxed():
    for scene in scenes(300):
        assert 1 <= len(scene.object_classes) <= 3
        for class_index, (x0, y0, x1, y1) in zip(scene.object_classes, scene.boxes, strict=True):
            inside = scene.class_ids[y0:y1, x0:x1] == class_index + 1
            assert inside.sum() >= 0.15 * inside.size
            # A tight box has an object pixel on each of its four sides.
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            assert max(x1 - x0, y1 - y0) >= 10


def test_clutter_hides_the_texture_in_the_box_and_nothing_else():
    hidden = []
    for plain, cluttered in zip(scenes(60), scenes(60, clutter=16), strict=True):
        if len(plain.object_classes) > 1:  # What is drawn after the first object differs.
            continue
        assert (plain.class_ids == cluttered.class_ids).all()
        assert (plain.boxes == cluttered.boxes).all()
        changed = (plain.image != cluttered.image).any(2)
        x0, y0, x1, y1 = plain.boxes[0]
        reach = max(x1 - x0, y1 - y0) // 2 + 2
        near = np.s_[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach]
        far = changed.copy()
        far[near] = False
        assert not far.any()
        is_background = plain.class_ids[y0:y1, x0:x1] == 0
        hidden.append(changed[y0:y1, x0:x1][is_background].mean())
    assert np.mean(hidden) > 0.6


def test_contrast_changes_what_is_behind_the_objects_and_nothing_else():
    spreads = []
    # Ellipses and rectangles, which have no notches: inside, they are of one colour.
    drawn = (scenes(60, n_classes=2, clutter=4, contrast=contrast) for contrast in (1.0, 2.0))
    for pale, strong in zip(*drawn, strict=True):
        assert (pale.class_ids == strong.class_ids).all()
        assert (pale.boxes == strong.boxes).all()
        is_object = pale.class_ids > 0
        spreads.append([scene.image[~is_object].std() for scene in (pale, strong)])
        if len(pale.object_classes) > 1:  # A rim can be inside of another object.
            continue
        # Pixels at the rim of an object are mixed with what is behind it.
        inside = np.lib.stride_tricks.sliding_window_view(np.pad(is_object, 1), (3, 3)).all((2, 3))
        assert (pale.image[inside] == strong.image[inside]).all()
    pale_spread, strong_spread = np.mean(spreads, axis=0)
    assert strong_spread > 1.4 * pale_spread


def test_objects_are_as_large_as_asked():
    for share in (0.36, 0.5):
        sizes = ShapesOptions(object_size=share).object_sizes
        drawn = scenes(200, n_classes=2, object_size=sizes)
        longer = [(box[2:] - box[:2]).max() / 64 for scene in drawn for box in scene.boxes[:1]]
        assert np.mean(longer) == pytest.approx(share, abs=0.03)
    assert ShapesOptions(object_size=0.36).object_sizes == pytest.approx((0.28, 0.44))


def test_sets_without_the_later_options_keep_their_names():
    assert ShapesOptions().key == "3e2dea7907489959"
    assert ShapesOptions(clutter=1).key != ShapesOptions().key
    assert ShapesOptions(object_size=0.36).key != ShapesOptions().key
    assert ShapesOptions(contrast=1.0).key != ShapesOptions().key


@pytest.mark.parametrize("correlation", [0.0, 0.9, 1.0])
def test_textures_follow_a_class_as_often_as_asked(correlation):
    drawn = scenes(400, size=24, correlation=correlation)
    share = np.mean([scene.texture in scene.object_classes for scene in drawn])
    assert abs(share - correlation) <= 0.05


def test_every_class_and_number_of_objects_occurs():
    drawn = scenes(200, size=24)
    assert {int(k) for scene in drawn for k in scene.object_classes} == set(range(8))
    assert {len(scene.object_classes) for scene in drawn} == {1, 2, 3}
    assert any(len(set(scene.object_classes.tolist())) > 1 for scene in drawn)
    assert {scene.texture for scene in drawn} == set(range(8))


def test_a_uniform_map_would_score_low():
    areas = [np.prod(box[2:] - box[:2]) / 64**2 for scene in scenes(100) for box in scene.boxes]
    assert 0.08 < np.mean(areas) < 0.2


def test_the_same_set_is_left_alone(small_shapes, small_options):
    before = contents(small_shapes)
    assert not write_shapes(small_shapes, small_options)
    assert contents(small_shapes) == before


def test_other_folders_are_refused(small_shapes, small_options, tmp_path):
    other = small_options.model_copy(update={"train": 25})
    with pytest.raises(InputError, match=r"another set of shapes \(train 24, .*not the one asked"):
        write_shapes(small_shapes, other)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(InputError, match="thesis is neither empty nor a generated set"):
        write_shapes(tmp_path / "thesis", small_options)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]
    with pytest.raises(InputError, match=r"chapter\.tex is neither empty"):
        write_shapes(tmp_path / "thesis" / "chapter.tex", small_options)


def test_a_changed_set_is_refused(small_options, tmp_path):
    few = small_options.model_copy(update={"train": 2, "val": 1, "test": 1})
    write_shapes(tmp_path / "set", few)
    next((tmp_path / "set").rglob("*.xml")).write_text("<annotation/>")
    with pytest.raises(InputError, match="was changed after it was generated"):
        write_shapes(tmp_path / "set", few)


def test_an_empty_folder_is_filled_and_a_bad_place_named(small_options, tmp_path):
    (tmp_path / "empty").mkdir()
    few = small_options.model_copy(update={"train": 1, "val": 1, "test": 1})
    assert write_shapes(tmp_path / "empty", few)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/below: "):
        write_shapes(tmp_path / "file" / "below", few)
    # The folder exists and yet nothing can be made in it, not even by root.
    with pytest.raises(InputError, match="cannot write /proc/set: "):
        write_shapes(Path("/proc/set"), few)


def test_without_a_root_the_set_makes_itself(tmp_path):
    options = {"train": 3, "val": 2, "test": 2, "size": 32, "classes": 7}
    config = DataConfig(name="shapes", image_size=16, horizontal_flip=False, options=options)
    data = open_data(config, cache=str(tmp_path))
    assert data.classes == tuple(SHAPES)[:7]
    split = data.split("train")
    assert split.labels.shape == (3, 7)
    assert split.images([0, 2]).shape == (2, 3, 16, 16)
    made = next(tmp_path.glob("shapes-*/VOCdevkit"))
    again = open_data(config, root=str(made.parent), cache=str(tmp_path / "other"))
    assert again.fingerprint == data.fingerprint
    marker = json.loads((made.parent / "shapes.json").read_text())
    assert marker["options"]["classes"] == 7


def test_masks_of_the_palette_are_the_devkits_colours(small_shapes):
    mask = next(small_shapes.rglob("SegmentationClass/*.png"))
    with Image.open(mask) as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    # From the devkit's VOClabelcolormap: aeroplane, bicycle, bird, boat, bottle, bus, void.
    wanted = [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert palette[1:7].tolist() == [list(colour) for colour in wanted]
    assert palette[255].tolist() == [224, 224, 192]


@pytest.mark.parametrize("wrong", [{"classes": 9}, {"train": 0}, {"correlation": 2}, {"seed": -1}])
def test_bad_options(wrong):
    config = DataConfig(name="shapes", image_size=16, horizontal_flip=False, options=wrong)
    with pytest.raises(InputError, match=f"options of data set shapes: {next(iter(wrong))}: "):
        open_data(config)
