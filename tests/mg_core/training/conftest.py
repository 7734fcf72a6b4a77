"""A small synthetic data set, and a model whose running statistics are from it."""

import pytest
import torch

from mg_core.config import DataConfig
from mg_core.data import open_data
from mg_core.models import build_model

OPTIONS = {"train": 40, "val": 24, "test": 8, "size": 24}


@pytest.fixture(scope="session")
def shapes():
    return open_data(
        DataConfig(name="shapes", image_size=24, horizontal_flip=False, options=OPTIONS)
    )


@pytest.fixture
def model(shapes):
    torch.manual_seed(0)
    model = build_model("vanilla_tiny", len(shapes.classes)).train()
    with torch.no_grad():  # running statistics that are not those of a new network
        for _ in range(3):
            model(model.encode(shapes.split("train").images(range(16))))
    return model
