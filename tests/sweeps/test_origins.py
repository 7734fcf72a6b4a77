"""Sweeps that start from networks that are trained already."""

import argparse

import numpy as np
import pytest
import torch

import analysis
import sweeps
from mg_core.errors import InputError
from mg_core.models import build_model
from mg_core.store import ResultStore
from sweeps.grid import expand
from sweeps.planning import make_plan
from sweeps.spec import differences, load_spec


@pytest.fixture
def short(sweep):
    """Return a sweep of one baseline and one guided trial."""
    sweep["baseline"] = {"batch_size": 8}
    sweep["guided"] |= {"epochs": 1}
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.1}}
    return sweep


def network(num_classes=6):
    torch.manual_seed(5)
    return build_model("vanilla_tiny", num_classes)


def published(**more):
    """What the published code writes: the weights among metrics and its arguments."""
    values = {"F-Score": 0.7, "BB-Loc": np.float64(0.4), "Average-Loss": 0.1, "layer": "Input"}
    return {"model": network().state_dict(), "epochs": 12, **values, "BB-IoU": 0.2, **more}


CONTENTS = {
    "a state dict": lambda: network().state_dict(),
    "of the published code": published,
    "with a namespace": lambda: {
        "state_dict": network().state_dict(),
        "args": argparse.Namespace(),
    },
    "of compiled, parallel training": lambda: {
        "model_state_dict": {
            f"module._orig_mod.{key}": value for key, value in network().state_dict().items()
        }
    },
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_trained_network_is_judged_once_and_guided_from(short, write, tmp_path, kind):
    file = tmp_path / "trained.pt"
    torch.save(CONTENTS[kind](), file)
    short["baseline"]["from"] = str(file)
    store = tmp_path / "runs"
    done = sweeps.run(write(short), store=store, runner="inline")
    assert done.counts()["complete"] == 2
    frame = analysis.load(store)
    (baseline,) = frame[frame["kind"] == "baseline"].to_dict("records")
    assert (baseline["epoch"], baseline["epochs"]) == (0, 0)
    assert baseline["origin"].startswith(f"{file}#sha256=")
    assert baseline["train_loss"] != baseline["train_loss"]
    guided = frame[frame["kind"] == "guided"].set_index("epoch")
    assert list(guided.index) == [0, 1]
    same = ["val_f1", "val_map", "val_bce"]
    assert guided.loc[0, same].tolist() == [baseline[name] for name in same]
    assert set(guided["baseline"]) == {baseline["trial_id"]}
    assert guided["origin"].isna().all()
    # What the store keeps of it is the network itself.
    kept = analysis.load_model(store, baseline["trial_id"]).model.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in network().state_dict().items())


def test_it_has_its_row_in_fronts_tests_and_tables(short, write, tmp_path):
    torch.save(published(), tmp_path / "trained.pt")
    short["baseline"]["from"] = str(tmp_path / "trained.pt")
    store = tmp_path / "runs"
    sweeps.run(write(short), store=store, runner="inline")
    assert analysis.test(store) == []
    table = analysis.tables(store)["baselines"].frame
    assert len(table) == 1
    assert table[["val_f1", "test_f1", "test_epg"]].notna().all(axis=None)
    assert len(analysis.fronts(store)) == 1
    assert analysis.report(store).problems == ()


def test_a_store_gives_its_best_baseline_of_the_same_data_model_and_seed(sweep, write, tmp_path):
    sweep["seed"] = [0, 1]
    sweep["baseline"]["epochs"] = 3
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.1}}
    first = tmp_path / "first"
    sweeps.run(write(sweep), store=first, runner="inline")
    rows = analysis.load(first)
    rows = rows[rows["kind"] == "baseline"]

    sweep["baseline"] = {"from": str(first), "batch_size": 8}
    spec = load_spec(write(sweep), [], str(tmp_path / "second"))
    baselines = {c.seed: c for c in make_plan(spec).grid.baselines.values()}
    progress = ResultStore(str(first)).progress()
    for seed, config in baselines.items():
        own = rows[rows["seed"] == seed].sort_values(["val_f1", "epoch"], ascending=[False, True])
        trial, epoch = own.iloc[0]["trial_id"], own.iloc[0]["epoch"]
        key = progress[trial].checkpoints[epoch]
        assert config.origin == f"{first}/{key}#sha256={progress[trial].digests[key][:16]}"
    done = sweeps.run(spec, runner="inline")
    assert done.counts()["complete"] == 4
    # Guided from the same weights with the same settings, the two sweeps train the same networks.
    for name in ("val_f1", "val_epg", "train_loss"):
        both = [
            frame[frame["kind"] == "guided"].sort_values(["seed", "epoch"])[name].to_numpy()
            for frame in (analysis.load(first), analysis.load(tmp_path / "second"))
        ]
        assert np.array_equal(*both, equal_nan=True)
    # The stored sweep names the very files, so it goes on where the first store is gone.
    again = load_spec(str(tmp_path / "second"), [])
    assert differences(again.model_dump(mode="json"), make_plan(again).spec) == []
    (first / "sweep.yaml").rename(first / "gone.yaml")
    assert make_plan(again).counts()["complete"] == 4


