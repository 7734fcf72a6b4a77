"""A sweep file is edited like a document: what leaves is kept, and what stays goes on."""

import json

import numpy as np
import pandas as pd
import pytest

import analysis
import sweeps
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.history import lineage
from mg_core.store.layout import SHELF
from mg_core.store.shelf import read_shelf
from mg_core.store.verification import verify
from sweeps.planning import make_plan
from sweeps.spec import load_spec

BOOKKEEPING = ["attempt", "seconds_train", "seconds_val", "seconds_step"]


@pytest.fixture
def file(sweep, write):
    """Return the file of a sweep of one baseline and two guided trials."""
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    return write(sweep)


@pytest.fixture
def run(file, tmp_path):
    """Run the sweep with settings, in a store of that name."""

    def start(*settings, store="store", **options):
        place = tmp_path / store
        return sweeps.run(file, store=place, settings=settings, runner="inline", **options)

    return start


def rows(store, **options):
    frame = analysis.load(store, **options).drop(columns=BOOKKEEPING)
    order = ["kind", "localization_weight", "epoch"]
    return frame.sort_values(order).reset_index(drop=True)


def weights(store):
    """Return the bytes of all weights that the sweep's trials have, by trial and epoch."""
    opened = ResultStore(str(store))
    shelved = read_shelf(opened)
    return {
        (trial, epoch): opened.referenced(key, found.digests[key])
        for trial, found in opened.progress().items()
        if trial not in shelved
        for epoch, key in found.checkpoints.items()
    }


def test_more_epochs_go_on_and_equal_those_of_a_fresh_run(run, tmp_path, capsys):
    run()
    with pytest.raises(
        InputError, match="--extend takes the change: trials that go on with more epochs: 2"
    ):
        run("guided.epochs=4")
    capsys.readouterr()
    done = run("guided.epochs=4", extend=True)
    assert done.counts()["complete"] == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "trials that go on with more epochs: 2 " in f"{said} "
    assert "trials that are shelved" not in said  # What is gone on with is no loss.
    run("guided.epochs=4", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))
    assert weights(tmp_path / "store") == weights(tmp_path / "fresh")
    # The first epochs were not trained again: each attempt has its own number of rows.
    logs = [ResultStore(str(tmp_path / "store")).logs(t) for t in done.grid.guided]
    assert all("begins with the epochs of trial" in str(log) for log in logs)
    assert all("epoch 2/4" not in str(log) and "epoch 3/4" in str(log) for log in logs)


def test_a_trial_that_was_stopped_goes_on_too(run, tmp_path, monkeypatch):
    from mg_core.training import trial

    step, epochs = trial.Trial.step, []

    def interrupted(self):
        if self.config.guidance and self.attempt.next_epoch == 2 and not epochs:
            epochs.append(2)
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(trial.Trial, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("guided.epochs=3")
    done = run("guided.epochs=2", extend=True)  # Fewer than asked, and no fewer than trained.
    assert done.counts()["complete"] == 3
    run("guided.epochs=2", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))


def test_a_longer_baseline_goes_on_and_is_guided_from_anew(run, tmp_path):
    run()
    run("baseline.epochs=4", extend=True)
    run("baseline.epochs=4", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))
    assert weights(tmp_path / "store") == weights(tmp_path / "fresh")


def test_trials_that_stopped_early_have_stopped_for_any_length(run, tmp_path):
    stop = "guided.early_stop={metric: f1, patience: 1}"
    run(stop, "guided.epochs=5")
    run(stop, "guided.epochs=7", extend=True)
    run(stop, "guided.epochs=7", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))
    assert weights(tmp_path / "store") == weights(tmp_path / "fresh")


def test_a_schedule_that_depends_on_the_length_is_trained_from_the_start(run, tmp_path):
    run("guided.schedule=cosine")
    with pytest.raises(
        InputError,
        match=r"trials of another length from the start, as the course of their learning rate "
        r"depends on the number of epochs: 2, trials that are shelved .*: 2",
    ):
        run("guided.schedule=cosine", "guided.epochs=3")
    run("guided.schedule=cosine", "guided.epochs=3", extend=True)
    run("guided.schedule=cosine", "guided.epochs=3", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))


def test_without_states_longer_trials_train_from_the_start(run, tmp_path, capsys):
    run("keep_states=false")
    store = ResultStore(str(tmp_path / "store"))
    assert all(found.state is None for found in store.progress().values())
    capsys.readouterr()
    run("guided.epochs=3", extend=True)
    assert (
        "longer trials from the start, as the shorter ones kept no state: 2"
        in capsys.readouterr().out
    )
    run("guided.epochs=3", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))


