"""Annotated pictures, written as a table, a YOLO set, LabelMe's files and COCO exports."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mg_core.data import data_config
from mg_core.data.dataset import open_reader
from mg_core.data.verification import report_lines, verify

CLASSES = ("cat", "dog", "hedgehog")
COLOURS = {"cat": (220, 60, 40), "dog": (50, 90, 220), "hedgehog": (60, 200, 70)}


class Photo(NamedTuple):
    split: str
    path: Path
    size: tuple[int, int]
    objects: tuple[tuple[str, float, float, float, float], ...]


def photographs(folder, counts=(("train", 12), ("val", 6), ("test", 6)), seed=0):
    """Draw pictures of different sizes with one or two coloured objects, the last with none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    found = []
    for split, count in counts:
        for number in range(count):
            width, height = int(rng.integers(40, 90)), int(rng.integers(40, 90))
            pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
            objects = []
            for _ in range(1 + number % 2 if number < count - 1 else 0):
                name = CLASSES[int(rng.integers(3))]
                x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
                w, h = int(rng.integers(8, 20)), int(rng.integers(8, 20))
                pixels[y : y + h, x : x + w] = COLOURS[name]
                objects.append((name, x, y, x + w, y + h))
            path = folder / f"{split} {number}.jpg"
            Image.fromarray(pixels).save(path)
            found.append(Photo(split, path, (width, height), tuple(objects)))
    return found


def write_csv(root, photos, name="annotations.csv", **options):
    (root / "pictures").mkdir(parents=True)
    with (root / name).open("w", newline="") as file:
        table = csv.writer(file, **options)
        table.writerow(["path", "class", "xmin", "ymin", "xmax", "ymax", "split"])
        for photo in photos:
            path = f"pictures/{photo.path.name}"
            shutil.copy(photo.path, root / path)
            for thing in photo.objects or [("",) * 5]:
                table.writerow([path, *thing, photo.split])


def write_yolo(root, photos, classes=CLASSES):
    for photo in photos:
        for kind in ("images", "labels"):
            (root / kind / photo.split).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, root / "images" / photo.split)
        width, height = photo.size
        lines = [
            f"{classes.index(name)} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
            for name, x0, y0, x1, y1 in photo.objects
        ]
        if lines:
            name = Path(photo.path.name).with_suffix(".txt")
            (root / "labels" / photo.split / name).write_text("".join(lines))
    (root / "data.yaml").write_text(
        "path: ../datasets/mine\ntrain: ../images/train\nval: images/val\ntest: images/test\n"
        f"nc: {len(classes)}\nnames: [{', '.join(classes)}]\n"
    )


def write_labelme(root, photos):
    for photo in photos:
        folder = root / photo.split
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, folder)
        shapes = [
            {"label": name, "points": [[x0, y0], [x1, y1]], "group_id": None, "flags": {},
             "shape_type": "rectangle"}
            for name, x0, y0, x1, y1 in photo.objects
        ]  # fmt: skip
        content = {
            "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": photo.path.name,
            "imageData": None, "imageHeight": photo.size[1], "imageWidth": photo.size[0],
        }  # fmt: skip
        (folder / photo.path.name).with_suffix(".json").write_text(json.dumps(content))


def write_coco(root, photos, classes=CLASSES):
    """Write as Roboflow does: annotations beside images, a category that nothing uses."""
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        chosen = [photo for photo in photos if photo.split == split]
        for photo in chosen:
            shutil.copy(photo.path, root / folder)
        things = [(row, *thing) for row, photo in enumerate(chosen) for thing in photo.objects]
        content = {
            "categories": [{"id": 0, "name": "animals", "supercategory": "none"}]
            + [{"id": 1 + number, "name": name} for number, name in enumerate(classes)],
            "images": [
                {"id": row, "file_name": photo.path.name, "width": photo.size[0],
                 "height": photo.size[1]}
                for row, photo in enumerate(chosen)
            ],
            "annotations": [
                {"id": key, "image_id": row, "category_id": 1 + classes.index(name),
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                 "segmentation": [], "iscrowd": 0}
                for key, (row, name, x0, y0, x1, y1) in enumerate(things)
            ],
        }  # fmt: skip
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))


WRITERS = {"csv": write_csv, "yolo": write_yolo, "labelme": write_labelme, "coco": write_coco}


def reader(name, root, size=48, **options):
    """Open a set by its own name for the format."""
    return open_reader(data_config(name, size, options=options), root)


def verified(name, root, size=48, **options):
    """Return what a verification finds, and the lines that it prints."""
    opened = reader(name, root, size, **options)
    found = verify(opened, size)
    return found, "\n".join(report_lines(found, opened.classes))
