"""Shapes over textures that mostly follow a shape's class, written as a VOC devkit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, ClassVar
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from mg_core.config import Frozen, Integer, Number, PositiveInt
from mg_core.counter import generator
from mg_core.data.drawn.drawing import OBJECT_SIZE, SHAPES, Scene, draw_scene
from mg_core.data.drawn.generated import write_once
from mg_core.data.layouts.voc import Voc
from mg_core.data.reader import Progress, silent
from mg_core.paths import with_home

GENERATOR_VERSION = 1
"""Raised when the same options would give other bytes."""
JPEG_QUALITY = 95


class ShapesOptions(Frozen):
    """Options of the synthetic shapes; they decide every byte of the set.

    Attributes:
        classes: number of classes; the set uses the first ones of `SHAPES`.
        correlation: probability that the background's texture follows an object's class.
        object_size: mean of an object's longer side, as a share of the image's; none for 0.36. The
            larger the objects, the fewer fit into an image.
        clutter: number of pieces behind each object that hide the texture in its box; none for 0.
        contrast: factor that stretches the tones behind the objects; none for 1, at which they
            are muted, paler than any object.
    """

    train: PositiveInt = 1000
    val: PositiveInt = 300
    test: PositiveInt = 300
    size: Annotated[Integer, Field(ge=24, le=2048)] = 64
    classes: Annotated[Integer, Field(ge=2, le=len(SHAPES))] = 6
    correlation: Annotated[Number, Field(ge=0, le=1)] = 0.9
    seed: Annotated[Integer, Field(ge=0)] = 0
    # Later additions: none stands for the earlier behaviour, so that old keys and ids stay valid.
    object_size: Annotated[Number, Field(ge=0.1, le=0.5)] | None = None
    clutter: PositiveInt | None = None
    contrast: Annotated[Number, Field(ge=1, le=4)] | None = None

    # Of a set that is drawn as large as asked for, all is used.
    other_classes: ClassVar[None] = None
    limit: ClassVar[None] = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in the order of the class indices."""
        return tuple(SHAPES)[: self.classes]

    @property
    def object_sizes(self) -> tuple[float, float]:
        """Bounds of an object's longer side, as a share of the image's."""
        if self.object_size is None:
            return OBJECT_SIZE
        low, high = OBJECT_SIZE
        scale = 2 * self.object_size / (low + high)
        return (scale * low, scale * high)

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify the set's bytes."""
        text = json.dumps([GENERATOR_VERSION, self.model_dump(exclude_none=True)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shapes(Voc):
    """Reader of the synthetic set; an empty or missing folder is filled first."""

    Options: ClassVar[type[BaseModel]] = ShapesOptions

    @classmethod
    def class_names(cls, options: ShapesOptions) -> tuple[str, ...]:
        """Return the names of the first shapes."""
        return options.names

    @classmethod
    def locate(cls, root: str | Path | None, options: ShapesOptions, cache: Path) -> Path:
        """Return the folder of the set, which is written to the cache when none is given."""
        folder = with_home(root) if root else cache / f"shapes-{options.key}"
        write_shapes(folder, options)
        return folder


def write_shapes(folder: Path, options: ShapesOptions, progress: Progress = silent) -> bool:
    """Write the set as `write_once` does; the same options give the same bytes.

    Random draws depend on the seed, the split and the image's number alone.
    """
    return write_once(
        folder,
        "shapes",
        {"version": GENERATOR_VERSION, "options": options.model_dump(exclude_none=True)},
        lambda temporary: _write(temporary / "VOCdevkit" / "VOC2007", options, progress),
        lambda written: Shapes(written, options).former_fingerprint(),
    )


def _write(folder: Path, options: ShapesOptions, progress: Progress) -> None:
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    listed: dict[str, dict[str, set[int]]] = {}
    for split, count in (("train", options.train), ("val", options.val), ("test", options.test)):
        listed[split] = {}
        for index in range(count):
            name = f"{split}_{index:06d}"
            rng = generator(options.seed, "shapes", split, index)
            listed[split][name] = _write_image(folder, name, rng, options)
            progress(split, index + 1, count)
    listed["trainval"] = {**listed["train"], **listed["val"]}
    _write_lists(folder / "ImageSets", listed, options.names)


def _write_image(
    folder: Path, name: str, rng: np.random.Generator, options: ShapesOptions
) -> set[int]:
    """Draw and write an image with its annotations, and return the classes of its objects."""
    scene = draw_scene(
        rng,
        options.size,
        options.classes,
        options.correlation,
        options.object_sizes,
        options.clutter or 0,
        options.contrast or 1.0,
    )
    path = folder / "JPEGImages" / f"{name}.jpg"
    Image.fromarray(scene.image).save(path, quality=JPEG_QUALITY, subsampling=0)
    mask = Image.fromarray(scene.class_ids, mode="P")
    mask.putpalette(_PALETTE)
    mask.save(folder / "SegmentationClass" / f"{name}.png")
    xml = _annotation(name, scene, options)
    (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
    return set(scene.object_classes.tolist())


def _write_lists(
    folder: Path, listed: dict[str, dict[str, set[int]]], names: tuple[str, ...]
) -> None:
    """Write for each split the ids of its images, given with the classes of their objects."""
    (folder / "Main").mkdir(parents=True)
    (folder / "Segmentation").mkdir()
    for split, classes in listed.items():
        ids = "".join(f"{image}\n" for image in classes)
        (folder / "Main" / f"{split}.txt").write_text(ids)
        (folder / "Segmentation" / f"{split}.txt").write_text(ids)
        for index, name in enumerate(names):
            lines = (f"{image} {1 if index in classes[image] else -1:2d}\n" for image in classes)
            (folder / "Main" / f"{name}_{split}.txt").write_text("".join(lines))


def _annotation(name: str, scene: Scene, options: ShapesOptions) -> str:
    objects = "".join(
        f"\t<object>\n\t\t<name>{escape(options.names[index])}</name>\n"
        "\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        "\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{xmin}</xmin>\n\t\t\t<ymin>{ymin}</ymin>\n"
        f"\t\t\t<xmax>{xmax}</xmax>\n\t\t\t<ymax>{ymax}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for index, (xmin, ymin, xmax, ymax) in zip(scene.object_classes, scene.boxes, strict=True)
    )
    size = options.size
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{name}.jpg</filename>\n"
        f"\t<source>\n\t\t<database>shapes, seed {options.seed}</database>\n"
        f"\t\t<annotation>{options.names[scene.texture]} texture</annotation>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size}</width>\n\t\t<height>{size}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n\t<segmented>1</segmented>\n"
        f"{objects}</annotation>\n"
    )


def _voc_palette() -> list[int]:
    """Return the devkit's colour map, which spreads an id's bits over the high bits of r, g, b."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in palette.reshape(-1)]


_PALETTE = _voc_palette()
