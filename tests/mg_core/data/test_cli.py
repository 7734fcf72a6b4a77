from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mg_core
from mg_core.data import DATASETS
from mg_core.data.cli import main
from mg_core.data.drawn.birds import BirdsOptions, write_birds

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


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "birds"
    write_birds(folder, BirdsOptions(train=12, val=10, test=10, size=24))
    return folder


def test_generated_birds_are_waterbirds(tmp_path, monkeypatch, capsys):
    few = ("--train", 10, "--val", 10, "--test", 10, "--size", 24)
    assert called(monkeypatch, "generate", "waterbirds", tmp_path / "set", *few) == 0
    assert capsys.readouterr().out == f"wrote 30 images of 24 × 24 pixels to {tmp_path / 'set'}\n"
    assert called(monkeypatch, "verify", "waterbirds100", "--root", tmp_path / "set") == 0
    output = capsys.readouterr().out
    assert "train: 10 images, 10 boxes" in output
    assert "groups 0: 8, 3: 2" in output
    assert "0 problems" in output


def test_verify_lists_problems_and_leaves_with_1(devkit, monkeypatch, capsys):
    devkit.image("val-0").write_text("no image")
    devkit.annotation("test-1").write_text("no annotation")
    assert called(monkeypatch, "verify", "voc2007", "--root", devkit.root) == 1
    output = capsys.readouterr().out
    assert output.count("problem: ") == 2
    assert "2 problems" in output
    assert called(monkeypatch, "verify", "voc2007", "--root", devkit.root / "gone") == 2


@pytest.mark.parametrize(
    ("options", "names"),
    [([], "landbird"), (["--task", "reversed", "--dilation", "0.2"], "land")],
)
def test_show_writes_a_sheet(birds, tmp_path, monkeypatch, capsys, options, names):
    file = tmp_path / "sheet.png"
    arguments = ("show", "waterbirds100", file, "--root", birds, "--image-size", 24, *options)
    assert called(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    with Image.open(file) as sheet:
        # Two rows of six, each image enlarged eightfold over two lines of text.
        assert sheet.size == (6 * 196 + 4, 2 * (192 + 24 + 4) + 4)
        pixels = np.asarray(sheet)
    # The edge of the first mask has the strong colour of its class.
    assert (pixels[4:196, 4:196] == (255, 25, 25)).all(axis=2).any()


def test_show_refuses_what_it_cannot_write(birds, tmp_path, monkeypatch, capsys):
    for file in ("sheet.nothing", "gone/sheet.png"):
        arguments = ("show", "waterbirds100", tmp_path / file, "--root", birds, "--image-size", 24)
        assert called(monkeypatch, *arguments) == 2
        assert "error: cannot write" in capsys.readouterr().err


def test_prepare_says_what_is_missing_and_from_where(tmp_path, monkeypatch, capsys):
    assert called(monkeypatch, "prepare", "coco2014", "--root", tmp_path / "data") == 2
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("train2014: from http://images.cocodataset.org/zips/train2014.zip")
    assert captured.err.endswith("--download gets what has an address\n")
    assert called(monkeypatch, "prepare", "coco2014") == 2
    assert "give it with --root" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_prepare_decodes_what_is_there(birds, tmp_path, monkeypatch, capsys):
    where = ("--root", birds, "--cache", tmp_path, "--image-size", 24)
    assert called(monkeypatch, "prepare", "waterbirds100", *where) == 0
    output = capsys.readouterr().out
    assert output.startswith("train 12, val 5, test 10\n")
    assert len(list(tmp_path.glob("waterbirds100-24px-*/*/images.u8"))) == 3


def test_prepare_makes_a_synthetic_set(tmp_path, monkeypatch, capsys):
    few = ["--set", "train=4", "--set", "val=3", "--set", "test=2", "--set", "size=24"]
    arguments = ("prepare", "shapes", *few, "--image-size", 24, "--cache", tmp_path)
    assert called(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.startswith("train 4, val 3, test 2\n")


FEW = ("--set", "train=2", "--set", "val=2", "--set", "test=2", "--set", "size=24")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("verify", "voc2008"), "unknown data set 'voc2008' (did you mean 'voc2007'?)"),
        (("verify", "voc2007"), "this data set needs the folder it lies in"),
        (("verify", "voc2007", "--set", "classes"), "--set 'classes' is no KEY=VALUE"),
        (("verify", "shapes", "--set", "sise=3"), "options of data set shapes: unknown key"),
        (("show", "shapes", "x.png", "--split", "all", *FEW), "unknown split 'all'"),
        (("verify", "shapes", "--image-size", "0"), "data set shapes: image_size: "),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(monkeypatch, capsys, arguments, sentence):
    assert called(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


MODULE = """
import mg_core
from mg_core.data.layouts.voc import Voc


@mg_core.DATASETS.register("my_own")
class Mine(Voc):
    \"\"\"Reader of dogs.\"\"\"
"""


def test_readers_of_ones_own_are_imported(devkit, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_readers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(DATASETS, "_variants", dict(DATASETS))
    assert called(monkeypatch, "verify", "my_own", "--root", devkit.root) == 2
    assert "unknown data set 'my_own'; choose from voc2007" in capsys.readouterr().err
    own = ("my_own", "--root", devkit.root, "--import", "my_readers", "--image-size", 24)
    assert called(monkeypatch, "verify", *own) == 0
    assert "train: 2 images, 2 boxes" in capsys.readouterr().out
    assert called(monkeypatch, "prepare", *own, "--cache", tmp_path / "cache") == 0
    assert capsys.readouterr().out.startswith("train 2, val 2, test 2\n")
    assert called(monkeypatch, "show", "my_own", tmp_path / "a.png", *own[1:]) == 0
    assert called(monkeypatch, "list", "--import", "my_readers") == 0
    assert "my_own         Reader of dogs.\n" in capsys.readouterr().out
    assert called(monkeypatch, "list", "--import", "not_there") == 2
    assert "--import: module 'not_there' cannot be imported" in capsys.readouterr().err


def test_list_tells_every_option_and_its_default(monkeypatch, capsys):
    assert called(monkeypatch, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(DATASETS)
    assert all(line.endswith(".") for line in lines)
    for name, variant in DATASETS.items():
        assert called(monkeypatch, "list", name) == 0
        output = capsys.readouterr().out
        assert all(f"\n  {key}: " in output for key in variant.Options.model_fields)
    assert called(monkeypatch, "list", "csv") == 0
    output = capsys.readouterr().out
    assert "\n  val_fraction: 0.1\n    share of the training images for validation, if" in output
    assert "\n  limit: none\n    for a quick look, this many images of each split" in output
    assert "None for all.\n  val_fraction" in output
    assert called(monkeypatch, "list", "cvs") == 2
    assert "unknown data set 'cvs' (did you mean 'csv'?)" in capsys.readouterr().err
