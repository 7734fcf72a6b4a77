"""The rules of the house: style, types and which package may import which."""

import subprocess
import sys

import pytest

CHECKS = {
    "ruff": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_tool_passes(name, repository):
    found = subprocess.run(
        [sys.executable, "-m", *CHECKS[name]], cwd=repository, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_imports_respect_the_architecture(repository):
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_top_level_is_the_agreed_one(repository):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=repository, capture_output=True, text=True
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    allowed = {"README.md", "pyproject.toml", "LICENSE", "mg_core", "sweeps", "analysis", "docker"}
    found = {name.split("/")[0] for name in listed}
    assert {name for name in found if not name.startswith(".")} <= allowed | {"tests"}
