"""The synthetic data set: shapes over textures that betray them, written as a VOC devkit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from mg_core.config import Frozen, Integer, Number, PositiveInt
from mg_core.counter import generator
from mg_core.data.drawn.drawing import OBJECT_SIZE, SHAPES, Scene, draw_scene
from mg_core.data.drawn.generated import Generated
from mg_core.data.layouts.voc import Voc, VocOptions

GENERATOR_VERSION = 1
"""Raised when the same options would give other bytes."""
JPEG_QUALITY = 95

Progress = Callable[[str, int, int], None]


class ShapesOptions(Frozen):
    """What decides every byte of the set.

    Attributes:
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        size: side of the images in pixels.
        classes: the first so many shapes.
        correlation: probability that the background's texture follows an object's class.
        seed: of the whole set.
        object_size: mean of an object's longer side, as a share of the image's; none for 0.36. Of
            large ones fewer find a place.
        clutter: pieces of no meaning behind each object, which hide the texture in its box.
        contrast: what the tones behind the objects are stretched by, none for 1, where
            they are muted, paler than any object.
    """

    train: PositiveInt = 1000
    val: PositiveInt = 300
    test: PositiveInt = 300
    size: Annotated[Integer, Field(ge=24, le=2048)] = 64
    classes: Annotated[Integer, Field(ge=2, le=len(SHAPES))] = 6
    correlation: Annotated[Number, Field(ge=0, le=1)] = 0.9
    seed: Annotated[Integer, Field(ge=0)] = 0
    # Added later: none stands for what there was before, so that keys and ids remain.
    object_size: Annotated[Number, Field(ge=0.1, le=0.5)] | None = None
    clutter: PositiveInt | None = None
    contrast: Annotated[Number, Field(ge=1, le=4)] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
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
        """Sixteen hex digits that stand for the set's bytes."""
        text = json.dumps([GENERATOR_VERSION, self.model_dump(exclude_none=True)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shapes(Voc):
    """Reader of the synthetic set; a folder that is empty or missing is filled first."""

    Options: ClassVar[type[BaseModel]] = ShapesOptions

    def __init__(self, root: Path, options: ShapesOptions) -> None:
        super().__init__(root, VocOptions(classes=",".join(options.names)))

    @classmethod
    def locate(cls, root: str | None, options: ShapesOptions, cache: Path) -> Path:
        """Return the folder of the set, generated in the cache when none is given."""
        folder = Path(root).expanduser() if root else cache / f"shapes-{options.key}"
        write_shapes(folder, options)
        return folder


class Entry(NamedTuple):
    """What the lists need to know of an image."""

    id: str
    object_classes: frozenset[int]


def write_shapes(folder: Path, options: ShapesOptions, progress: Progress | None = None) -> bool:
    """Write the set to a new folder, completely or not at all.

    The same options give the same bytes; every image depends on (seed, split, its number) alone.

    Args:
        folder: missing, empty, or holding this very set, which is then left as it is.
        options: what to write.
        progress: called with the split, images done and images to do.

    Returns:
        Whether anything was written.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    shapes = Generated(
        what="shapes",
        version=GENERATOR_VERSION,
        options=options.model_dump(exclude_none=True),
        fingerprint=lambda folder: Shapes(folder, options).fingerprint(),
    )
    return shapes.write(
        folder,
        lambda temporary: _write_devkit(temporary / "VOCdevkit" / "VOC2007", options, progress),
    )


def _write_devkit(folder: Path, options: ShapesOptions, progress: Progress | None) -> None:
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    entries: dict[str, list[Entry]] = {}
    for split, count in (("train", options.train), ("val", options.val), ("test", options.test)):
        entries[split] = []
        for entry in _write_images(folder, split, count, options):
            entries[split].append(entry)
            if progress is not None:
                progress(split, len(entries[split]), count)
    entries["trainval"] = entries["train"] + entries["val"]
    _write_lists(folder / "ImageSets", entries, options.names)


def _write_images(folder: Path, split: str, count: int, options: ShapesOptions) -> Iterator[Entry]:
    for index in range(count):
        rng = generator(options.seed, "shapes", split, index)
        scene = draw_scene(
            rng,
            options.size,
            options.classes,
            options.correlation,
            options.object_sizes,
            options.clutter or 0,
            options.contrast or 1.0,
        )
        name = f"{split}_{index:06d}"
        Image.fromarray(scene.image).save(
            folder / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0
        )
        mask = Image.fromarray(scene.class_ids, mode="P")
        mask.putpalette(_PALETTE)
        mask.save(folder / "SegmentationClass" / f"{name}.png")
        xml = _annotation(name, scene, options)
        (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        yield Entry(name, frozenset(scene.object_classes.tolist()))


def _write_lists(folder: Path, entries: dict[str, list[Entry]], names: tuple[str, ...]) -> None:
    (folder / "Main").mkdir(parents=True)
    (folder / "Segmentation").mkdir()
    for split, listed in entries.items():
        ids = "".join(f"{entry.id}\n" for entry in listed)
        (folder / "Main" / f"{split}.txt").write_text(ids)
        (folder / "Segmentation" / f"{split}.txt").write_text(ids)
        for index, name in enumerate(names):
            signs = (1 if index in entry.object_classes else -1 for entry in listed)
            lines = (f"{entry.id} {sign:2d}\n" for entry, sign in zip(listed, signs, strict=True))
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
    """Return the devkit's colour map: the bits of an id, spread over the high bits of r, g, b."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in palette.reshape(-1)]


_PALETTE = _voc_palette()
