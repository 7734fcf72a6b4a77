"""The public names: documented with examples that run, importable without what they do not need."""

import doctest
import importlib
import os
import subprocess
import sys

import pytest

PACKAGES = ("mg_core", "sweeps", "analysis")
PUBLIC = [
    (package, name) for package in PACKAGES for name in importlib.import_module(package).__all__
]
FUNCTIONS = [
    (package, name)
    for package, name in PUBLIC
    if type(getattr(importlib.import_module(package), name)).__name__ == "function"
]


@pytest.mark.parametrize(("package", "name"), FUNCTIONS, ids=lambda value: value)
def test_the_example_of_a_public_function_runs(package, name, desk, monkeypatch):
    monkeypatch.chdir(desk)
    function = getattr(importlib.import_module(package), name)
    (found,) = [
        test for test in doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    ]
    assert found.examples, f"{package}.{name} has no example"
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found)
    assert result.failed == 0
    assert not any("+SKIP" in example.source for example in found.examples)


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: value)
def test_a_public_name_says_what_it_is(package, name):
    found = getattr(importlib.import_module(package), name)
    if not isinstance(found, type) and type(found).__name__ != "function":
        found = type(found)  # a registry
    assert found.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_quick_and_its_types_are_there(package, repository):
    heavy = ["torch", "ray", "pandas", "matplotlib"]
    code = f"import sys, {package}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
    assert (repository / package / "py.typed").is_file()


NOTEBOOK = """
import analysis, mg_core, torch, torchvision
from PIL import Image

# Train in a loop of one's own.
data = mg_core.open_data("shapes", image_size=32, train=16, val=8, test=4, size=32)
split, model = data.split("train"), mg_core.build_model("vanilla_tiny", len(data.classes))
optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
guidance = mg_core.Guidance("ixg", "input", "energy", localization_weight=0.01)
indices = torch.arange(len(split))
labels = torch.from_numpy(split.labels[indices])
classes = labels.int().argmax(1)
batch = mg_core.Batch(mg_core.encode(model, split.images(indices)), labels, classes,
                      split.masks(indices, classes), annotated=indices)
for step in range(3):
    print(mg_core.guided_step(model, optimizer, batch, guidance).loss)
# Judge a torchvision network on a folder.
folder = mg_core.open_data("voc2007", "devkit", image_size=32, classes="ellipse,rectangle")
network = torchvision.models.resnet18(num_classes=2)
print(mg_core.evaluate(network, folder.split("val"), [("gradcam", "layer4")]).localization)
# Load the best checkpoint of a store and explain a new photograph.
best = analysis.best("runs/demo").iloc[0]
model, names, size = analysis.load_model("runs/demo", best["trial_id"], best["epoch"])
photo = mg_core.load_image("photo.png", size)
maps = mg_core.attribute(model, mg_core.encode(model, photo), torch.tensor([0]), "gradcam", "final")
Image.fromarray(mg_core.overlay(photo[0], maps[0])).save("explained.png")
"""


def test_a_notebook_needs_no_more_than_25_lines(desk, monkeypatch):
    from PIL import Image

    from mg_core.data.drawn.shapes import ShapesOptions, write_shapes

    assert len([line for line in NOTEBOOK.splitlines() if line and line[0] != "#"]) <= 25
    options = ShapesOptions(train=6, val=6, test=4, size=32, classes=2)
    write_shapes(desk / "devkit", options)
    Image.new("RGB", (60, 40), (200, 30, 90)).save(desk / "photo.png")
    found = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], cwd=desk, capture_output=True, text=True, env=os.environ
    )
    assert found.returncode == 0, found.stderr
    assert "'gradcam@layer4': {'epg': 0." in found.stdout
    with Image.open(desk / "explained.png") as explained:
        assert explained.size == (24, 24)
