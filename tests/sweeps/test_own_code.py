"""The user's own code is part of what makes results: versions of it are not mixed in silence."""

import importlib
import json
import sys
from dataclasses import replace

import pandas as pd
import pytest

import analysis
from analysis.frame import load_tests
from analysis.results import read_results
from mg_core.config import TrialConfig
from mg_core.sources import file_digests, members, version, version_here
from mg_core.store import ResultStore
from mg_core.store.code import changes, versions_of
from mg_core.store.layout import CODE
from mg_core.store.progress import FOOTER
from mg_core.store.tables import to_parquet
from mg_core.store.verification import verify
from mg_core.training.own_code import modules_of
from sweeps.grid import expand
from sweeps.spec import load_spec

LOSS = """
from mg_core.losses import LOSSES
from helpers.scale import FACTOR

@LOSSES.register("mine")
def mine(attributions, masks):
    return FACTOR * LOSSES["energy"](attributions, masks)
"""

OTHER = """
from mg_core.losses import LOSSES

@LOSSES.register("other")
def other(attributions, masks):
    return 2 * LOSSES["energy"](attributions, masks)
"""

BUG = """
    import os
    if os.path.isdir("store/attempts"):  # Not in the rehearsal, before any trial has started.
        raise RuntimeError("a bug")
"""

EDITING = """
import os
from pathlib import Path
from mg_core.losses import LOSSES

@LOSSES.register("mine")
def mine(attributions, masks):
    file = Path(__file__)
    # Not in the rehearsal, before any trial has started.
    if os.environ.get("EDIT") and (file.parent / "store" / "attempts").is_dir():
        file.write_text(file.read_text() + "# edited\\n")
    return LOSSES["energy"](attributions, masks)
"""


@pytest.fixture
def own(sweep, write, tmp_path):
    """Return the file of a sweep with two losses of the user's own, one of which has a helper."""
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "my_loss.py").write_text(LOSS)
    (tmp_path / "other_loss.py").write_text(OTHER)
    sweep["imports"] = ["my_loss", "other_loss"]
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    sweep["grid"]["loss"] = {"mine": [0.1, 1.0], "other": 0.1}
    return write(sweep)


@pytest.fixture
def run(own, mg_sweep, tmp_path):
    """Run the sweep of the user's own losses, in a process of its own."""

    def start(*arguments, command="run", code=0, **environment):
        environment |= {"PYTHONPATH": str(tmp_path)}
        found = mg_sweep(command, own, "--runner", "inline", *arguments, code=code, **environment)
        return " ".join((found.stdout + found.stderr).split())

    return start


def rows(store):
    frame = analysis.load(store)
    times = ["attempt", "seconds_train", "seconds_val", "seconds_step"]
    order = ["loss", "localization_weight", "epoch"]
    return frame.drop(columns=times).sort_values(order).reset_index(drop=True)


def recorded(store):
    """Return the versions of each trial's epochs, by loss."""
    opened = ResultStore(str(store))
    trials = opened.trials()
    return {
        (c.guidance.loss, c.guidance.localization_weight) if c.guidance else c.kind: found.code
        for trial, found in opened.progress().items()
        for c in [trials[trial]]
    }


def test_a_trial_records_the_modules_that_it_comes_from(run, tmp_path):
    run()
    found = recorded(tmp_path / "store")
    assert found["baseline"] == {}
    assert {tuple(code) for code in found["other", 0.1].values()} == {("other_loss",)}
    (code,) = found["mine", 0.1].values()
    assert code.keys() == {"my_loss"}
    assert found["mine", 0.1] == found["mine", 1.0] == {0: code}


