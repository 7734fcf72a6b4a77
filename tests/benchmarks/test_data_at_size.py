"""The array cache at the size of COCO: how fast it is built, and what its readers cost.

MG_BENCHMARK_IMAGES changes the number of images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mg_core
from mg_core.config import DataConfig
from mg_core.counter import generator
from mg_core.data import open_data
from mg_core.data.drawn.drawing import draw_scene
from mg_core.data.images import read_image
from mg_core.data.parallel import in_parallel

N_IMAGES = int(os.environ.get("MG_BENCHMARK_IMAGES", "100000"))
N_FILES = 500
N_READERS = 8
SIZE = 64
MEGABYTE = 2**20

# A data set of a user's own: a registered class in a module that is imported by name.
MODULE = f"""
from mg_core.data import DATASETS
from mg_core.data.reader import Box, Reader, Record, refuse

@DATASETS.register("sized")
class Sized(Reader):
    classes = ("a", "b")

    def __init__(self, root, options):
        self.root = root

    def records(self, split, report=refuse):
        count = {N_IMAGES} if split == "train" else 10
        return [
            Record(str(i), self.root / f"{{i % {N_FILES}}}.jpg", (Box(i % 2, 5, 5, 50, 50),))
            for i in range(count)
        ]

    def fingerprint(self):
        return "{N_IMAGES}"
"""

READER = """
import json, re, sys, time
from pathlib import Path
import numpy as np
import sized_set
from mg_core.config import DataConfig
from mg_core.data import open_data

def unshared():
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(n) for n in re.findall(r"Private_\\w+: +(\\d+) kB", text))

root, cache, seed, n_batches = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
highest, images, start = unshared(), 0, time.perf_counter()
if n_batches:
    config = DataConfig(name="sized", image_size=64, horizontal_flip=False, options={})
    split = open_data(config, root, cache, lambda *values: sys.exit("decoded again")).split("train")
    order = np.random.default_rng(seed).permutation(len(split))
    start = time.perf_counter()
    for number, batch in enumerate(np.array_split(order, n_batches)):
        images += len(split.images(batch))
        split.masks(batch, split.labels[batch].argmax(axis=1))
        # Asking takes longer than reading.
        if number % 16 == 0:
            highest = max(highest, unshared())
print(json.dumps([highest, images, time.perf_counter() - start]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized")
    (folder / "sized_set.py").write_text(MODULE)
    for number in range(N_FILES):
        scene = draw_scene(generator(0, number), 96, 8, 0.9)
        Image.fromarray(scene.image).save(folder / f"{number}.jpg", quality=90)
    return folder


@pytest.mark.slow
def test_the_cache_holds_a_hundred_thousand_images(files, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(files))
    __import__("sized_set")
    paths = [files / f"{number}.jpg" for number in range(N_FILES)] * max(1, N_IMAGES // 20_000)
    start = time.perf_counter()
    for _ in in_parallel(lambda path: read_image(path, SIZE), paths):
        pass
    decoder = len(paths) / (time.perf_counter() - start)
    config = DataConfig(name="sized", image_size=SIZE, horizontal_flip=False, options={})
    start = time.perf_counter()
    split = open_data(config, str(files), str(files / "cache")).split("train")
    builder = N_IMAGES / (time.perf_counter() - start)
    assert len(split) == N_IMAGES
    expected = read_image(files / f"{(N_IMAGES - 1) % N_FILES}.jpg", SIZE).pixels
    assert np.array_equal(split.images([N_IMAGES - 1])[0].numpy(), expected)

    empty = read(files, [0])[0]
    readers = read(files, [max(1, N_IMAGES // 64)] * N_READERS)
    above = [(memory - empty[0]) / MEGABYTE for memory, _, _ in readers]
    batches = [images / seconds for _, images, seconds in readers]
    with capsys.disabled():
        print(
            f"\n{N_IMAGES:,} images at {SIZE}²: decoder {decoder:,.0f}/s, cache {builder:,.0f}/s; "
            f"{N_READERS} readers at {min(batches):,.0f} to {max(batches):,.0f} images/s each, "
            f"{max(above):.0f} MB unshared above an empty process"
        )
    assert builder > 0.6 * decoder
    assert max(above) < 100


def read(files: Path, batches: list[int]) -> list[list[float]]:
    """Run readers at the same time; each returns memory, images and seconds."""
    repository = Path(mg_core.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{files}:{repository}", "OMP_NUM_THREADS": "1"}
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(files), str(files / "cache"), str(seed), str(n)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for seed, n in enumerate(batches)
    ]
    outputs = [reader.communicate()[0] for reader in readers]
    assert all(reader.returncode == 0 for reader in readers)
    return [json.loads(output) for output in outputs]
