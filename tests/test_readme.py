"""What a user reads first works: the README's code is run, its commands exist."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from sweeps.spec import SweepSpec


@pytest.fixture(scope="module")
def blocks(repository):
    text = (repository / "README.md").read_text()
    return re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)


def test_python_runs_in_the_order_of_the_page(blocks, desk):
    code = "\n".join(body for kind, body in blocks if kind == "python")
    found = subprocess.run([sys.executable, "-c", code], cwd=desk, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "StepLosses(loss=tensor(" in found.stdout


def test_sweeps_are_valid(blocks):
    sweeps = [yaml.safe_load(body) for kind, body in blocks if kind == "yaml"]
    whole = [sweep for sweep in sweeps if "grid" in sweep]
    assert len(whole) == 1
    SweepSpec.model_validate(whole[0])
    for part in sweeps:
        SweepSpec.model_validate({**whole[0], **part})


def test_commands_exist(repository):
    text = (repository / "README.md").read_text()
    named = set(re.findall(r"`mg-(sweep|analysis|data) (\w+)", text))
    modules = {"sweep": "sweeps.cli", "analysis": "analysis.cli", "data": "mg_core.data.cli"}
    assert named
    for program, command in sorted(named):
        code = f"import sys; sys.argv = ['mg', {command!r}, '--help']; "
        code += f"from {modules[program]} import main; main()"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.returncode == 0, f"mg-{program} {command}: {found.stderr}"


def test_the_commands_are_the_ones_that_are_checked(blocks):
    commands = [body.strip() for kind, body in blocks if kind == "bash"]
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install . && "
        ".venv/bin/mg-sweep run sweeps/demo.yaml && .venv/bin/mg-analysis report runs/demo",
        "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest",
    ]


def test_pictures_exist_and_are_small(repository):
    text = (repository / "README.md").read_text()
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert len(pictures) == 5
    assert all(0 < (repository / name).stat().st_size < 300_000 for name in pictures)


def test_the_study_is_prepared_as_the_page_says(blocks, repository, tmp_path, monkeypatch):
    """Everything but the half hour of training: the data are made, and each sweep is planned."""
    (lines,) = [body.splitlines() for kind, body in blocks if kind == "sh" and "generate" in body]
    generate, *runs, report = " ".join(lines).split(" && ")
    names = [re.fullmatch(r"mg-sweep run sweeps/(\w+)\.yaml", run)[1] for run in runs]
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{os.environ['PATH']}")
    subprocess.run(generate.split(), cwd=tmp_path, check=True)
    for name in names:
        file = repository / "sweeps" / f"{name}.yaml"
        said = subprocess.run(
            ["mg-sweep", "plan", file], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert f"/runs/{name}\n" in said.stdout
        assert " 0 failed" in said.stdout
        assert f"runs/{name}" in report.split()
    assert (tmp_path / "runs" / "birds").is_dir()
