from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import mg_core
from mg_core.data.cli import main

MAIN = "import sys; sys.argv[0] = 'mg-data'; from mg_core.data.cli import main; main()"


def mg_data(*arguments):
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        cwd=Path(mg_core.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def called(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mg-data", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_generate_writes_a_devkit_and_says_so(tmp_path, monkeypatch, capsys):
    few = ("--train", 3, "--val", 2, "--test", 1, "--size", 32)
    assert called(monkeypatch, "generate", "shapes", tmp_path / "set", *few) == 0
    assert capsys.readouterr().out == f"wrote 6 images of 32 × 32 pixels to {tmp_path / 'set'}\n"
    assert len(list((tmp_path / "set/VOCdevkit/VOC2007/JPEGImages").iterdir())) == 6
    assert called(monkeypatch, "generate", "shapes", tmp_path / "set", *few) == 0
    assert "holds these 6 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--classes", "9"], "mg-data generate shapes: classes: "),
        (["--correlation", "1.5"], "mg-data generate shapes: correlation: "),
        (["--train", "0"], "mg-data generate shapes: train: "),
    ],
)
def test_mistakes_are_one_line_and_code_2(tmp_path, monkeypatch, capsys, arguments, sentence):
    assert called(monkeypatch, "generate", "shapes", tmp_path / "set", *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {sentence}")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_flags_are_code_2(tmp_path, monkeypatch, capsys):
    assert called(monkeypatch, "generate", "shapes", tmp_path / "set", "--trian", "3") == 2
    assert "--trian" in capsys.readouterr().err


def test_help_is_quick_and_light():
    mg_data("--help")
    start = time.perf_counter()
    assert mg_data("--help").returncode == 0
    # Half a second on an idle machine; twice that where tests share it.
    assert time.perf_counter() - start < 1
    code = f"import sys\ntry:\n    {MAIN}\nexcept SystemExit:\n    print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code, "generate", "shapes", "--help"],
        cwd=Path(mg_core.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "mg_core.data.cli" in loaded
    assert not {"torch", "ray", "pandas", "numpy", "PIL"} & set(loaded)