def test_changed_code_is_asked_about_and_accepted_once(run, own, mg_sweep, mg_analysis, tmp_path):
    run()
    before = rows(tmp_path / "store")
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    said = run(code=2)
    assert (
        "module 'my_loss' has changed in helpers.scale since it computed 2 trials (2 complete): of "
        "version "
    ) in said
    for command in ("plan", "status"):  # Who only looks is told, too.
        told = " ".join(mg_sweep(command, own, PYTHONPATH=str(tmp_path)).stdout.split())
        assert "'my_loss' has changed in helpers.scale since it computed 2 trials" in told
        assert "other_loss" not in told
    assert "--accept-code lets the versions stand together, --rerun-code trains these" in said
    assert "other_loss" not in said
    assert "give one of the two" in run("--accept-code", "--rerun-code", code=2)
    assert "accepted, they stand together" in run("--accept-code")
    assert "my_loss" not in run()
    assert "has changed" not in mg_sweep("status", own, PYTHONPATH=str(tmp_path)).stdout
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), before)

    # Trials of the new version join them, and whoever reads a front of both is told.
    more = 'grid.loss={"mine": [0.1, 1.0, 2.0], "other": 0.1}'
    run("--set", more, "--extend")
    store = tmp_path / "store"
    found = json.loads(mg_sweep("status", store, "--json").stdout)
    assert sorted(found["code"]["my_loss"].values()) == [1, 2]
    assert list(found["code"]["other_loss"].values()) == [1]
    assert "trials by version of module my_loss: version " in mg_sweep("status", store).stdout
    assert "module other_loss: version" in mg_sweep("verify", store).stdout
    assert read_results(store).mixed_code.startswith(
        "fronts with rows from different versions of your own code: 1 (my_loss "
    )
    told = mg_analysis("tables", "store")
    assert "fronts with rows from different versions of your own code: 1" in told.stderr

    # Who wants them trained again after all takes the acceptance back.
    assert "2 trials are trained again" in run("--set", more, "--rerun-code")
    assert read_results(store).mixed_code is None


