from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exports import Photo, photographs
from PIL import Image

import mg_core
from mg_core.data.drawn.shapes import ShapesOptions, write_shapes

REPOSITORY = Path(mg_core.__file__).parents[1]


@pytest.fixture(scope="session")
def small_options() -> ShapesOptions:
    return ShapesOptions(train=24, val=7, test=5, size=48, seed=3)


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory: pytest.TempPathFactory, small_options: ShapesOptions) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "shapes"
    write_shapes(folder, small_options)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("MG_TEST_DATA")
    if not folder:
        pytest.skip("MG_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.Popen[str]]:
    """Start a Python process that sees the packages under test."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", "-c", code, *map(str, arguments)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


XML_OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


class Devkit:
    """A tiny VOC folder of two images a split, 40 × 20 pixels, to be broken by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "VOCdevkit" / "VOC2007"
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (self.folder / name).mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            ids = [f"{split}-{number}" for number in range(2)]
            self.list(split).write_text("\n".join(ids) + "\n")
            for name in ids:
                pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(self.image(name))
                self.write_objects(name, ("dog", 0, 4, 2, 12, 9))

    def list(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{split}.txt"

    def image(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"

    def annotation(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def write_objects(self, name: str, *objects: tuple[object, ...]) -> None:
        body = "".join(XML_OBJECT.format(*values) for values in objects)
        self.annotation(name).write_text(f"<annotation>{body}</annotation>")


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path / "data")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    return photographs(tmp_path_factory.mktemp("own") / "photographs")


class CocoFolder:
    """Twelve training and two test images of 40 × 20 pixels, to be broken by a test."""

    def __init__(self, root):
        self.root = root
        (root / "annotations").mkdir(parents=True)
        self.content = {}
        for part, count in (("train", 12), ("val", 2)):
            (root / f"{part}2014").mkdir()
            self.content[part] = {
                "images": [
                    {"id": 100 + i, "file_name": f"{part}_{i}.png", "width": 40, "height": 20}
                    for i in range(count)
                ],
                "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
                "annotations": [
                    {
                        "id": i + 1,
                        "image_id": 100 + i,
                        "category_id": 18,
                        "bbox": [4.0, 2.0, 8.0, 7.0],
                        "segmentation": [[4, 2, 12, 2, 12, 9, 4, 9]],
                        "iscrowd": 0,
                    }
                    for i in range(count)
                ],
            }
            for i in range(count):
                pixels = np.full((20, 40, 3), 9 * i, dtype=np.uint8)
                Image.fromarray(pixels).save(self.image(part, i))
        self.write()

    def image(self, part, number):
        return self.root / f"{part}2014" / f"{part}_{number}.png"

    def write(self):
        for part, content in self.content.items():
            text = json.dumps(content)
            (self.root / "annotations" / f"instances_{part}2014.json").write_text(text)


@pytest.fixture
def coco_folder(tmp_path: Path) -> CocoFolder:
    return CocoFolder(tmp_path / "data")
