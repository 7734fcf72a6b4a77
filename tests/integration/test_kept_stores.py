"""Stores that earlier versions wrote, one for each format there ever was, are read for ever.

A folder `tests/stores/format_N` is never written again: when the format changes, another is added.
Each holds a complete and tested sweep of five trials in which one failed and one was killed after
its first epoch of three. The fingerprint of its data is left out, since a newer image library may
encode the synthetic pictures differently.
"""

import json
import shutil

import pytest

import analysis
from mg_core.store.progress import FORMAT_VERSION

BASELINE, COMPLETE, KILLED = "954e347b0788da82", "f07b622827be4b51", "7f88c435f0c7ac9f"
VALUES = {
    "val_f1": [0.2105263, 0.1578947, 0.1428571, 0.0769231],
    "val_epg": [0.1648628, 0.2178146, 0.2763799, 0.355285],
    "val_iou": [0.1950903, 0.2005743, 0.2138049, 0.247049],
}
"""Of the complete trial, epochs 0 to 3."""


@pytest.fixture(params=range(1, FORMAT_VERSION + 1))
def kept(request, repository, tmp_path):
    """Return a copy of the store of one format."""
    stores = repository / "tests" / "stores"
    shutil.copytree(stores / f"format_{request.param}", tmp_path / "kept")
    shutil.copy(stores / "two_layers.py", tmp_path)
    return tmp_path / "kept"


def test_its_table_reads_as_it_was_written(kept):
    frame = analysis.load(str(kept))
    assert len(frame) == 13
    rows = frame[frame["trial_id"] == COMPLETE].set_index("epoch")
    assert list(rows.index) == [0, 1, 2, 3]
    assert set(rows["loss"]) == {"energy"}
    assert set(rows["localization_weight"]) == {0.3}
    for name, values in VALUES.items():
        assert list(rows[name]) == pytest.approx(values, abs=1e-6)
    assert set(frame.loc[frame["trial_id"] == BASELINE, "kind"]) == {"baseline"}


def test_it_is_reported_from_its_own_tests(kept, mg_analysis):
    said = mg_analysis("report", kept, "--no-test").stdout
    assert said.startswith("report: ")
    findings = json.loads(mg_analysis("findings", kept, "--json").stdout)
    assert [f["finding"] for f in findings][:2] == ["R1", "R2"]


def test_its_sweep_goes_on_where_it_was(kept, mg_sweep, tmp_path):
    before = analysis.load(str(kept))
    planned = mg_sweep("plan", kept, PYTHONPATH=str(tmp_path)).stdout
    assert "3 complete, 0 running, 1 failed, 1 waiting (2 epochs to run)" in planned
    mg_sweep("run", kept, "--runner", "inline", code=1, PYTHONPATH=str(tmp_path))
    after = analysis.load(str(kept))
    states = json.loads(mg_sweep("status", kept, "--json").stdout)
    assert states["counts"] == {"complete": 4, "running": 0, "failed": 1, "waiting": 0}
    resumed = after[after["trial_id"] == KILLED]
    assert list(resumed["epoch"]) == [0, 1, 2, 3]
    assert list(resumed["attempt"]) == [1, 1, 2, 2]
    key = ["trial_id", "epoch"]
    both = before.merge(after, on=key, suffixes=("", "_after"))
    assert len(both) == len(before)
    assert (both["val_f1"] == both["val_f1_after"]).all()
