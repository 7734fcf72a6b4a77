"""Registry, counter-based numbers and imports."""

import subprocess
import sys
import time

import numpy as np
import pytest

from mg_core.counter import permutation, uniforms
from mg_core.errors import InputError
from mg_core.registry import Registry, import_variants


def test_an_unknown_name_lists_the_choices():
    losses = Registry("loss")
    losses.register("energy")(1)
    losses.register("l1")(2)
    with pytest.raises(InputError, match=r"unknown loss 'enrgy' \(did you mean 'energy'\?\)"):
        losses["enrgy"]
    with pytest.raises(InputError, match="choose from energy, l1"):
        losses["nothing"]
    assert list(losses) == ["energy", "l1"]
    assert "nothing" not in losses


def test_a_name_is_taken_once():
    losses = Registry("loss")
    losses.register("energy")(1)
    with pytest.raises(ValueError, match="already a loss called 'energy'"):
        losses.register("energy")(2)


def test_draws_depend_on_their_key_alone():
    first = permutation(100, 0, "shuffle", 3)
    permutation(100, 0, "shuffle", 4)
    assert (permutation(100, 0, "shuffle", 3) == first).all()
    assert sorted(first) == list(range(100))
    for other in [(1, "shuffle", 3), (0, "class", 3), (0, "shuffle", 4), ("0", "shuffle", 3)]:
        assert (permutation(100, *other) != first).any()


def test_draws_are_those_of_the_first_version():
    # A resumed trial of an older store must go on with the same numbers.
    assert permutation(8, 0, "shuffle", 1).tolist() == [3, 6, 0, 5, 1, 4, 7, 2]
    assert np.allclose(
        uniforms(3, 0, "class", 1),
        [0.09268589830293628, 0.38196208805824317, 0.8365402269857186],
        atol=0,
        rtol=0,
    )


def test_uniforms_are_uniform():
    draws = uniforms(20_000, 5, "class", 1)
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize(
    "package", ["mg_core", "sweeps", "analysis", "sweeps.cli", "analysis.cli", "mg_core.data.cli"]
)
def test_importing_is_light(package):
    code = (
        f"import sys, {package}; heavy = {{'torch', 'ray', 'pandas', 'pyarrow', 'matplotlib'}};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("program", ["sweeps.cli", "analysis.cli", "mg_core.data.cli"])
def test_help_is_quick(program):
    code = f"import sys; sys.argv = ['mg', '--help']; from {program} import main; main()"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    # What matters is that nothing heavy is imported (torch alone takes seconds).
    assert min(seconds) < 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SCALE = ", "fails when it is imported: SyntaxError: "),
        ("x = 1 / 0", r"ZeroDivisionError: division by zero \(.*faulty_module.py, line 1\)"),
        ("import nowhere_to_be_found", "cannot be imported .*PYTHONPATH"),
        (
            "from mg_core.losses import LOSSES\nLOSSES.register('energy')(print)",
            "there is already a loss called 'energy'",
        ),
    ],
)
def test_a_module_of_the_users_that_fails_is_a_sentence(text, said, tmp_path, monkeypatch):
    (tmp_path / "faulty_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(InputError, match=f"imports: module 'faulty_module' {said}|{said}"):
        import_variants(["faulty_module"])