def test_a_trial_of_a_store_by_its_name(short, desk, write, tmp_path):
    frame = analysis.load(desk / "runs" / "demo")
    guided = frame[(frame["kind"] == "guided")]["trial_id"].iloc[0]
    store = desk / "runs" / "demo"
    short["baseline"]["from"] = f"{store}#trial={guided[:8]}"
    (config,) = expand(load_spec(write(short), [])).baselines.values()
    assert f"/checkpoints/{guided}/" in config.origin


@pytest.mark.parametrize("classes", [["ring", "star"], ["star", "ring", "cross"]])
def test_a_trial_of_other_classes_is_refused(short, desk, write, tmp_path, classes):
    short["data"] = {"name": "voc2007", "root": str(tmp_path), "image_size": 24}
    short["data"]["options"] = {"classes": classes}
    short["baseline"] = {"epochs": 1}
    store = ResultStore(str(tmp_path / "other"))
    (trained,) = expand(load_spec(write(short), [])).baselines.values()
    options = {**trained.data.options, "classes": "star,ring"}
    config = trained.model_copy(
        update={"data": trained.data.model_copy(update={"options": options})}
    )
    store.put_trials({config.trial_id: config})
    store.put_spec("name: other\n")
    short["baseline"] = {"from": f"{store.uri}#trial={config.trial_id}"}
    with pytest.raises(InputError, match="are star, ring, those of this sweep are "):
        expand(load_spec(write(short), []))


def test_by_model_and_by_seed(short, write, tmp_path):
    names = [tmp_path / f"{name}.pt" for name in ("a", "b", "c")]
    for number, name in enumerate(names):
        name.write_bytes(bytes([number]))
    short["seed"] = [0, 1]
    short["grid"] |= {"model": ["vanilla_tiny", "xdnn_tiny", "bcos_tiny"]}
    by_seed = {0: str(names[1]), 1: str(names[2])}
    short["baseline"] |= {
        "epochs": 2,
        "from": {"vanilla_tiny": str(names[0]), "xdnn_tiny": by_seed},
    }
    found = {
        (c.model, c.seed): c.origin and c.origin.split("#")[0].split("/")[-1]
        for c in expand(load_spec(write(short), [])).baselines.values()
    }
    assert found == {
        ("vanilla_tiny", 0): "a.pt",
        ("vanilla_tiny", 1): "a.pt",
        ("xdnn_tiny", 0): "b.pt",
        ("xdnn_tiny", 1): "c.pt",
        ("bcos_tiny", 0): None,
        ("bcos_tiny", 1): None,
    }
    stored = load_spec(write(load_spec(write(short), []).to_yaml()), [])
    assert stored.baseline == load_spec(write(short), []).baseline


def test_the_files_content_decides_the_id_and_settings_of_training_do_not(short, write, tmp_path):
    file = tmp_path / "trained.pt"
    short["baseline"]["from"] = str(file)

    def trial_ids(content, *settings):
        file.write_bytes(content)
        return set(expand(load_spec(write(short), settings)).trials)

    first = trial_ids(b"one")
    assert first == trial_ids(b"one", "baseline.learning_rate=0.5", "baseline.epochs=7")
    assert first.isdisjoint(trial_ids(b"two"))


