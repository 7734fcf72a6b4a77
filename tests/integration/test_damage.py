"""Whatever happens to the files of a store: nothing wrong without a word, nothing of others' lost.

A finished and tested sweep is damaged bit by bit, its files are swapped, linked and mixed with a
user's own. Every command then gives the right numbers or a sentence, and never a traceback.
"""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from finished import files_of
from safetensors.torch import load_file, save_file

import analysis
import sweeps
from mg_core.errors import InputError, StorageError
from mg_core.store import ResultStore, layout
from mg_core.store.progress import FOOTER
from mg_core.store.tables import to_parquet

KINDS = ("metrics", "test", "heatmaps", "checkpoints", "trials", "attempts")


def content(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def numbers(store):
    """Return what the store says, times aside: its rows, its tests and its best checkpoints."""
    rows = analysis.load(store).drop(columns=["attempt", *TIMES])
    fronts = analysis.fronts(store).drop(columns=["attempt", *TIMES])
    return rows.to_csv(index=False), fronts.to_csv(index=False)


TIMES = ["seconds_train", "seconds_val", "seconds_step"]


def flip(path, rng):
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("n_bits", [60, pytest.param(334, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_never_gives_another_number(finished, store, kind, n_bits):
    right, rng = numbers(finished / "store"), random.Random(f"{kind} {n_bits}")
    n_refused = 0
    for _ in range(n_bits):
        (path,) = rng.sample(files_of(store, kind), 1)
        before = path.read_bytes()
        flip(path, rng)
        said = refusal(store, right)
        n_refused += bool(said)
        assert not said or path.stem in said
        path.write_bytes(before)
    if kind in ("metrics", "test", "checkpoints"):
        assert n_refused > 0.8 * n_bits  # A few bits are padding, or say nothing that is read.


def refusal(store, right):
    """Return the sentence by which a store is refused; its numbers are right where it is not."""
    try:
        assert numbers(store) == right
        for progress in ResultStore(str(store)).progress().values():
            for key in progress.references:
                ResultStore(str(store)).referenced(key, progress.digests[key])
    except (InputError, StorageError) as error:
        return str(error)
    return ""


def test_verify_finds_each_kind_of_damage_and_the_next_run_repairs_it(
    finished, store, run, mg_sweep, tmp_path
):
    right = numbers(finished / "store")
    rng = random.Random(0)
    clean = mg_sweep("verify", store)
    assert clean.stdout == "every file is as it was written\n"
    damaged = [rng.choice(files_of(store, kind)) for kind in KINDS]
    # Where the metrics are damaged, all of the trial is set aside and nothing else of it named.
    weights = [p for p in files_of(store, "checkpoints") if p.parts[-3] != damaged[0].parts[-2]]
    damaged[KINDS.index("checkpoints")] = rng.choice(weights)
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = mg_sweep("verify", store, code=1).stdout
    for path in damaged:
        assert path.relative_to(store).as_posix() in said
    before = content(store)
    mg_sweep("verify", store, "--repair")
    after = content(store)
    assert sorted(before.values()) == sorted(after.values())  # Renamed, and nothing deleted.
    assert mg_sweep("verify", store).stdout == clean.stdout
    assert run().is_complete
    assert analysis.test(store) == []
    assert numbers(store) == right


def test_the_metrics_of_another_trial_are_set_aside_and_nothing_is_lost(finished, store, run):
    right = numbers(finished / "store")
    first, second = files_of(store, "metrics")[:2]
    shutil.copy(first, second)
    checkpoints = {p: p.read_bytes() for p in files_of(store, "checkpoints")}
    with pytest.raises(InputError, match="holds another trial"):
        analysis.load(store)
    assert run().is_complete
    assert analysis.test(store) == []
    assert numbers(store) == right
    kept = {p.read_bytes() for p in files_of(store, "quarantine")}
    assert first.read_bytes() in kept
    assert set(checkpoints.values()) <= kept | {
        p.read_bytes() for p in files_of(store, "checkpoints")
    }


@pytest.mark.parametrize("kind", ["test", "heatmaps"])
def test_the_tests_of_another_trial_are_refused(store, kind):
    first, *_, last = files_of(store, kind)
    shutil.copy(first, last)
    with pytest.raises((InputError, StorageError), match=f"{last.name} holds"):
        analysis.report(store, testing=None)


def test_a_link_is_never_followed(store, run, tmp_path, mg_sweep):
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.docx").write_text("mine")
    trial = next(p for p in (store / "metrics").iterdir())
    (trial / "up").symlink_to(store, target_is_directory=True)
    (store / "checkpoints" / trial.name / "elsewhere").symlink_to(others)
    (store / "elsewhere").symlink_to(others)
    before = content(store)
    assert run().is_complete
    assert {k: v for k, v in content(store).items() if k != "sweep.yaml"} == {
        k: v for k, v in before.items() if k != "sweep.yaml"
    }
    mg_sweep("rm", store, "--trial", trial.name, "-y")
    mg_sweep("rm", store, "-y")
    assert (others / "thesis.docx").read_text() == "mine"
    assert (store / "elsewhere").is_symlink()


def test_a_link_in_the_place_of_a_folder_is_said(store, tmp_path, mg_sweep):
    (store / "checkpoints").rename(tmp_path / "big_disk")
    (store / "checkpoints").symlink_to(tmp_path / "big_disk")
    before = content(tmp_path / "big_disk")
    for command in (["verify", store], ["rm", store, "-y"]):
        said = mg_sweep(*command, code=2).stderr
        assert "is a symbolic link; links inside a store are not followed" in said
    assert content(tmp_path / "big_disk") == before


OTHERS = {
    "analysis/thesis.docx": "thesis",
    "analysis/tables/own.csv": "a,b",
    "logs/training.log": "log",
    "data/images/1.jpg": "image",
    ".tmp/draft": "draft",
    "metrics/notes.txt": "notes",
    "trials/x.json~": "{",
    "trials/.x.json.swp": "x",
    "metrics/.nfs0001": "x",
    ".DS_Store": "x",
    "checkpoints/my_model.pt": "model",
}


def test_files_of_others_stay_and_are_no_obstacle(finished, store, run, mg_sweep):
    right = numbers(finished / "store")
    for name, text in OTHERS.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(text)
    assert run().is_complete
    assert numbers(store) == right
    report = analysis.report(store)
    table = report.path.parent / "tables" / "best.csv"
    table.write_text("changed by hand")
    mg_sweep("verify", store)
    said = mg_sweep("rm", store, "-y").stdout
    assert f"other files in its folder stay: {len(OTHERS) + 1}" in said
    expected = {name: text.encode() for name, text in OTHERS.items()}
    assert content(store) == expected | {"analysis/tables/best.csv": b"changed by hand"}


def test_a_new_store_wants_a_folder_of_its_own(finished, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.docx").write_text("mine")
    options = {"store": tmp_path / "papers", "runner": "inline"}
    with pytest.raises(InputError, match=r"is not empty: it holds thesis.docx; .* --into"):
        sweeps.run(finished / "sweep.yaml", **options)
    assert [p.name for p in (tmp_path / "papers").iterdir()] == ["thesis.docx"]
    assert sweeps.run(finished / "sweep.yaml", into=True, **options).is_complete


@pytest.mark.parametrize("how", ["flipped", "missing", "torn"])
def test_a_trial_with_a_damaged_state_starts_over_and_says_so(finished, tmp_path, how, capsys):
    content_ = yaml.safe_load((finished / "sweep.yaml").read_text())
    place = tmp_path / "killed"
    planned = sweeps.plan(content_, store=place)
    (baseline,) = planned.grid.baselines.values()
    guided = next(iter(planned.grid.guided.values()))
    _train(planned, place, baseline, baseline.epochs)
    _train(planned, place, guided, 1)
    (state,) = (place / "checkpoints" / guided.trial_id).rglob("state-*.pt")
    if how == "missing":
        state.unlink()
    elif how == "flipped":
        flip(state, random.Random(1))
    else:
        state.write_bytes(state.read_bytes()[:1000])
    assert sweeps.run(content_, store=place, runner="inline").is_complete
    assert analysis.test(place) == []
    assert numbers(place) == numbers(finished / "store")
    record = ResultStore(str(place)).attempts([guided.trial_id])[guided.trial_id]
    assert state.name in record["damage"]
    assert "the trial begins anew" in record["damage"]
    assert f"{guided.trial_id} {guided.label}: {record['damage']}" in capsys.readouterr().out


def _train(planned, place, config, last_epoch):
    from mg_core.training.execution import run_trial
    from sweeps.planning import admit

    store = ResultStore(str(place))
    admit(planned, store)
    running = run_trial(config, planned.spec.runtime())
    for outcome in running:
        if outcome.epoch == last_epoch:
            running.close()
            break


def test_a_baseline_with_damaged_weights_is_trained_again(finished, store, run):
    planned = sweeps.plan(finished / "sweep.yaml", store=store)
    (baseline,) = planned.grid.baselines
    child = next(iter(planned.grid.guided))
    for folder in layout.RESULTS:
        shutil.rmtree(store / folder / child, ignore_errors=True)
    (weights,) = (store / "checkpoints" / baseline).rglob("*.safetensors")
    flip(weights, random.Random(2))
    assert run().is_complete
    assert analysis.test(store) == []
    assert numbers(store) == numbers(finished / "store")


def test_weights_that_are_not_finite_are_said(finished, store):
    for path in files_of(store, "test"):
        path.unlink()
    opened, trial = ResultStore(str(store)), _guided(finished, store)
    rows, progress = opened.read_rows(trial)
    kept = rows.replace_schema_metadata({FOOTER: replace(progress, digests={}).footer()})
    opened.put(opened.metrics_keys()[trial], to_parquet(kept))  # As older versions wrote it.
    path = next((store / "checkpoints" / trial).rglob("*.safetensors"))
    weights = load_file(path)
    weights["fc.weight"][0, 0] = torch.nan
    save_file(weights, path)
    problems = analysis.test(store)
    assert len(problems) == 1
    sentence = f"{path.name} holds weights that are not finite"
    assert sentence in problems[0]
    with pytest.raises(InputError, match=sentence):
        analysis.load_model(store, trial, epoch=int(path.stem.split("-")[1]))


def test_a_damaged_trial_record_is_written_again(finished, store, run):
    path = files_of(store, "trials")[0]
    right = path.read_bytes()
    path.write_bytes(right[:40])
    with pytest.raises(InputError, match=path.name):
        analysis.load_model(store, path.stem)
    assert run().is_complete
    assert path.read_bytes() == right


def test_old_stores_have_no_checksums_and_are_read(repository, tmp_path, mg_sweep):
    shutil.copytree(repository / "tests" / "stores" / "format_1", tmp_path / "kept")
    assert mg_sweep("verify", tmp_path / "kept").stdout == "every file is as it was written\n"
    assert len(analysis.load(tmp_path / "kept")) == 13


def test_a_sweep_file_of_the_users_own_stays(finished, tmp_path, mg_sweep):
    own = tmp_path / "own"
    own.mkdir()
    text = (finished / "sweep.yaml").read_text() + "# mine\n"
    (own / "sweep.yaml").write_text(text)
    for options in ({}, {"into": True}):
        with pytest.raises(InputError, match=r"sweep.yaml"):
            sweeps.run(own / "sweep.yaml", store=own, runner="inline", **options)
    assert "is not a result store" in mg_sweep("rm", own, "-y", code=2).stderr
    assert (own / "sweep.yaml").read_text() == text


def test_a_damaged_or_lost_spec_is_said_and_written_again(finished, store, run, mg_sweep):
    right = (store / "sweep.yaml").read_text()
    damaged = right.replace("objectives", "nbjectives")
    assert damaged != right
    for text in (damaged, damaged.replace("n", "\xf1"), "", None):
        (store / "sweep.yaml").unlink()
        if text is not None:
            (store / "sweep.yaml").write_text(text, encoding="latin-1")
        assert "sweep.yaml" in mg_sweep("verify", store, code=1).stdout
        assert "sweep.yaml" in mg_sweep("status", store, code=2).stderr
        with pytest.raises(InputError, match=r"sweep.yaml"):
            analysis.fronts(store)
        assert run().is_complete
        assert _spec_lines(store) == _spec_lines(finished / "store")


def _spec_lines(folder):
    lines = (folder / "sweep.yaml").read_text().splitlines()
    return [line for line in lines if not line.startswith(("store:", "# crc32"))]


@pytest.mark.parametrize("is_torn", [True, False])
def test_tests_of_weights_that_were_set_aside_are_computed_again(finished, store, run, is_torn):
    (metrics,) = (store / "metrics" / _guided(finished, store)).iterdir()
    data = bytearray(b"torn" if is_torn else metrics.read_bytes())
    data[100 % len(data)] ^= 1
    metrics.write_bytes(data)
    assert run().is_complete
    assert not (store / "test" / metrics.parent.name).exists()
    assert analysis.test(store) == []
    assert numbers(store) == numbers(finished / "store")


def test_a_file_that_cannot_be_read_is_no_damaged_one(store, run):
    metrics = files_of(store, "metrics")[0]
    metrics.unlink()
    os.mkfifo(metrics)  # Reading it would wait for ever.
    before = content(store)
    with pytest.raises((InputError, StorageError), match="is no regular file"):
        analysis.load(store)
    assert content(store) == before


def test_nothing_is_written_through_a_link(finished, store, run, tmp_path):
    (tmp_path / "others").mkdir()
    shutil.rmtree(store / "logs")
    (store / "logs").symlink_to(tmp_path / "others")
    trial = _guided(finished, store)
    shutil.rmtree(store / "metrics" / trial)
    assert run().is_complete  # A log that cannot be written fails no trial.
    assert not list((tmp_path / "others").iterdir())


def test_a_report_is_not_written_through_a_link(store, tmp_path):
    (tmp_path / "others").mkdir()
    (store / "analysis").symlink_to(tmp_path / "others")
    with pytest.raises(InputError, match=r"analysis is a symbolic link; links inside a store are"):
        analysis.report(store, testing=None)
    assert not list((tmp_path / "others").iterdir())


def test_heat_maps_of_another_layer_are_refused(store):
    path = next(p for p in files_of(store, "heatmaps") if "@final" in p.name)
    shutil.copy(path, path.with_name(path.name.replace("@final", "@input")))
    with pytest.raises((InputError, StorageError), match="holds the rows of"):
        analysis.report(store, testing=None)


def test_a_newer_versions_store_is_neither_damaged_nor_taken_apart(store, mg_sweep):
    right, path = analysis.load(store), files_of(store, "trials")[0]
    path.write_text(path.read_text().replace("{", '{"later": 1,', 1))
    # At its default a later key is no part of the id: this version knows all of the trial.
    assert analysis.load(store).equals(right)
    mg_sweep("verify", store)
    other = path.read_text().replace('"seed": 0', '"seed": 7')
    assert other != path.read_text()
    path.write_text(other)
    before = content(store)
    said = mg_sweep("verify", store, "--repair", code=1).stdout
    assert f"{path.stem}.json: unknown key 'later'" in said
    assert "a newer version of this package wrote it: update the package" in said
    assert content(store) == before
    assert "a newer version" in mg_sweep("status", store, code=2).stderr


def _guided(finished, store):
    return next(iter(sweeps.plan(finished / "sweep.yaml", store=store).grid.guided))
