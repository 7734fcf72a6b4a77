"""The models of the study and their small siblings, one declaration each."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mg_core.models.architecture import MODELS, STAGES, Architecture
from mg_core.models.library import LAYERS
from mg_core.models.weights import WeightFile

DENSE_BLOCKS = {name: f"features.denseblock{i}" for i, name in enumerate(LAYERS, start=1)}
"""The four dense blocks, each before its transition."""
VIT_HEAD = "0.linear_head.linear"

XFIXUP = WeightFile(
    "https://download.visinf.tu-darmstadt.de/data/2021-neurips-fast-axiomatic-attribution/models/"
    "xfixup_resnet50_model_best.pth.tar",
    None,  # The publisher gives no checksum.
)


def _pytorch(name: str) -> dict[str, WeightFile]:
    file = WeightFile.named(f"https://download.pytorch.org/models/{name}")
    return {"imagenet": file, "IMAGENET1K_V1": file}


def _bcos(name: str) -> dict[str, WeightFile]:
    url = f"https://github.com/B-cos/B-cos-v2/releases/download/v0.0.1-weights/{name}"
    return {"imagenet": WeightFile.named(url)}


def _quarters(depth: int) -> dict[str, str]:
    """Return the transformer blocks that end each quarter of the depth."""
    return {
        name: f"0.transformer.encoder_{math.ceil(depth * quarter / 4) - 1}"
        for quarter, name in enumerate(LAYERS, start=1)
    }


DENSENET = _bcos("densenet_121-b8daf96afb.pth")
VIT = _bcos("bcos_simple_vit_s_patch16_224-75e99d1f73.pth")
VITC = _bcos("bcos_vitc_s_patch1_14-cf55c88f0c.pth")

Row = tuple[str, str, Mapping[str, str], float, Mapping[str, WeightFile], str]
"""Name, builder, guidance layers, GFLOPs, pretrained weights, head."""
# The tiny models are for demonstrations and tests, those of 18 layers for small machines.
STUDY: tuple[Row, ...] = (
    ("bcos_resnet50", "bcos:resnet50", STAGES, 4.1, _bcos("resnet_50-ead259efe4.pth"), "fc"),
    ("bcos_resnet18", "bcos:resnet18", STAGES, 1.8, _bcos("resnet_18-68b4160fff.pth"), "fc"),
    ("bcos_tiny", "bcos:TinyBcosResNet", STAGES, 1.0, {}, "fc"),
    ("bcos_densenet121", "bcos:DenseNet121", DENSE_BLOCKS, 2.9, DENSENET, "classifier"),
    ("bcos_vit_s", "bcos:vit_s", _quarters(12), 4.6, VIT, VIT_HEAD),
    ("bcos_vitc_s", "bcos:vitc_s", _quarters(11), 4.6, VITC, VIT_HEAD),
    ("vanilla_resnet50", "resnet:resnet50", STAGES, 4.1, _pytorch("resnet50-0676ba61.pth"), "fc"),
    ("vanilla_resnet18", "resnet:resnet18", STAGES, 1.8, _pytorch("resnet18-f37072fd.pth"), "fc"),
    ("vanilla_tiny", "resnet:TinyResNet", STAGES, 1.0, {}, "fc"),
    ("xdnn_resnet50", "xdnn:resnet50", STAGES, 4.1, {"imagenet": XFIXUP}, "fc"),
    ("xdnn_resnet18", "xdnn:resnet18", STAGES, 1.8, {}, "fc"),
    ("xdnn_tiny", "xdnn:tiny_resnet", STAGES, 1.0, {}, "fc"),
)
STUDY_MODELS = frozenset(name for name, *_ in STUDY)
for _name, _builder, _layers, _gflops, _weights, _head in STUDY:
    _place, _family = f"mg_core.models.{_builder}", _name.split("_")[0]
    MODELS.register(_name)(
        Architecture(_place, _family, _layers, _gflops, _weights, _head, _head == VIT_HEAD)
    )
