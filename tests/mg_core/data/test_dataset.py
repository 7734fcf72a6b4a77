from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch

import mg_core.data.boxes
import mg_core.data.dataset
from mg_core.config import DataConfig
from mg_core.data import DATASETS, class_names, data_config, open_data
from mg_core.data.boxes import dilate
from mg_core.data.drawn.shapes import Shapes, ShapesOptions
from mg_core.data.layouts.voc import Voc
from mg_core.errors import InputError
from mg_core.store import ResultStore

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


@pytest.mark.parametrize("module", [mg_core.data.boxes, mg_core.data.dataset])
def test_the_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_a_name_opens_what_its_configuration_opens(small_shapes, small_options, tmp_path, data):
    options = small_options.model_dump(exclude_none=True)
    named = open_data("shapes", small_shapes, tmp_path, image_size=SIZE, **options)
    # A sweep spells out all options; what it decodes is what a name finds.
    assert named.folder.name == data.folder.name
    whole = data_config("shapes", SIZE, options={"size": 48, "train": 24, "val": 7, "test": 5})
    assert whole.options == ShapesOptions(size=48, train=24, val=7, test=5).model_dump(
        exclude_none=True
    )
    assert open_data("shapes", small_shapes, **options).folder.name.startswith("shapes-224px-")


def test_a_configuration_comes_alone(small_shapes):
    config = data_config("shapes", SIZE)
    for further in ({"image_size": SIZE}, {"train": 3}):
        with pytest.raises(InputError, match="a whole configuration has its own image_size"):
            open_data(config, small_shapes, **further)


@pytest.mark.parametrize(
    ("values", "source", "sentence"),
    [
        ({"name": "shape"}, "", "unknown data set 'shape' (did you mean 'shapes'?)"),
        ({"name": "shape"}, "data", "data.name: unknown data set 'shape'"),
        ({"name": None}, "", "unknown data set None; choose from"),
        ({"options": {"trian": 3}}, "", "options of data set shapes: unknown key 'trian'"),
        ({"options": {"trian": 3}}, "data", "data.options: unknown key 'trian'"),
        ({"image_size": 0}, "", "data set shapes: image_size: "),
        ({"image_size": 0}, "data", "data: image_size: "),
    ],
)
def test_wrong_configurations_are_a_sentence(values, source, sentence):
    with pytest.raises(InputError) as caught:
        data_config(**{"name": "shapes", **values}, source=source)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("name", "options", "task", "names"),
    [
        ("voc2007", {"classes": "wug, blicket"}, None, ("wug", "blicket")),
        ("coco2014", {"classes": "wug"}, None, ("wug",)),
        ("shapes", {"classes": 2}, None, ("ellipse", "rectangle")),
        ("waterbirds100", {}, None, ("landbird", "waterbird")),
        ("waterbirds100", {}, "conventional", ("landbird", "waterbird")),
        ("waterbirds100", {}, "reversed", ("land", "water")),
    ],
)
def test_class_names_need_no_folder(name, options, task, names):
    assert class_names(data_config(name, options=options), "/gone", task=task) == names


def test_class_names_are_those_of_a_split(data, split):
    config = data_config("shapes", options={"train": 24, "val": 7, "test": 5, "size": 48})
    assert class_names(config) == data.classes == split.classes
    with pytest.raises(InputError, match="unknown task 'x'; this data set has no tasks"):
        class_names(config, task="x")
    with pytest.raises(InputError, match="options of data set voc2007: unknown key 'x'"):
        class_names(DataConfig(**{**config.model_dump(), "name": "voc2007", "options": {"x": 1}}))


@pytest.mark.parametrize("name", ["voc2007", "coco2014"])
def test_options_that_came_later_leave_ids_as_they_are(name):
    before = data_config(name)
    for later in ({"other_classes": "refuse"}, {"other_classes": None}, {"limit": None}):
        assert data_config(name, options=later).key == before.key
    assert not {"other_classes", "limit"} & set(before.options)
    for chosen in ({"other_classes": "ignore"}, {"limit": 5}):
        assert data_config(name, options=chosen).key != before.key
    with pytest.raises(InputError, match="unknown word 'drop'; choose from ignore, refuse"):
        data_config(name, options={"other_classes": "drop"})


@pytest.mark.parametrize("name", ["voc2007", "coco2014"])
def test_lists_of_class_names_are_the_joined_string(name):
    joined = data_config(name, options={"classes": "cat,dog,7"})
    for given in (["cat", "dog", "7"], ("cat", "dog", 7)):
        assert data_config(name, options={"classes": given}) == joined
        assert data_config(name, options={"classes": given}).key == joined.key
    for given, sentence in (
        ([], "classes: the list is empty; name at least one class"),
        (["cat", False], "classes: False is no class name; put names such as 'no' in quotes"),
        (["cat,dog"], "classes: 'cat,dog' holds a comma, which separates names"),
        ([["cat"]], "is no class name"),
        (None, "classes: input should be a valid string, not None"),
        (True, "classes: input should be a valid string, not True"),
    ):
        with pytest.raises(InputError) as caught:
            data_config(name, options={"classes": given})
        assert sentence in str(caught.value)


def test_a_year_may_be_a_number():
    assert data_config("coco2014", options={"year": 2017}).options["year"] == "2017"
    with pytest.raises(InputError, match="year: "):
        data_config("coco2014", options={"year": True})


def test_stores_know_data_by_either_fingerprint(devkit, tmp_path):
    data = open_data("voc2007", devkit.root, tmp_path / "cache", image_size=8)
    both = data.fingerprint, data.former_fingerprint()
    assert both[0] != both[1]
    for recorded in (*both, None):
        store = ResultStore(str(tmp_path / f"store-{recorded}"))
        if recorded is not None:
            store.record_fingerprint("d", recorded, "/data")
        for _ in range(2):
            store.record_fingerprint("d", data.fingerprint, "/data", data.former_fingerprint)
        assert store.files.keys("data") == [f"data/d/{recorded or data.fingerprint}"]
    devkit.image("val-0").write_bytes(devkit.image("val-0").read_bytes() + b"x")
    other = open_data("voc2007", devkit.root, tmp_path / "cache", image_size=8)
    for recorded in both:
        store = ResultStore(str(tmp_path / f"store-{recorded}"))
        with pytest.raises(InputError, match="the data in /data differ"):
            store.record_fingerprint("d", other.fingerprint, "/data", other.former_fingerprint)


class Folders(Voc):
    """A data set whose classes are known from its folder only."""

    def __init__(self, root, options):
        super().__init__(root, options)
        self.classes = (root.name,)

    @classmethod
    def class_names(cls, options):
        return None


def test_class_names_in_the_files_need_the_folder(devkit, monkeypatch):
    monkeypatch.setitem(DATASETS._variants, "folders", Folders)
    config = data_config("folders")
    assert class_names(config, devkit.root) == (devkit.root.name,)
    with pytest.raises(InputError, match="needs the folder it lies in"):
        class_names(config)


def test_class_names_and_configurations_need_no_pytorch():
    code = (
        "import sys\nfrom mg_core.data import class_names, data_config\n"
        "class_names(data_config('waterbirds100'), task='reversed')\nprint('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
