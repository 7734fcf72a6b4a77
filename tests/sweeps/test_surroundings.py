"""What surrounds a command: folders, variables, terminals and pipes that are not as usual."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

from mg_core.cluster import SESSION, SOCKET_BYTES, temporary_folder
from mg_core.errors import InputError
from mg_core.paths import with_home, with_variables

SHADOWED = ("numpy", "torch", "ray", "yaml", "pandas", "pyarrow", "typer", "pydantic", "mg_core")


@pytest.fixture
def desk_of(tmp_path, sweep):
    """Run `mg-sweep` as installed: Python puts the folder of the program on its import path."""
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "mg-sweep"
    program.write_text("from sweeps.cli import main\nmain()\n")

    def run(*arguments, shell=None, **environment):
        command = [sys.executable, str(program), *map(str, arguments)]
        line = " ".join(command) + f" {shell}"
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line] if shell else command,
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, **environment},
        )

    return run


def test_ray_starts_in_odd_surroundings_and_imports_nothing_from_the_folder(desk_of, tmp_path):
    for name in SHADOWED:
        text = f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\n1 / 0\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text("")
    deep = tmp_path / ("a_scratch_folder_of_a_batch_system_" * 3)
    deep.mkdir()
    found = desk_of(
        *("run", "sweep.yaml", "--set", "imports=[mine]"),
        PYTHONPATH=str(tmp_path / "own"),
        PYTHONIOENCODING="latin-1",
        TMPDIR=str(deep),
        HOME="/proc/none",
    )
    assert found.returncode == 0, found.stderr.decode()
    assert not (tmp_path / "imported").exists()
    assert "energy ?=0.01" in found.stdout.decode("latin-1")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TMPDIR", "/proc/none", "TMPDIR: no temporary file can be written in '/proc/none'"),
        ("RAY_TMPDIR", "/dev/full", "RAY_TMPDIR: no temporary file can be written in '/dev/full'"),
        ("RAY_ADDRESS", "127.0.0.1:1", r"no Ray cluster at '127\.0\.0\.1:1' \(RAY_ADDRESS\)"),
        ("RAY_ADDRESS", "nonsense", r"the Ray cluster at 'nonsense' \(RAY_ADDRESS\): Invalid"),
        ("MG_CACHE", "/proc/none", "cannot write /proc/none/.*another cache folder in MG_CACHE"),
    ],
)
def test_what_cannot_work_is_a_sentence_before_anything_starts(
    desk_of, tmp_path, variable, value, sentence
):
    found = desk_of("run", "sweep.yaml", **{variable: value})
    said = " ".join(found.stderr.decode().split())
    assert found.returncode == 2, said
    assert re.fullmatch(f"error: .*{sentence}.*", said)
    assert not (tmp_path / "store").exists()


def test_a_cluster_that_is_gone_is_not_waited_for(desk_of, monkeypatch):
    from mg_core import cluster

    class Ray:
        class _private:  # noqa: N801
            class services:  # noqa: N801
                @staticmethod
                def canonicalize_bootstrap_address(address):
                    with socket.socket() as free:
                        free.bind(("127.0.0.1", 0))
                        return f"127.0.0.1:{free.getsockname()[1]}"

    with pytest.raises(OSError, match="refused"):
        cluster._check_reachable(Ray, "auto")


def test_the_temporary_folder_is_short_enough_for_sockets(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert temporary_folder() == "/tmp/ray"
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 60)))
    assert len(temporary_folder() + SESSION) <= SOCKET_BYTES
    monkeypatch.setattr("mg_core.cluster.DEFAULT_FOLDERS", ("/proc/none",))
    with pytest.raises(InputError, match=r"of at most 3\d bytes in RAY_TMPDIR"):
        temporary_folder()


def test_paths_name_the_variable_or_home_that_is_missing(monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("SCRATCH", raising=False)
    assert with_variables("$DATA/${DATA}/a$") == "/data//data/a$"
    for path in ("$SCRATCH/a", "${SCRATCH}", "s3://$SCRATCH/a"):
        with pytest.raises(InputError, match=r"the variable \$\{?SCRATCH\}? in .* is not set"):
            with_variables(path)
    with pytest.raises(InputError, match=r"no home folder is known for '~nobody_of_this_name'"):
        with_home("~nobody_of_this_name/x")


@pytest.mark.parametrize("key", ["store", "data.root", "data.cache", "weights"])
def test_an_unset_variable_in_a_sweep_is_named(refused, write, sweep, key):
    said = refused("plan", write(sweep), "--set", f"{key}=$NOT_SET_ANYWHERE/a")
    assert f"{key}: the variable $NOT_SET_ANYWHERE in '$NOT_SET_ANYWHERE/a' is not set" in said


def test_a_sweep_goes_on_without_its_output(desk_of, tmp_path):
    for number, shell in enumerate(("> /dev/full", "| head -0", ">&- 2>&-", "2> /dev/full")):
        store = tmp_path / f"store{number}"
        found = desk_of("run", "sweep.yaml", "--runner", "inline", "--store", store, shell=shell)
        assert found.returncode == 0, (shell, found.stderr.decode())
        counts = json.loads(desk_of("status", store, "--json").stdout)["counts"]
        assert counts["complete"] == 2


def test_other_commands_say_that_their_output_is_lost(desk_of, desk):
    store = desk / "runs" / "demo"
    found = desk_of("status", store, shell="> /dev/full")
    assert found.returncode == 2
    assert found.stderr.decode() == (
        "error: the output cannot be written: No space left on device\n"
    )
    found = desk_of("status", store, shell="| true")
    assert found.returncode in {0, 1}
    assert found.stderr == b""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_every_terminal_shows_what_it_can(desk_of, desk, encoding):
    store = desk / "runs" / "demo"
    for arguments in (["status", store], ["plan", store], ["logs", store, "a"], ["rm", store]):
        found = desk_of(*arguments, PYTHONIOENCODING=encoding)
        assert b"Traceback" not in found.stderr, arguments
    found = desk_of("status", store, "--json", PYTHONIOENCODING=encoding)
    labels = [trial["label"] for trial in json.loads(found.stdout)["trials"].values()]
    assert sum("λ=0.01" in label for label in labels) == 2
