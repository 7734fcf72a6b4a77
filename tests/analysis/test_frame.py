"""Frames as they are documented."""

import subprocess
import sys

import pandas as pd
import pytest

import analysis
from analysis import frame
from mg_core.columns import COLUMNS
from mg_core.errors import InputError
from mg_core.store.tables import METRICS, TEST


def test_every_column_is_documented():

    assert set(frame.COLUMNS) == {*METRICS.names, *TEST.names}


def test_load_returns_every_committed_row(demo):
    rows = analysis.load(demo.uri)
    assert list(rows.columns) == METRICS.names
    assert len(rows) == 3 + 24 * 5
    assert not rows.duplicated(frame.KEY).any()
    assert rows.loc[rows["kind"] == "baseline", ["attribution", "layer"]].isna().all(axis=None)


def test_dtypes_are_as_documented(demo, sweep, make_grid, tmp_path):
    """The same whether or not a column has nulls in this store."""
    only_baseline = sweep(tmp_path, make_grid({"vanilla_tiny": ()}))
    for store in (demo, only_baseline):
        rows = analysis.load(store)
        assert (rows[frame.WITHOUT_NULLS].dtypes == "int64").all()
        assert rows["horizontal_flip"].dtype == bool
        counts = [
            name
            for name in rows
            if name.removeprefix("val_").startswith("n_") and COLUMNS[name].type == "int64"
        ]
        assert {str(rows[name].dtype) for name in counts} == {"Int64"}
        for name in ("val_f1", "val_epg", "localization_weight", "seconds_train", "train_loss"):
            assert rows[name].dtype == "float64", name
        assert pd.api.types.is_string_dtype(rows.dropna(subset=["trial_id"])["trial_id"])


def test_some_columns_only(demo):
    assert list(analysis.load(demo, ["val_f1", "trial_id"])) == ["val_f1", "trial_id"]
    assert list(frame.load_tests(demo, ["test_epg"])) == ["test_epg"]


def test_test_rows_join_on_the_key(demo):
    rows = analysis.load(demo)
    joined = frame.with_tests(rows, frame.load_tests(demo))
    assert len(joined) == len(rows)
    assert joined["test_f1"].notna().all()


def test_unknown_columns_are_a_sentence(demo):
    with pytest.raises(InputError, match="unknown column 'val_fi'; choose from trial_id"):
        analysis.load(demo, ["val_fi"])
    with pytest.raises(InputError, match="unknown column 'val_f1'"):
        frame.load_tests(demo, ["val_f1"])


@pytest.mark.parametrize("what", ["missing", "empty folder", "a file"])
def test_what_is_no_store_is_a_sentence(tmp_path, what):
    path = tmp_path / "x"
    if what == "empty folder":
        path.mkdir()
    if what == "a file":
        path.write_text("name: x")
    with pytest.raises(InputError, match=r"not a result store|cannot be read"):
        analysis.load(path)


def test_importing_the_package_imports_nothing_heavy(repository):
    code = (
        "import sys, analysis, analysis.cli; "
        "heavy = {'torch', 'ray', 'pandas', 'pyarrow', 'matplotlib', 'numpy'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
