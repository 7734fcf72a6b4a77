"""Trials for tests of the ground."""

import pytest

from mg_core.config import TrialConfig

BASELINE = {
    "numerics": 1,
    "data": {"name": "shapes", "image_size": 32, "horizontal_flip": False, "options": {"seed": 1}},
    "model": "vanilla_tiny",
    "weights": None,
    "seed": 0,
    "epochs": 3,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "precision": "fp32",
    "baseline": None,
    "guidance": None,
    "evaluate": (),
}
GUIDANCE = {
    "attribution": "ixg",
    "layer": "input",
    "loss": "energy",
    "localization_weight": 1e-3,
    "reduction": "sum",
    "annotated_fraction": 1.0,
    "box_dilation": 0.0,
    "task": None,
}


@pytest.fixture
def baseline():
    return TrialConfig.model_validate(BASELINE)


@pytest.fixture
def guided(baseline):
    return TrialConfig.model_validate(
        {
            **BASELINE,
            "baseline": baseline.trial_id,
            "guidance": GUIDANCE,
            "evaluate": [
                {"attribution": "gradcam", "layer": "final"},
                {"attribution": "ixg", "layer": "input"},
            ],
        }
    )
