"""A finished sweep, to be damaged."""

import shutil

import pytest

import sweeps


@pytest.fixture(scope="module")
def finished(desk, tmp_path_factory):
    """Return a finished, tested store that no test changes, and its sweep file."""
    folder = tmp_path_factory.mktemp("finished")
    # Other tests write reports at the desk.
    reports = shutil.ignore_patterns("analysis")
    shutil.copytree(desk / "runs" / "demo", folder / "store", ignore=reports)
    shutil.copy(desk / "sweep.yaml", folder)
    return folder


@pytest.fixture
def store(finished, tmp_path):
    shutil.copytree(finished / "store", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def run(finished, store):
    """Run the sweep again on the damaged store."""
    return lambda **options: sweeps.run(
        finished / "sweep.yaml", store=store, runner="inline", **options
    )