WRONG = {
    "other classes": (
        lambda: network(9).state_dict(),
        "do not fit the data: fc.weight has shape (9, 64), for 9 classes, where (6, 64) is wanted",
    ),
    "another network": (
        lambda: build_model("xdnn_tiny", 6).state_dict(),
        "do not fit model 'vanilla_tiny': the file lacks bn1.weight, bn1.bias, bn1.running_mean",
    ),
    "no head": (
        lambda: {k: v for k, v in network().state_dict().items() if not k.startswith("fc.")},
        "the file lacks fc.weight, fc.bias",
    ),
    "stopped early": (lambda: published(model=None), "its keys are model, epochs, F-Score"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_said_before_anything_trains(short, write, tmp_path, refused, kind):
    content, sentence = WRONG[kind]
    torch.save(content(), tmp_path / "trained.pt")
    short["baseline"]["from"] = "trained.pt"
    said = refused("run", write(short), "--runner", "inline")
    assert sentence in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("from", "nowhere.pt", "there is no file"),
        (
            "from",
            "/dev/zero",
            "/dev/zero is no file but a device or a pipe; name a file of weights",
        ),
        ("from", "..", "is a folder and no result store: it holds no sweep.yaml"),
        ("from", "nowhere#trial=ab", "is not a result store"),
        ("from", {"bcos_tiny": "x.pt"}, "baseline.from: the grid has no model 'bcos_tiny'; choose"),
        ("from", {"vanilla_tiny": {3: "x.pt"}}, "the grid has no seed 3; it has 0"),
        ("learning_rate", 0.1, "baseline: 'epochs' is missing, or 'from' a trained network"),
    ],
)
def test_wrong_places_are_sentences(short, write, refused, key, value, sentence):
    short["baseline"][key] = value
    assert sentence in refused("run", write(short), "--runner", "inline")


def test_a_baseline_that_is_neither_trained_nor_given(short, write):
    short["grid"]["model"] = ["vanilla_tiny", "bcos_tiny"]
    short["baseline"]["from"] = {"vanilla_tiny": "x.pt"}
    with pytest.raises(InputError, match="'epochs' is missing, and 'from' names no network of mod"):
        expand(load_spec(write(short), []))


def test_a_store_without_a_fitting_baseline_says_which_it_has(short, desk, write):
    short["baseline"]["from"] = str(desk / "runs" / "demo")
    with pytest.raises(
        InputError, match="no baseline vanilla_tiny s7 of these data; its baselines"
    ):
        make_plan(load_spec(write(short), ["seed=7"]))
    with pytest.raises(
        InputError, match=r"are vanilla_tiny baseline .*s0, of other data; STORE#trial"
    ):
        make_plan(load_spec(write(short), ["data.image_size=32"]))


def test_weights_beside_it_would_have_no_effect(short, write):
    short["baseline"]["from"], short["weights"] = "x.pt", "y/w.pt"
    with pytest.raises(InputError, match=r"weights: without effect, since baseline\.from names"):
        expand(load_spec(write(short), []))


def test_settings_of_training_that_do_nothing_are_named(short, write, mg_sweep, tmp_path):
    torch.save(network().state_dict(), tmp_path / "trained.pt")
    short["baseline"] |= {"from": "trained.pt", "epochs": 3, "schedule": "cosine"}
    said = "baseline.epochs, baseline.schedule have no effect: baseline.from names networks"
    for command in (["validate"], ["plan"], ["run", "--runner", "inline"]):
        assert said in mg_sweep(command[0], write(short), *command[1:]).stdout
    del short["baseline"]["epochs"], short["baseline"]["schedule"]
    assert "no effect" not in mg_sweep("plan", write(short)).stdout
    resolved = load_spec(write(short), []).to_yaml()  # A stored sweep has all keys.
    assert "no effect" not in mg_sweep("plan", write(resolved)).stdout
    short["baseline"] |= {"epochs": 3, "from": {"vanilla_tiny": "trained.pt"}}
    short["grid"]["model"] = ["vanilla_tiny", "bcos_tiny"]
    assert "no effect" not in mg_sweep("plan", write(short)).stdout


def test_messages_begin_with_the_key_and_nothing_is_judged_before(short, write, mg_sweep, tmp_path):
    short["baseline"]["from"] = "trained.pt"
    file = write(short)
    for content, sentence in ((None, "there is no file"), (b"", "the file is empty")):
        if content is not None:
            (tmp_path / "trained.pt").write_bytes(content)
        found = mg_sweep("run", file, "--runner", "inline", code=2)
        assert found.stderr.startswith("error: baseline.from ")
        assert sentence in found.stderr
        assert "judged once" not in found.stdout


def test_which_file_was_taken_is_said(short, desk, write, mg_sweep):
    short["baseline"]["from"] = str(desk / "runs" / "demo")
    found = mg_sweep("run", write(short), "--runner", "inline")
    origin = f"s0 is {desk / 'runs' / 'demo'}/checkpoints/"
    assert origin in found.stdout
