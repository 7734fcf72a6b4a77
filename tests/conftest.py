"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Two test processes, or a trial beside a test, must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("sweeps", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("sweeps")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Keep decoded arrays out of the user's own cache folder."""
    before = os.environ.get("MG_CACHE")
    os.environ["MG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("MG_CACHE")
    if before is not None:
        os.environ["MG_CACHE"] = before


@pytest.fixture(scope="session")
def repository():
    """Return the folder of the project's source."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of small real data sets that MG_TEST_DATA names."""
    folder = os.environ.get("MG_TEST_DATA")
    if not folder:
        pytest.skip("MG_TEST_DATA names no folder of small real data sets")
    return Path(folder)
