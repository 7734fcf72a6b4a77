"""Whole sweeps through the command line: real files, real processes, real Ray."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from finished import TIMES

from mg_core.store import ResultStore
from mg_core.store.layout import TEMPORARY

MODEL = """
from mg_core.models import MODELS
from mg_core.models.resnet import TinyResNet

@MODELS.register("broken_tiny")
class Broken(TinyResNet):
    def forward(self, inputs):
        if len(inputs) > 4: raise RuntimeError("a model of the user's own")  # not in a rehearsal
        return super().forward(inputs)
"""

VARIANTS = """
import os, signal
from mg_core.losses import LOSSES
BEGUN = os.path.dirname(__file__) + "/store/attempts"  # Nothing goes wrong where it is rehearsed.
@LOSSES.register("broken")
def broken(attributions, masks):
    if os.path.isdir(BEGUN): raise RuntimeError("a bug of the user's own")
    return attributions.sum((1, 2))
@LOSSES.register("deadly_once")
def deadly_once(attributions, masks):
    marker = os.environ["MARKER"]
    if os.path.isdir(BEGUN) and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return LOSSES["energy"](attributions, masks)

@LOSSES.register("diverging")
def diverging(attributions, masks):
    return LOSSES["energy"](attributions, masks) * (float("nan") if os.path.isdir(BEGUN) else 1)
"""


def table(path):
    return ResultStore(str(path)).rows().drop_columns(TIMES)


def check_clean(path):
    """Assert that a finished store holds what its metrics name, and nothing else."""
    store = ResultStore(str(path))
    progress = store.progress()
    named = set().union(*(p.references for p in progress.values()))
    assert set(store.files.keys("checkpoints")) == named
    assert store.files.keys("metrics") == sorted(store.metrics_keys().values())
    assert not (path / TEMPORARY).exists()
    assert not (path / "lock.json").exists()
    rows = store.rows(["trial_id", "epoch", "attribution", "layer"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    assert store.trial_ids() == progress.keys()
    for trial, config in store.trials().items():
        epochs = {row["epoch"] for row in rows if row["trial_id"] == trial}
        assert epochs == set(range(config.first_epoch, config.epochs + 1))


@pytest.fixture(scope="module")
def undisturbed(small_sweep, command, tmp_path_factory):
    """Run the small sweep in one process that nothing disturbs, and return its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(small_sweep))
    run = [*command, "run", "sweep.yaml", "--runner", "inline"]
    found = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=True)
    assert "9 complete of 9 trials" in found.stdout
    check_clean(folder / "store")
    return folder


def test_the_same_command_again_does_nothing(undisturbed, command):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}
    run = [*command, "run", "sweep.yaml"]
    found = subprocess.run(run, cwd=undisturbed, capture_output=True, text=True, check=True)
    assert "9 trials, 9 complete, 0 to run" in found.stdout
    after = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}
    assert before == after


def test_status_and_plan_agree_on_file_and_store(undisturbed, command):
    def output(*arguments):
        return subprocess.run(
            [*command, *arguments], cwd=undisturbed, capture_output=True, text=True, check=True
        ).stdout

    assert output("status", "store") == output("status", "sweep.yaml")
    assert "9 trials: 9 complete, 0 running, 0 failed, 0 waiting" in output("status", "store")
    assert "9 complete, 0 running, 0 failed, 0 waiting (0 epochs to run)" in output("plan", "store")
    found = json.loads(output("status", "store", "--json"))
    assert {trial["state"] for trial in found["trials"].values()} == {"complete"}


