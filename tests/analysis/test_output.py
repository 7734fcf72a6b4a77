"""Where files go: whole or not at all, and a sentence that says what to do."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import pipeline
from analysis.page.output import Output
from analysis.results import read_results
from analysis.testing.plan import plan_tests
from mg_core.errors import InputError
from mg_core.store import ResultStore

ONE = {"layers": ("final",), "losses": ("energy",)}
WRITING = ("fronts", "tables", "report")


@pytest.fixture
def mounted(tmp_path):
    """Mount a small memory disk with options, and return its folder."""
    with contextlib.ExitStack() as stack:

        def mount(options):
            place = tmp_path / f"disk-{len(list(tmp_path.iterdir()))}"
            place.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("only root mounts a disk")
            stack.callback(subprocess.run, ["umount", str(place)], check=True)
            return place

        yield mount


@pytest.fixture(scope="module")
def few(sweep, make_grid, tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("few"), make_grid({"vanilla_tiny": ("ixg",)}, **ONE))


def parts(folder):
    return [path for path in Path(folder).rglob("*") if path.suffix == ".part"]


@pytest.mark.parametrize("command", WRITING)
def test_a_file_in_the_place_of_the_folder_is_a_sentence(few, mg_analysis, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    code, _, err = mg_analysis(command, few.uri, "--out", tmp_path / "file")
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert "name another folder with --out" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_is_a_sentence_and_leaves_whole_files(few, mg_analysis, mounted, command):
    place = mounted("size=8k")
    (place / "full").write_bytes(bytes(4096))
    code, _, err = mg_analysis(command, few.uri, "--out", place)
    assert code == 2
    assert "No space left on device; name another folder with --out" in err
    assert "Traceback" not in err
    assert parts(place) == []
    for path in filter(Path.is_file, place.rglob("*.csv")):
        assert path.read_text().endswith("\n")


def test_a_store_that_can_only_be_read_has_a_page_elsewhere(
    untested, mg_analysis, mounted, tmp_path
):
    place = mounted("size=32m")
    shutil.copytree(untested.uri, place / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    for command in WRITING:
        code, _, err = mg_analysis(command, place / "store")
        assert code == 2
        assert "Read-only file system; name another folder with --out" in err
    code, _, err = mg_analysis("report", place / "store", "--out", tmp_path / "out")
    assert code == 0
    assert err.count("not tested: ") == 1
    assert "Read-only file system" in err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "cannot be written: Read-only file system" in page


def test_an_address_is_no_folder(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--out is a folder on this machine"):
        Output(read_results(few), Path("s3://bucket/out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_an_interrupted_write_leaves_the_old_file(few, tmp_path, monkeypatch, error):
    output = Output(read_results(few), tmp_path)
    output.write("report.html", "old")
    fsync = os.fsync

    def interrupted(number):
        fsync(number)
        raise error

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises((KeyboardInterrupt, InputError)):
        output.write("report.html", "new" * 1000)
    assert (tmp_path / "report.html").read_text() == "old"
    assert parts(tmp_path) == []


def test_two_tests_at_once_give_the_rows_of_one(untested, tmp_path):
    shutil.copytree(untested.uri, tmp_path / "alone")
    program = "import sys; sys.argv[0] = 'mg-analysis'; from analysis.cli import main; main()"
    command = [sys.executable, "-c", program, "test", untested.uri]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    assert pipeline.test(tmp_path / "alone") == []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert out.startswith("tested ")
    found, right = read_results(ResultStore(untested.uri)), read_results(tmp_path / "alone")
    key = ["trial_id", "epoch", "attribution", "layer"]
    columns = [*key, "test_f1", "test_epg", "test_iou", "test_map"]
    here, there = (r.tests.sort_values(key, ignore_index=True)[columns] for r in (found, right))
    assert here.equals(there)
    assert found.heatmap_keys == right.heatmap_keys
    assert plan_tests(found).jobs == ()
    assert parts(untested.uri) == []


def test_files_of_the_user_in_the_place_of_ours_are_kept(few, mg_analysis, tmp_path):
    out = tmp_path / "paper"
    (out / "tables").mkdir(parents=True)
    (out / "tables" / "fronts.csv").write_text("mine")
    code, _, err = mg_analysis("fronts", few.uri, "--out", out)
    assert code == 0
    assert "was changed by hand, or is yours: kept as tables/fronts.kept-1.csv" in err
    assert (out / "tables" / "fronts.kept-1.csv").read_text() == "mine"
    written = (out / "tables" / "fronts.csv").read_text()
    code, _, err = mg_analysis("fronts", few.uri, "--out", out)
    assert "kept" not in err
    (out / "tables" / "fronts.csv").write_text(written + "my note")
    _, _, err = mg_analysis("fronts", few.uri, "--out", out)
    assert "kept as tables/fronts.kept-2.csv" in err
    assert (out / "tables" / "fronts.csv").read_text() == written
    assert (out / "tables" / "fronts.kept-2.csv").read_text() == written + "my note"
