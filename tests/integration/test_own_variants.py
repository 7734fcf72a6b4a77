"""A loss, an attribution, a model and a data set of the user's own, in a sweep on real Ray."""

import pandas as pd

import analysis

PACKAGE = '''
"""What a user might write in a package of their own."""
from typing import ClassVar

import torch
from torch import nn

from mg_core.attributions import ATTRIBUTIONS, Attribution
from mg_core.losses import LOSSES
from mg_core.models import MODELS, Model


@LOSSES.register("outside")
def outside(attributions, masks):
    """Penalise positive attribution outside the mask, (B, H, W) each -> (B,)."""
    return (attributions.relu() * ~masks).mean((1, 2))


def saliency(features, gradients):
    return gradients.square().sum(1)


ATTRIBUTIONS.register("saliency")(Attribution(saliency))


@MODELS.register("two_layers")
class TwoLayers(Model):
    """Leaky, since a plain ReLU has no second derivative for a saliency to follow."""

    guidance_layers: ClassVar = {"mid1": "body"}

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU())
        self.fc = nn.Linear(8, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.gelu(self.body(inputs)).mean((2, 3)))
'''


def test_own_variants_work_in_a_sweep_without_a_change_of_this_package(
    sweep, write, mg_sweep, tmp_path, mg_analysis
):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text(PACKAGE)
    sweep["imports"] = ["my_package"]
    sweep["grid"] = {
        "model": "two_layers",
        "attribution": ["saliency", "gradcam"],
        "layer": ["input", "mid1"],
        "loss": {"outside": 0.1, "energy": 0.1},
    }
    path = write(sweep)
    environment = {"PYTHONPATH": str(tmp_path)}
    found = mg_sweep("run", path, **environment)
    assert "9 complete of 9 trials" in found.stdout
    frame = analysis.load(str(tmp_path / "store"))
    guided = frame[frame["kind"] == "guided"]
    assert set(guided["guided_attribution"]) == {"saliency", "gradcam"}
    assert set(guided["loss"]) == {"outside", "energy"}
    assert guided["val_epg"].notna().all()

    mg_analysis("test", "store")
    tested = pd.concat(
        pd.read_parquet(file) for file in (tmp_path / "store" / "test").rglob("*.parquet")
    )
    assert {"saliency", "gradcam"} <= set(tested["attribution"].dropna())


def test_names_that_nobody_registered_are_refused_with_the_choices(sweep, write, mg_sweep):
    sweep["grid"]["attribution"] = "saliency"
    found = mg_sweep("validate", write(sweep), code=2)
    said = " ".join(found.stderr.split())
    assert "saliency" in said
    assert "gradcam" in said
    assert "Traceback" not in said