def test_rows_are_what_the_spec_asked_for(undisturbed):
    store = ResultStore(str(undisturbed / "store"))
    rows = store.rows().to_pylist()
    by_kind = {kind: [r for r in rows if r["kind"] == kind] for kind in ("baseline", "guided")}
    assert len(by_kind["baseline"]) == 2
    assert len(by_kind["guided"]) == 8 * 3
    best = max(by_kind["baseline"], key=lambda row: (row["val_f1"], -row["epoch"]))
    for row in by_kind["guided"]:
        assert (row["attribution"], row["layer"]) == (
            row["guided_attribution"],
            row["guided_layer"],
        )
        assert 0 <= row["val_epg"] <= 1
        assert row["val_iou"] == max(row["val_iou_by_threshold"])
        if row["epoch"] == 0:  # the baseline's best checkpoint, before any update
            same = ("val_f1", "val_map", "val_bce", "val_precision", "val_recall")
            assert [row[name] for name in same] == [best[name] for name in same]
            assert row["train_loss"] is None
        else:
            expected = (
                row["train_bce"] + row["localization_weight"] * row["train_localization_loss"]
            )
            assert row["train_loss"] == pytest.approx(expected, rel=1e-4)
            assert row["n_annotated"] == 24


def kill_at_random(arguments, cwd, moments):
    """Start a command again and again, and SIGKILL its whole process group each time."""
    for moment in moments:
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_sigkill_at_random_moments_changes_nothing(undisturbed, mg_sweep, command, tmp_path):
    run = [*command, "run", str(undisturbed / "sweep.yaml"), "--store", "store"]
    moments = np.random.default_rng(1).uniform(3.0, 7.0, size=4)
    kill_at_random([*run, "--runner", "inline"], tmp_path, moments)
    mg_sweep(*run[3:], "--runner", "inline")
    check_clean(tmp_path / "store")
    assert table(tmp_path / "store").equals(table(undisturbed / "store"))


