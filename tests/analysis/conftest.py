"""Stores with made-up results, written as a sweep writes them."""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from analysis.cli import app
from mg_core.cli import run
from mg_core.config import DataConfig, EvaluationPair, GuidanceConfig, TrialConfig
from mg_core.store import ResultStore
from mg_core.store.attempt import kept_epochs
from mg_core.store.progress import FOOTER, Progress
from mg_core.store.tables import METRICS, config_columns, to_parquet

WEIGHTS = {
    "energy": (5e-4, 1e-3, 5e-3),
    "l1": (1e-3, 5e-3, 1e-2),
    "ppce": (1e-4, 5e-4, 1e-3),
    "rrr": (5e-6, 1e-5, 5e-5),
}
EPG_GAIN = {"energy": 1.0, "l1": 0.75, "ppce": 0.3, "rrr": 0.55}
IOU_GAIN = {"energy": 0.5, "l1": 1.0, "ppce": 0.45, "rrr": 0.3}
DEMO = DataConfig(name="shapes", image_size=64, horizontal_flip=False, options={"train": 100})


def baseline_config(
    model: str = "vanilla_tiny", seed: int = 0, epochs: int = 3, data: DataConfig = DEMO
) -> TrialConfig:
    return TrialConfig(
        numerics=1,
        data=data,
        model=model,
        weights=None,
        seed=seed,
        epochs=epochs,
        learning_rate=1e-3,
        batch_size=64,
        precision="fp32",
        baseline=None,
        guidance=None,
        evaluate=(),
    )


def guided_config(
    baseline: TrialConfig, attribution: str, layer: str, loss: str, weight: float, **changes: Any
) -> TrialConfig:
    own = {"epochs", "evaluate", "learning_rate", "batch_size"}
    guidance = {
        "attribution": attribution,
        "layer": layer,
        "loss": loss,
        "localization_weight": weight,
        "reduction": "sum",
        "annotated_fraction": 1.0,
        "box_dilation": 0.0,
        "task": None,
    } | {name: value for name, value in changes.items() if name not in own}
    pair = EvaluationPair(attribution=attribution, layer=layer)
    update = {
        "epochs": 4,
        "evaluate": (pair,),
        "baseline": baseline.trial_id,
        "guidance": GuidanceConfig(**guidance),
    } | {name: value for name, value in changes.items() if name in own}
    return baseline.model_copy(update=update)


def grid(
    models: dict[str, Sequence[str]],
    layers: Sequence[str] = ("input", "final"),
    losses: Sequence[str] = ("energy", "l1"),
    seeds: Sequence[int] = (0,),
    **changes: Any,
) -> list[TrialConfig]:
    """Baselines and guided trials of a product; `models` maps each to its attributions."""
    data = changes.pop("data", DEMO)
    found = []
    for model, seed in itertools.product(models, seeds):
        baseline = baseline_config(model, seed, data=data)
        found.append(baseline)
        for attribution, layer, loss in itertools.product(models[model], layers, losses):
            found += [
                guided_config(baseline, attribution, layer, loss, weight, **changes)
                for weight in WEIGHTS[loss]
            ]
    return found


def made_up_rows(config: TrialConfig, epochs: int | None = None) -> list[dict[str, Any]]:
    """Rows of a trial that look like the study's: localisation rises, F1 falls with λ."""
    common = config_columns(config) | {"attempt": 1}
    family = config.model.split("_")[0]
    start = {"vanilla": 0.72, "xdnn": 0.71, "bcos": 0.80}[family] + 0.002 * config.seed
    last = config.epochs if epochs is None else epochs
    if config.guidance is None:
        return [
            common | {"epoch": e} | _classification("val", start - 0.1 / e - 0.0001)
            for e in range(1, last + 1)
        ]
    g = config.guidance
    strength = WEIGHTS[g.loss].index(g.localization_weight) + 1
    rng = np.random.default_rng(int(config.trial_id, 16))
    rows = []
    for epoch, pair in itertools.product(range(last + 1), config.evaluate):
        depth = 1.0 if pair.layer == "final" else 0.45 if family != "bcos" else 1.1
        here = 1.0 if (pair.attribution, pair.layer) == (g.attribution, g.layer) else 0.6
        time = 1 - np.exp(-3 * epoch / config.epochs)
        gain = here * depth * time * strength / 3
        noise = rng.normal(0, 0.004, 3) if epoch else np.zeros(3)
        cost = 0.06 * gain * strength / 3 * (1.6 - EPG_GAIN[g.loss]) / depth
        f1 = start + (0.02 if family == "xdnn" else 0.0) * time - cost + noise[0]
        epg = 0.25 + 0.03 * (pair.layer == "final") + 0.35 * EPG_GAIN[g.loss] * gain + noise[1]
        iou = 0.12 + 0.05 * (pair.layer == "final") + 0.18 * IOU_GAIN[g.loss] * gain + noise[2]
        rows.append(
            common
            | {"epoch": epoch, "attribution": pair.attribution, "layer": pair.layer}
            | _classification("val", f1)
            | localization_columns("val", epg, iou)
            | {"seconds_train": 1.0, "seconds_val": 0.5, "seconds_step": 0.01}
        )
    return rows


def _classification(split: str, f1: float) -> dict[str, Any]:
    values = {"f1": f1, "precision": f1, "recall": f1, "map": f1 + 0.02, "bce": 0.2}
    values["macro_f1"] = f1 - 0.03
    values |= {"n_images": 100, "n_classes_without_positives": 0}
    return {f"{split}_{name}": float(value) for name, value in values.items()}


