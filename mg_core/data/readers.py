"""The registry of data sets: a reader for each name."""

from __future__ import annotations

from mg_core.data.drawn.shapes import Shapes
from mg_core.data.layouts.coco import Coco
from mg_core.data.layouts.voc import Voc
from mg_core.data.layouts.waterbirds import Waterbirds
from mg_core.data.reader import Reader
from mg_core.registry import Registry

DATASETS: Registry[type[Reader]] = Registry("data set")
DATASETS.register("voc2007")(Voc)
DATASETS.register("coco2014")(Coco)
DATASETS.register("waterbirds100")(Waterbirds)
DATASETS.register("shapes")(Shapes)