def test_ray_gives_the_same_table_though_its_driver_is_killed(
    undisturbed, mg_sweep, command, tmp_path
):
    # Logical GPUs, two trials sharing each: scheduling is real, the device is not.
    arguments = ["run", undisturbed / "sweep.yaml", "--store", "store", "--num-gpus", "1"]
    arguments += ["--set", "resources={cpu: 1, gpu: 0.5}", "--set", "device=cpu"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    # The first line of progress comes with the baseline's end; then guided trials are running.
    for line in process.stdout:
        if "1 complete" in line:
            break
    process.kill()
    process.wait()
    found = mg_sweep(*arguments)
    assert "9 complete of 9 trials" in found.stdout
    check_clean(tmp_path / "store")
    assert table(tmp_path / "store").equals(table(undisturbed / "store"))


def test_failures_are_classified_recorded_and_contained(sweep, write, mg_sweep, tmp_path):
    (tmp_path / "my_variants.py").write_text(VARIANTS)
    sweep["imports"] = ["my_variants"]
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    sweep["grid"]["loss"] = {"broken": 1, "deadly_once": 0.1, "diverging": 1, "energy": 0.1}
    environment = {"PYTHONPATH": str(tmp_path), "MARKER": str(tmp_path / "marker")}
    found = mg_sweep("run", write(sweep), code=1, **environment)
    assert "3 complete, 2 failed of 5 trials" in found.stdout
    assert "lost and started again" in found.stdout  # the SIGKILLed one, which then completed

    found = json.loads(mg_sweep("status", "store", "--json").stdout)
    failures = {
        t["failure"]["kind"]: t["failure"] for t in found["trials"].values() if t["failure"]
    }
    assert failures.keys() == {"bug", "numerical"}
    assert "a bug of the user's own" in failures["bug"]["traceback"]
    assert failures["bug"]["signature"] == "RuntimeError: a bug of the user's own"
    assert failures["numerical"]["error"].startswith("epoch 1, batch 0: the loss is nan")
    # The very images of that batch, and what the trial had logged until then.
    assert len(set(failures["numerical"]["images"])) == 8
    assert any("epoch 0/2: " in line for line in failures["numerical"]["log"])
    assert found["failures"] == {"bug": 1, "numerical": 1}
    assert "RuntimeError: a bug of the user's own" in mg_sweep("status", "store").stdout
    (broken,) = [t for t, v in found["trials"].items() if v["failure"] == failures["bug"]]
    assert "failed: a bug of the user's own" in mg_sweep("logs", "store", broken[:8]).stdout

    # Failed trials wait to be asked for; the code still says that not all is well.
    found = mg_sweep("run", "sweep.yaml", "--runner", "inline", code=1, **environment)
    assert (
        "2 failed (see mg-sweep status; mg-sweep retry starts them again), 0 to run" in found.stdout
    )
    retried = VARIANTS.replace(
        'raise RuntimeError("a bug of the user\'s own")',
        "return 0 * masks.sum((1, 2)) + attributions.sum((1, 2))",
    ).replace('float("nan")', "1")
    (tmp_path / "my_variants.py").write_text(retried)
    again = ["store", "--runner", "inline", "--accept-code"]
    found = mg_sweep("retry", *again, "--only", "numerical", code=1, **environment)
    assert "4 complete, 1 failed of 5 trials" in found.stdout
    mg_sweep("retry", *again, **environment)
    check_clean(tmp_path / "store")


@pytest.mark.parametrize("runner", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_equal_bugs_stop_a_sweep_early(sweep, write, mg_sweep, tmp_path, runner):
    (tmp_path / "my_variants.py").write_text(VARIANTS)
    sweep["imports"] = ["my_variants"]
    sweep["fail_fast_on"] = 2
    sweep["guided"]["epochs"] = 30
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final"}
    sweep["grid"]["loss"] = {"broken": [1, 2, 3, 4, 5, 6], "energy": 0.1}
    run = ["run", write(sweep), "--runner", runner]
    found = mg_sweep(*run, code=1, PYTHONPATH=str(tmp_path))
    assert "stopped: 2 trials failed in the same way (fail_fast_on)" in found.stdout
    assert "bug: a bug of the user's own" in found.stdout
    ends = [record["how"] for record in ResultStore(str(tmp_path / "store")).attempts().values()]
    assert ends.count("failed") in ({2} if runner == "inline" else {2, 3})
    assert None not in ends
    assert not (tmp_path / "store" / "lock.json").exists()


def test_a_failed_baseline_blocks_its_children_and_ends_the_sweep(sweep, write, mg_sweep, tmp_path):
    (tmp_path / "my_models.py").write_text(MODEL)
    sweep["imports"] = ["my_models"]
    sweep["grid"] |= {"model": "broken_tiny"}
    run = ["run", write(sweep), "--runner", "inline"]
    found = mg_sweep(*run, code=1, PYTHONPATH=str(tmp_path))
    assert "1 failed, 8 waiting of 9 trials" in found.stdout
    assert "bug: a model of the user's own" in found.stdout
    assert found.stdout.count("not started, its baseline is not complete") == 8


def test_ctrl_c_before_any_trial_says_how_to_go_on_too(undisturbed, command, tmp_path):
    run = [*command, "run", str(undisturbed / "sweep.yaml"), "--store", "store"]
    process = subprocess.Popen(
        run, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "0 complete" in process.stdout.readline()  # Ray is not even started
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert not (tmp_path / "store" / "lock.json").exists()


def test_ctrl_c_stops_and_says_how_to_go_on(undisturbed, command, tmp_path):
    run = [
        *command,
        "run",
        str(undisturbed / "sweep.yaml"),
        "--store",
        "store",
        "--runner",
        "inline",
        "--set",
        "guided.epochs=200",  # so that it does not end before it is stopped
    ]
    process = subprocess.Popen(
        run, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    store = ResultStore(str(tmp_path / "store"))
    while len(store.progress()) < 2:  # a guided trial has begun
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130
    assert "the same command goes on from here" in rest
    assert not (tmp_path / "store" / "lock.json").exists()
    ends = [record["how"] for record in store.attempts().values()]
    assert ends.count("interrupted") <= 1
    assert None not in ends


CLOCK = """
import os, time
now, shift = time.time, float(os.environ["CLOCK_SHIFT"])
time.time = lambda: now() + shift
"""


def test_clocks_an_hour_apart_change_nothing(undisturbed, command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    run = [*command, "run", str(undisturbed / "sweep.yaml"), "--store", "store"]
    run += ["--runner", "inline"]
    store = ResultStore(str(tmp_path / "store"))

    def start(shift):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CLOCK_SHIFT": str(shift)}
        return subprocess.Popen(run, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)

    ahead = start(3600)
    while len(store.progress()) < 3:
        time.sleep(0.02)
    ahead.kill()
    ahead.wait()
    assert start(-3600).wait() == 0
    starts = [record["started"] for record in store.attempts().values()]
    assert max(starts) > min(starts)
    check_clean(tmp_path / "store")
    assert table(tmp_path / "store").equals(table(undisturbed / "store"))


JOINED = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
print(cluster.address, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_ctrl_c_on_a_joined_cluster_leaves_no_attempt_open(sweep, write, command, tmp_path):
    cluster = subprocess.Popen([sys.executable, "-c", JOINED], stdout=subprocess.PIPE, text=True)
    try:
        address = cluster.stdout.readline().strip()
        sweep["guided"]["epochs"] = 500
        run = [*command, "run", str(write(sweep)), "--address", address]
        process = subprocess.Popen(
            run, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        store = ResultStore(str(tmp_path / "store"))
        while sum(p.epochs == 500 for p in store.progress().values()) < 2:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait() == 130
        assert "the same command goes on from here" in said
        ends = [record["how"] for record in store.attempts().values()]
        assert ends.count("interrupted") >= 2
        assert None not in ends
    finally:
        cluster.terminate()
        cluster.wait()


def test_a_request_that_can_never_be_met_is_refused(sweep, write, refused, tmp_path):
    settings = ["--set", "resources.gpu=1", "--set", "resources.cpu=0.5"]
    said = refused("run", write(sweep), *settings, "--num-gpus", "0")
    assert "a trial asks for 1 GPUs where the largest node has 0" in said
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.yaml"], "sweep file 'nowhere.yaml' cannot be read"),
        (["run", "sweep.yaml", "--set", "guided.epochs=-1"], "should be greater than 0, not -1"),
        (
            ["run", "sweep.yaml", "--set", "grid.model=resnet"],
            "unknown model 'resnet' (did",
        ),
        (
            ["run", "sweep.yaml", "--runner", "slurm"],
            "unknown runner 'slurm'; choose from ray, inl",
        ),
        (["run", "sweep.yaml", "--store", "/proc/store"], "cannot be written"),
        (["run", "sweep.yaml", "--stoer", "x"], "No such option"),
        (["run", "sweep.yaml", "--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
        (["run", "sweep.yaml", "--store", ""], "store: string should have at least 1 character"),
        (
            ["run", "sweep.yaml", "--set", "data={name: voc2007, root: nowhere}"],
            "nowhere does not exist",
        ),
        (["run", "sweep.yaml", "--set", "resources.gpu=1.5"], "a share of one device or whole"),
        (["run", "sweep.yaml", "--set", "imports=[.x]"], "module '.x' cannot be imported"),
        (["run", "sweep.yaml", "--set", "weights=imagenet"], "has no weights called 'imagenet'"),
        (["run", "sweep.yaml", "--set", "weights={a: b}"], "the grid has no model 'a'"),
        (["run", "sweep.yaml", "--set", "seed=100000000000000000000"], "should be less than"),
        (["retry", "sweep.yaml", "--only", "oom"], "unknown kind of failure 'oom'; choose from lo"),
        (["run", "sweep.yaml", "--set", "tracking=wandb"], "should be 'mlflow' or 'tensorboard'"),
        (["logs", "nowhere", "x"], "is not a result store"),
        (["rm", "nowhere"], "is not a result store"),
        (["watch", "nowhere"], "is not a result store"),
        (["status", "nowhere"], "is not a result store"),
        (["validate", "sweep.yaml", "--set", "seed=[0, 0]"], "the value 0 stands twice"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    sweep, write, refused, tmp_path, arguments, sentence
):
    write(sweep)
    assert sentence in refused(*arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]
