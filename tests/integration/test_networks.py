"""Networks of libraries in a sweep, and maps that are zero everywhere."""

import json
import subprocess
import sys

import pytest

import analysis
import sweeps
from mg_core.store import ResultStore
from sweeps.grid import expand
from sweeps.spec import load_spec
from sweeps.status import read_status
from sweeps.status_view import summary

timm = pytest.importorskip("timm")


def test_library_networks_from_the_sweep_file_to_the_report(sweep, write, mg_sweep, tmp_path):
    sweep["data"]["image_size"] = 32
    sweep["grid"] = {
        "model": ["timm/mobilenetv3_small_050", "vanilla_tiny"],
        "attribution": "gradcam",
        "layer": ["final", "blocks.2"],
        "loss": {"energy": 0.01},
    }
    path = write(sweep)
    found = mg_sweep("run", path, "--runner", "inline")
    # vanilla_tiny has no layer blocks.2.
    assert "5 complete of 5 trials" in found.stdout
    frame = analysis.load(str(tmp_path / "store"))
    assert set(frame["model"]) == {"timm/mobilenetv3_small_050", "vanilla_tiny"}
    assert frame.loc[frame["kind"] == "guided", "val_epg"].notna().all()
    assert analysis.test(tmp_path / "store") == []
    analysis.report(tmp_path / "store", tmp_path / "page")
    assert "timm/mobilenetv3_small_050" in (tmp_path / "page" / "report.html").read_text()
    names = [file.relative_to(tmp_path / "page") for file in (tmp_path / "page").rglob("*")]
    assert not any("timm" in part for name in names for part in name.parts[:-1])


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"model": "timm/vit_tiny_patch16_224", "layer": "blocks.11"}, "has no influence"),
        ({"model": "timm/vit_tiny_patch16_224", "layer": "blocks.12"}, "unknown layer 'blocks.12'"),
        ({"model": "timm/vit_tiny_patch16_223"}, "did you mean timm/vit_tiny_patch16_224"),
        ({"model": "torchvision/maxvit_t"}, "cannot be built for images of 32 pixels"),
    ],
)
def test_what_cannot_be_guided_is_refused_before_anything_is_trained(
    grid, said, sweep, write, refused, tmp_path
):
    sweep["data"]["image_size"] = 32
    sweep["grid"] |= {"attribution": "ixg", "layer": "final", "loss": {"energy": 0.01}, **grid}
    assert said in refused("run", write(sweep), "--runner", "inline")
    assert not (tmp_path / "store" / "trials").exists()


def test_a_plan_does_without_pytorch(sweep, write):
    sweep["grid"] |= {"model": "timm/vit_tiny_patch16_224", "attribution": "gradcam"}
    sweep["weights"] = "augreg_in21k"
    code = (
        "import sys; from sweeps.grid import expand; from sweeps.spec import load_spec;"
        "print(len(expand(load_spec(sys.argv[1], [])).trials)); assert 'torch' not in sys.modules"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(write(sweep))], capture_output=True, text=True
    )
    assert found.stdout.strip() == "5", found.stderr


def test_weights_must_be_the_networks_own(sweep, write, refused):
    sweep["grid"] |= {"model": "torchvision/resnet18"}
    sweep["weights"] = "IMAGENET1K_V2"
    assert "no weights called 'IMAGENET1K_V2'; choose from imagenet, IMAGENET1K_V1" in refused(
        "plan", write(sweep)
    )
    sweep["weights"] = {"torchvision/resnet18": "IMAGENET1K_V1"}
    assert {c.weights for c in expand(load_spec(write(sweep), [])).trials.values()} == {
        "IMAGENET1K_V1"
    }


SILENT = '''
"""A network whose classifier is zero and stays so."""
from torch import nn

from mg_core.models import MODELS
from mg_core.models.resnet import TinyResNet


@MODELS.register("silent")
class Silent(TinyResNet):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        nn.init.zeros_(self.fc.weight)
        self.fc.requires_grad_(False)
'''


def test_maps_that_are_zero_everywhere_are_said_and_counted(sweep, write, tmp_path, monkeypatch):
    (tmp_path / "silent_network.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    sweep["imports"] = ["silent_network"]
    sweep["store"] = str(tmp_path / "store")
    sweep["grid"] = {
        "model": ["silent", "vanilla_tiny"],
        "attribution": "ixg",
        "layer": "input",
        "loss": {"energy": 0.01},
    }
    sweeps.run(write(sweep), runner="inline")
    frame = analysis.load(str(tmp_path / "store"))
    guided = frame[frame["kind"] == "guided"]
    silent = guided["model"] == "silent"
    assert (guided["val_n_zero_map"] == guided["val_n_pairs"])[silent].all()
    assert (guided["val_n_zero_map"] == 0)[~silent].all()
    assert (guided["val_epg"] == 0)[silent].all()

    store = ResultStore(str(tmp_path / "store"))
    found = read_status(store)
    line = "maps of ixg@input that are zero everywhere: in 1 trial (silent), up to 100 %"
    assert line in summary(found)
    assert json.loads(json.dumps(found.to_json()))["zero_maps"] == {"ixg@input": {"silent": 1}}
    (trial,) = set(guided.loc[silent, "trial_id"])
    text = "".join(store.logs(trial).values())
    assert "warning: 100 % of the maps of ixg@input are zero everywhere" in text
    analysis.report(tmp_path / "store", tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Maps that are zero everywhere" in page
    assert "silent, ixg at input: " in page
