"""What all tests share."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

# Two test processes, or a trial beside a test, must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("sweeps", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("sweeps")

# Started in the background of a script (`pytest &`), this process ignores Ctrl-C, and so would
# what it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


# A sweep small enough to run in seconds.
SWEEP = {
    "name": "small",
    "store": "store",
    "data": {
        "name": "shapes",
        "image_size": 24,
        "options": {"train": 24, "val": 12, "test": 12, "size": 24},
    },
    "baseline": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 8},
    "guided": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 8},
    "grid": {
        "model": "vanilla_tiny",
        "attribution": ["ixg", "gradcam"],
        "layer": ["input", "final"],
        "loss": {"energy": [0.01, 0.1]},
    },
}


@pytest.fixture(scope="session")
def small_sweep():
    """Return the content of a sweep file; not to be changed."""
    return copy.deepcopy(SWEEP)


@pytest.fixture
def sweep(small_sweep):
    """Return the content of a sweep file, to be changed at will."""
    return copy.deepcopy(small_sweep)


@pytest.fixture(scope="session")
def desk(tmp_path_factory, small_sweep):
    """Return a user's folder: a sweep file of three trials, and its finished, tested store."""
    folder = tmp_path_factory.mktemp("desk")
    import analysis
    import sweeps

    content = copy.deepcopy(small_sweep)
    content["grid"] |= {"attribution": "gradcam", "layer": ["input", "final"]}
    content["grid"]["loss"] = {"energy": 0.01}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    sweeps.run(folder / "sweep.yaml", store=folder / "runs" / "demo", runner="inline")
    assert analysis.test(folder / "runs" / "demo") == []
    return folder


@pytest.fixture
def write(tmp_path):
    """Write a sweep to a file and return its path."""

    def to_file(content, name="sweep.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return to_file


@pytest.fixture(scope="session")
def command():
    """Return the arguments that start `mg-sweep` in a process of its own, as a user does."""
    program = "import sys; sys.argv[0] = 'mg-sweep'; from sweeps.cli import main; main()"
    return [sys.executable, "-c", program]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Give the command line arguments that it must refuse, and return what it says."""
    from sweeps.cli import main

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["mg-sweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return " ".join(said.split())

    return run


@pytest.fixture(scope="session")
def warm():
    """Return a process that runs command lines without importing PyTorch again."""
    from warm import Warm

    process = Warm()
    yield process
    process.close()


@pytest.fixture
def mg_sweep(tmp_path, command, warm):
    """Run the command line, and check its exit code.

    One with an environment of its own runs in a fresh process, unless it is a place to import from.
    """

    def run(*arguments, code=0, **environment):
        own = {**os.environ, **environment}
        if environment.keys() <= {"PYTHONPATH"}:
            found = warm.run("mg-sweep", arguments, tmp_path, own)
        else:
            found = subprocess.run(
                [*command, *map(str, arguments)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env=own,
            )
        assert found.returncode == code, found.stdout + found.stderr
        return found

    return run


@pytest.fixture
def mg_analysis(tmp_path, warm):
    """Run the command line of the analysis where own modules are found, and check its exit code."""

    def run(*arguments, code=0):
        own = {**os.environ, "PYTHONPATH": str(tmp_path)}
        found = warm.run("mg-analysis", arguments, tmp_path, own)
        assert found.returncode == code, found.stdout + found.stderr
        return found

    return run
