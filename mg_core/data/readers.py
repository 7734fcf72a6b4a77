"""The registry of data sets: a reader for each name."""

from __future__ import annotations

from mg_core.data.drawn.decoy import Decoy
from mg_core.data.drawn.shapes import Shapes
from mg_core.data.layouts.coco import Coco
from mg_core.data.layouts.coco_export import CocoExport
from mg_core.data.layouts.csv_table import Table
from mg_core.data.layouts.labelme import LabelMe
from mg_core.data.layouts.voc import Voc
from mg_core.data.layouts.waterbirds import Waterbirds
from mg_core.data.layouts.yolo import Yolo
from mg_core.data.reader import Reader
from mg_core.registry import Registry

DATASETS: Registry[type[Reader]] = Registry("data set")
DATASETS.register("voc2007")(Voc)
DATASETS.register("coco2014")(Coco)
DATASETS.register("waterbirds100")(Waterbirds)
DATASETS.register("shapes")(Shapes)
DATASETS.register("decoy")(Decoy)
DATASETS.register("csv")(Table)
DATASETS.register("yolo")(Yolo)
DATASETS.register("labelme")(LabelMe)
DATASETS.register("coco")(CocoExport)
