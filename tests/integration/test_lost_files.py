"""Files of a store that are lost, or come from another store: what is left of it is kept."""

from dataclasses import replace

import pytest
from finished import files_of

import analysis
import sweeps
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.attempt import results_of
from mg_core.store.layout import attempt_key
from mg_core.store.progress import FOOTER
from mg_core.store.tables import to_parquet

ELSEWHERE = "0002-aaaaaaaa"


def test_the_commit_of_another_store_makes_no_garbage_of_the_weights(finished, store, run, capsys):
    opened = ResultStore(str(store))
    trial = next(iter(sweeps.plan(finished / "sweep.yaml", store=store).grid.guided))
    rows, own = opened.read_rows(trial)

    def there(key):
        return key.replace(own.attempt, ELSEWHERE)

    other = replace(
        own,
        attempt=ELSEWHERE,
        checkpoints={epoch: there(key) for epoch, key in own.checkpoints.items()},
        state=there(own.state),
        digests={there(key): digest for key, digest in own.digests.items()},
    )
    key = attempt_key("metrics", trial, ELSEWHERE)
    opened.put(key, to_parquet(rows.replace_schema_metadata({FOOTER: other.footer()})))
    before = results_of(opened, trial)
    assert len([k for k in before if own.attempt in k]) >= 3  # metrics, weights and state
    assert run().is_complete
    assert results_of(opened, trial) == before
    assert "kept checkpoints are missing, such as" in capsys.readouterr().out


def test_weights_that_somebody_removed_are_said_and_their_numbers_stay(store, run, capsys):
    before = analysis.load(store)
    (weights, *others) = sorted((store / "checkpoints").rglob("*.safetensors"))
    weights.unlink()
    assert run().is_complete
    said = capsys.readouterr().out
    assert f"1 kept checkpoints are missing, such as {weights.relative_to(store)}" in said
    assert all(path.exists() for path in others)
    assert analysis.load(store).equals(before)


def test_what_is_set_aside_ends_with_the_metrics(store):
    opened = ResultStore(str(store))
    for trial in opened.trial_ids():
        first, *_, last = results_of(opened, trial)
        assert first.startswith("test/")
        assert last.startswith("metrics/")


def test_a_lost_spec_costs_no_trial(finished, store):
    """A smaller sweep must not take the other trials for those of a driver that never began."""
    (store / "sweep.yaml").unlink()
    before = {path.name: path.read_bytes() for path in (store / "trials").iterdir()}
    options = {"store": store, "settings": ["grid.layer=input"], "runner": "inline"}
    with pytest.raises(InputError, match=r"lacks its sweep.yaml and holds 1 trials that are not"):
        sweeps.run(finished / "sweep.yaml", **options)
    sweeps.run(finished / "sweep.yaml", extend=True, **options)
    assert {path.name: path.read_bytes() for path in (store / "trials").iterdir()} == before
    assert len(analysis.load(store, shelved=True)) > len(analysis.load(store))


def test_trials_of_a_driver_that_never_began_are_replaced(finished, tmp_path):
    planned = sweeps.plan(finished / "sweep.yaml", store=tmp_path / "store")
    opened = ResultStore(str(tmp_path / "store"))
    opened.put_trials(planned.grid.trials)  # Killed before it wrote the spec.
    settings = ["grid.layer=input", "guided.epochs=1"]
    done = sweeps.run(finished / "sweep.yaml", opened.uri, settings, runner="inline")
    assert opened.trial_ids() == set(done.grid.trials)


def test_the_log_of_another_trial_is_said_and_set_aside(finished, store, mg_sweep):
    first, second = files_of(store, "logs")[:2]
    texts = first.read_bytes(), second.read_bytes()
    first.write_bytes(texts[1])
    second.write_bytes(texts[0])
    said = mg_sweep("verify", store, code=1).stdout
    for path, other in ((first, second), (second, first)):
        key = path.relative_to(store).as_posix()
        trial = f"the log of attempt {other.stem} of trial {other.parent.name}"
        assert f"{key} holds {trial}" in said
    refused = mg_sweep("logs", store, first.parent.name, code=2)
    assert f"holds the log of attempt {second.stem}" in refused.stderr
    mg_sweep("verify", store, "--repair")
    assert sorted(texts) == sorted(path.read_bytes() for path in files_of(store, "quarantine"))
    assert mg_sweep("verify", store).stdout == "every file is as it was written\n"