def test_a_shorter_trial_whose_state_is_damaged_is_no_help_and_that_is_said(run, tmp_path, capsys):
    done = run()
    store = ResultStore(str(tmp_path / "store"))
    for trial in done.grid.guided:
        store.put(str(store.progress(trial)[trial].state), b"torn")
    capsys.readouterr()
    assert run("guided.epochs=3", extend=True).counts()["complete"] == 3
    said = capsys.readouterr().out
    for trial in done.grid.guided:
        state = store.progress(trial)[trial].state
        assert f"{state} is damaged (its checksum is wrong)" in said
        assert f"the epochs of trial {trial} are not gone on from" in said
    run("guided.epochs=3", store="fresh")
    pd.testing.assert_frame_equal(rows(tmp_path / "store"), rows(tmp_path / "fresh"))


def test_fewer_epochs_are_refused_unless_they_are_there(run, tmp_path):
    run("guided.epochs=3")
    with pytest.raises(
        InputError, match="2 of the trials have trained for more epochs than that, and no"
    ):
        run("guided.epochs=2", extend=True)
    run("guided.epochs=4", extend=True)
    done = run("guided.epochs=3", extend=True)  # Those of the first run.
    assert done.counts() == {"complete": 3}
    assert set(rows(tmp_path / "store")["epochs"]) == {2, 3}
    assert len(read_shelf(ResultStore(str(tmp_path / "store")))) == 2


def test_what_left_the_file_is_kept_and_counts_nowhere(run, file, tmp_path, mg_sweep):
    run()
    store = tmp_path / "store"
    everything = rows(store)
    left = "grid.loss={energy: [0.1]}"
    with pytest.raises(
        InputError, match=r"trials that are shelved \(kept, but in no front or table\): 1"
    ):
        run(left)
    assert run(left, extend=True).counts() == {"complete": 2}
    assert set(rows(store)["localization_weight"].dropna()) == {0.1}
    pd.testing.assert_frame_equal(rows(store, shelved=True), everything)
    assert set(analysis.fronts(store)["localization_weight"]) == {0.1}
    sentence = "shelved: 1 trial that is no longer in the sweep; kept in the store"
    assert sentence in " ".join(mg_sweep("status", store).stdout.split())
    found = json.loads(mg_sweep("status", store, "--json").stdout)
    assert (found["shelved"], found["counts"]["complete"]) == (1, 2)
    assert sentence in mg_sweep("plan", store).stdout
    assert analysis.test(store) == []
    tested = analysis.frame.load_tests(store)
    assert set(tested["trial_id"]) <= set(rows(store)["trial_id"])
    page = analysis.report(store).path.read_text()
    assert sentence in page
    assert verify(ResultStore(str(store)), lambda *_: None) == []

    # It is there again as soon as it stands in the file again.
    before = ResultStore(str(store)).attempt_counts()
    assert run(extend=True).counts() == {"complete": 3}
    pd.testing.assert_frame_equal(rows(store), everything)
    assert ResultStore(str(store)).attempt_counts() == before
    assert not (store / SHELF).exists()
    mg_sweep("run", file, "--store", store, "--runner", "inline")  # Nothing is different now.


def test_what_is_shelved_can_be_deleted(run, tmp_path, mg_sweep):
    run()
    store = tmp_path / "store"
    assert "has no shelved trials" in mg_sweep("rm", store, "--shelved", "-y", code=2).stderr
    left = "grid.loss={energy: [0.1]}"
    run(left, extend=True)
    before = rows(store)
    said = mg_sweep("rm", store, "--shelved", "-y").stdout
    assert said.startswith("1 trial that left the sweep, with all results, ")
    assert not (store / SHELF).exists()
    opened = ResultStore(str(store))
    assert opened.trial_ids() == opened.progress().keys() == set(before["trial_id"])
    pd.testing.assert_frame_equal(rows(store, shelved=True), before)
    assert verify(opened, lambda *_: None) == []
    assert run(left).counts() == {"complete": 2}


def test_a_list_of_the_shelf_that_is_damaged_is_said_and_written_again(run, tmp_path):
    run()
    run("grid.loss={energy: [0.1]}", extend=True)
    store = ResultStore(str(tmp_path / "store"))
    (shelved,) = read_shelf(store)
    place = store.get(SHELF).index(shelved.encode())
    other = bytearray(store.get(SHELF))
    other[place] = ord("a" if shelved[0] == "0" else "0")  # An id of no trial.
    for damage in (b"[", bytes(other)):
        store.put(SHELF, damage)
        assert [found.key for found in verify(store, lambda *_: None)] == [SHELF]
        with pytest.raises(InputError, match=r"shelf\.json is damaged"):
            analysis.tables(store)
    run("grid.loss={energy: [0.1]}")
    assert len(read_shelf(store)) == 1


def test_trials_of_one_lineage_differ_in_their_epochs_alone(file):
    def lineages(*settings):
        grid = make_plan(load_spec(file, settings)).grid
        return [lineage(config) for config in grid.trials.values()]

    first = lineages()
    assert len(set(first)) == 3
    assert lineages("guided.epochs=9") == first
    for setting in ("guided.learning_rate=0.1", "guided.batch_size=4", "seed=3"):
        assert lineages(setting)[1] not in first
    assert not np.array(lineages("baseline={from: x.pt}")[0])