def localization_columns(split: str, epg: float, iou: float) -> dict[str, Any]:
    values: dict[str, Any] = {"epg": epg, "iou": iou, "iou_threshold": 0.1, "iou_at_0.5": 0.1}
    values |= {"pointing_game": 0.8 * epg}
    values |= {"iou_by_threshold": [iou, 0.1], "n_pairs": 150, "n_without_energy": 0}
    values |= {"n_empty_mask": 0, "box_area": 0.2, "on_object": None, "n_on_object": 0}
    return {f"{split}_{name}": value for name, value in values.items()}


def made_up_tests(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test rows for validation rows: the same numbers a little lower, in another order."""
    tests = []
    for row in rows:
        rng = np.random.default_rng([int(row["trial_id"], 16), row["epoch"]])
        test = {name: row.get(name) for name in ("trial_id", "epoch", "attribution", "layer")}
        for name, value in row.items():
            if name.startswith("val_"):
                test["test_" + name.removeprefix("val_")] = value
        shift = rng.normal(-0.01, 0.003, 3) if row["epoch"] else np.full(3, -0.01)
        if test.get("test_epg") is not None:
            test |= made_up_breakdown(test["test_epg"])
        for name, by in zip(("f1", "epg", "iou"), shift, strict=True):
            if test.get(f"test_{name}") is not None:
                test[f"test_{name}"] += by
        tests.append(test)
    return tests


def made_up_breakdown(epg: float) -> dict[str, Any]:
    """What is measured on test alone, for a checkpoint with this EPG; no box is of the last bin."""
    return {
        "test_epg_by_class": [epg + 0.01 * (k - 2.5) for k in range(6)],
        "test_epg_by_box_size": [*(epg * (0.5 + 0.1 * bin_) for bin_ in range(5)), math.nan],
        "test_deletion": 0.6 - epg / 2,
        "test_insertion": 0.3 + epg / 2,
        "test_n_perturbed": 90,
    }


def write_trial(
    store: ResultStore, config: TrialConfig, rows: Sequence[dict[str, Any]], **progress: Any
) -> None:
    """Write a trial's configuration and its metrics file."""
    store.put_trials({config.trial_id: config})
    if not rows:
        return
    table = pa.Table.from_pylist(list(rows), schema=METRICS)
    kept = {
        epoch: f"checkpoints/{config.trial_id}/{epoch}"
        for epoch in kept_epochs(table, ("f1", "epg", "iou"))
    }
    footer = Progress(
        config.trial_id,
        "0001-00000000",
        rows[-1]["epoch"],
        config.epochs,
        **({"checkpoints": kept} | progress),
    )
    table = table.replace_schema_metadata({FOOTER: footer.footer()})
    store.put(f"metrics/{config.trial_id}/0001-00000000.parquet", to_parquet(table))


def write_sweep(
    folder: Path, configs: Sequence[TrialConfig], tested: bool = True, epochs: int | None = None
) -> ResultStore:
    """Write a store with made-up results; with `epochs`, of trials that are still running."""
    store = ResultStore(str(folder))
    store.put_spec(yaml.safe_dump({"objectives": ["f1", "epg", "iou"]}))
    for config in configs:
        rows = made_up_rows(config, epochs)
        write_trial(store, config, rows)
        for row in made_up_tests(rows) if tested else []:
            store.put_test(config.trial_id, row["epoch"], [row])
    return store


@pytest.fixture(scope="session")
def sweep() -> Callable[..., ResultStore]:
    """Write a sweep's store: `sweep(folder, configs, tested=True, epochs=None)`."""
    return write_sweep


@pytest.fixture(scope="session")
def make_grid() -> Callable[..., list[TrialConfig]]:
    return grid


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    """One model, two attributions, two layers, two losses, three λ: 24 + 1 trials."""
    configs = grid({"vanilla_tiny": ("ixg", "gradcam")})
    return write_sweep(tmp_path_factory.mktemp("demo"), configs)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    """A store that real trials wrote: one baseline, four guided trials judged at two layers.

    A front over EPG alone has one point, so that most checkpoints are not selected.
    """
    from mg_core.config import Runtime
    from mg_core.training.execution import run_trial

    options = {"train": 40, "val": 20, "test": 20, "size": 32, "classes": 3}
    data = DataConfig(name="shapes", image_size=32, horizontal_flip=False, options=options)
    store = ResultStore(str(tmp_path_factory.mktemp("trained")))
    store.put_spec(
        yaml.safe_dump({"name": "small", "objectives": ["epg"], "data": {"name": "shapes"}})
    )
    baseline = baseline_config(epochs=1, data=data).model_copy(update={"batch_size": 20})
    pairs = tuple(EvaluationPair(attribution="ixg", layer=layer) for layer in ("final", "input"))
    guided = [
        guided_config(
            baseline, "ixg", "final", loss, weight, epochs=3, evaluate=pairs, reduction="mean"
        )
        for loss in ("energy", "l1")
        for weight in (0.1, 1.0)
    ]
    for config in (baseline, *guided):
        store.put_trials({config.trial_id: config})
        *_, outcome = run_trial(config, Runtime(store=store.uri, objectives=("epg",)))
        assert outcome.state == "complete", outcome.error
    return store


@pytest.fixture
def untested(trained: ResultStore, tmp_path: Path) -> ResultStore:
    """A copy of the trained store that a test may change."""
    copy = tmp_path / "store"
    shutil.copytree(trained.uri, copy)
    return ResultStore(str(copy))


@pytest.fixture
def mg_analysis(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process, warnings being errors; return its code and output."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mg-analysis", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(SystemExit) as left:
                run(app)
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return command
