"""Every family of models, guided at every layer on the synthetic set (some five minutes)."""

import pytest

import analysis

pytestmark = pytest.mark.slow

LAYERS = ["input", "mid1", "mid2", "mid3", "final"]
METHODS = {"vanilla_tiny": "ixg", "xdnn_tiny": "intgrad", "bcos_tiny": "bcos"}


def test_guidance_raises_epg_in_every_family_at_every_layer(write, mg_sweep, tmp_path):
    energy = {"energy": [0.01]}
    blocks = [
        {"model": model, "attribution": method, "layer": LAYERS, "loss": energy}
        for model, method in METHODS.items()
    ]
    final = {"model": list(METHODS), "attribution": "gradcam", "layer": "final", "loss": energy}
    sweep = {
        "name": "families",
        "store": "store",
        "data": {
            "name": "shapes",
            "image_size": 64,
            "options": {"train": 600, "val": 200, "test": 10, "size": 64, "correlation": 0.9},
        },
        "baseline": {"epochs": 5, "learning_rate": 1e-3, "batch_size": 32},
        "guided": {"epochs": 3, "learning_rate": 2e-3, "batch_size": 32},
        "grid": [*blocks, final],
    }
    mg_sweep("run", write(sweep), "--runner", "inline")
    frame = analysis.load(str(tmp_path / "store"))
    own = frame[
        (frame["attribution"] == frame["guided_attribution"])
        & (frame["layer"] == frame["guided_layer"])
    ]
    epg = own.pivot(
        index=["model", "guided_attribution", "guided_layer"], columns="epoch", values="val_epg"
    )
    assert len(epg) == 18
    risen = epg[3] - epg[0]
    assert (risen > 0.03).all(), risen