def test_changed_code_is_run_again(run, tmp_path):
    run()
    assert "trained again" not in run("--rerun-code")  # Nothing has changed.
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    said = run("--rerun-code")
    assert "2 trials are trained again, the results so far are in quarantine/" in said
    run("--store", "fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))
    assert recorded(tmp_path / "store") == recorded(tmp_path / "fresh")


def test_a_trial_that_would_go_on_is_asked_about_too(run, tmp_path):
    loss = tmp_path / "other_loss.py"
    loss.write_text(OTHER.replace("    return 2", f"{BUG}    return 2"))
    run(code=1)
    loss.write_text(OTHER)
    said = run(command="retry", code=2)
    assert "module 'other_loss' has changed since it computed 1 trial (0 complete)" in said
    run("--accept-code", command="retry")
    first, second = recorded(tmp_path / "store")["other", 0.1].items()
    assert (first[0], second[0]) == (0, 1)
    assert first[1] != second[1]


def test_longer_trials_do_not_begin_with_epochs_of_other_code(run, tmp_path):
    run()
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    longer = ["--set", "guided.epochs=3", "--extend"]
    assert "module 'my_loss' has changed in helpers.scale since" in run(*longer, code=2)
    run(*longer, "--rerun-code")
    run("--set", "guided.epochs=3", "--store", "fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))


@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_a_module_that_changes_during_a_run_stops_it(own, mg_sweep, tmp_path, runner):
    (tmp_path / "my_loss.py").write_text(EDITING)
    environment = {"PYTHONPATH": str(tmp_path), "EDIT": "1"}
    arguments = ["run", own, "--runner", runner, "--set", "max_concurrent=1"]
    arguments += ["--set", "grid.loss={mine: [0.1, 1.0, 2.0, 3.0]}"]
    found = mg_sweep(*arguments, code=1, **environment)
    said = " ".join(found.stdout.split())
    assert "imports: module 'my_loss' is not what it was: " in said
    assert "the next run says which trials are of which version" in said
    progress = ResultStore(str(tmp_path / "store")).progress()
    (versions,) = versions_of(progress.values()).values()
    assert len(versions) == 1  # Nothing was computed by another one.
    said = " ".join(mg_sweep(*arguments, code=2, PYTHONPATH=str(tmp_path)).stderr.split())
    assert "module 'my_loss' has changed since it computed 1 trial" in said


def test_checkpoints_of_another_version_are_not_tested_with_this_one(run, mg_analysis, tmp_path):
    run()
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    found = mg_analysis("test", "store", code=1)
    assert (
        "checkpoints that another version of your own code trained: module 'my_loss'"
        in found.stderr
    )
    tested = load_tests(tmp_path / "store")
    of_mine = rows(tmp_path / "store").query("loss == 'mine' and epoch > 0")["trial_id"]
    assert not set(tested["trial_id"]) & set(of_mine)
    assert len(tested)


def test_results_without_a_record_are_nobody_s_concern(run, tmp_path):
    run()
    store = ResultStore(str(tmp_path / "store"))
    for trial, key in store.metrics_keys().items():
        table, progress = store.committed(key)
        footer = replace(progress, code={}).footer()
        assert b'"code"' not in footer  # As versions wrote it that knew nothing of it.
        store.put(key, to_parquet(table.replace_schema_metadata({FOOTER: footer})))
        assert store.progress(trial)[trial].code == {}
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    assert "my_loss" not in run()


def test_a_damaged_record_of_what_was_accepted_is_said(run, tmp_path):
    run()
    (tmp_path / "helpers" / "scale.py").write_text("FACTOR = 3.0\n")
    run("--accept-code")
    store = ResultStore(str(tmp_path / "store"))
    assert verify(store, lambda *_: None) == []
    store.put(CODE, b"{}")
    assert [damage.key for damage in verify(store, lambda *_: None)] == [CODE]
    assert "code.json is damaged" in run(code=2)


def test_versions_of_what_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "house" / "room").mkdir(parents=True)
    (tmp_path / "house" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "house" / "room" / "__init__.py").write_text("from house import door")
    (tmp_path / "house" / "door.py").write_text("")
    (tmp_path / "alone.py").write_text("import beside")
    (tmp_path / "beside.py").write_text("")
    assert version_here("alone") is None
    assert file_digests("alone") == {}
    monkeypatch.syspath_prepend(tmp_path)
    assert file_digests("house.room").keys() == {"house", "house.room", "house.door"}
    assert file_digests("alone").keys() == {"alone", "beside"}
    before, parts_before = version_here("alone"), file_digests("alone")
    (tmp_path / "beside.py").write_text("x = 1")
    assert version_here("alone") != before
    changed = {
        name for name, digest in file_digests("alone").items() if parts_before[name] != digest
    }
    assert changed == {"beside"}
    assert not {"house", "alone"} & sys.modules.keys()
    importlib.import_module("alone")
    assert version_here("alone") == version("alone")
    for name in ("alone", "beside"):
        del sys.modules[name]


def test_versions_may_stand_together_by_way_of_a_third():
    accepted = {("m", "a", "b"), ("m", "c", "b"), ("n", "a", "d")}
    assert changes({"m": "a"}, {"m": "c"}, accepted) == set()
    assert changes({"m": "a"}, {"m": "d"}, accepted) == {("m", "a", "d")}
    assert changes({"m": "a"}, {}, accepted) == {("m", "a", "absent")}
    assert changes({}, {"m": "a"}, ()) == set()


PARTS = """
from mg_core import CLASSIFICATION_LOSSES, LOSSES, SCHEDULES

LOSSES.register("own_map_loss")(lambda attributions, masks: attributions.sum((1, 2)))
CLASSIFICATION_LOSSES.register("own_bce")(lambda logits, labels, label_smoothing: logits.mean())
SCHEDULES.register("own_schedule")(lambda done, span: 1.0)
"""


def test_every_variant_that_a_trial_names_is_looked_at(sweep, write, tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    sweep["imports"] = ["own_parts"]
    (config,) = expand(load_spec(write(sweep), [])).baselines.values()
    assert modules_of(config, ("own_parts",)) == ()
    named = TrialConfig.model_validate({**config.model_dump(), "schedule": "own_schedule"})
    for changed in (named, config.model_copy(update={"classification_loss": "own_bce"})):
        assert modules_of(changed, ("own_parts",)) == ("own_parts",)


SOURCES = {
    "top/__init__.py": "",
    "top/one.py": "from . import two\nfrom .deep.three import x\nimport numpy, beside\n",
    "top/two.py": "def late():\n    import top.four as four\n",
    "top/four.py": "",
    "top/five.py": "",
    "top/deep/__init__.py": "from .. import one",
    "top/deep/three.py": "x = 1\n",
    "beside.py": "from mg_core.losses import LOSSES\n",
    "far.py": "",
}


def test_a_module_stands_on_what_it_imports_from_its_own_place(tmp_path, monkeypatch):
    for folder in ("own", "lib/site-packages"):
        for name, text in SOURCES.items():
            place = tmp_path / folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    names = {"top", "top.one", "top.two", "top.four", "top.deep", "top.deep.three"}
    for folder, expected in {"own": names | {"beside"}, "lib/site-packages": names}.items():
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / folder)
            importlib.import_module("top.one")
            assert members("top.one").keys() == expected
            before = version("top.one")
            (tmp_path / folder / "top" / "five.py").write_text("# not imported")
            assert version("top.one") == before
            (tmp_path / folder / "top" / "four.py").write_text("# imported late")
            assert version("top.one") != before
            for name in [*names, "beside"]:
                sys.modules.pop(name, None)
