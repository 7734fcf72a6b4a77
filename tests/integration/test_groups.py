"""Sweeps on data sets with shortcuts, from files to tested rows, tables and figures."""

from __future__ import annotations

import pytest

import analysis
import sweeps
from analysis.plots import drawings
from analysis.results import read_results
from analysis.tabular.groups import group_tables
from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import load_spec

STAGE = {
    "epochs": 1, "learning_rate": 1e-3, "batch_size": 16, "classification_loss": "cross_entropy"
}  # fmt: skip
OPTIONS = {"train": 32, "val": 16, "test": 48, "size": 24, "classes": 3}


def test_a_sweep_of_the_decoy_set_runs_to_table_and_figures(sweep, write, tmp_path):
    sweep["data"] = {"name": "decoy", "image_size": 24, "options": OPTIONS}
    sweep["grid"] = {
        "model": "vanilla_tiny", "attribution": "ixg", "layer": "input", "loss": {"energy": 0.01}
    }  # fmt: skip
    sweep["baseline"] = STAGE
    sweep["guided"] = STAGE
    store = tmp_path / "store"
    sweeps.run(write(sweep), store=store, runner="inline")
    assert analysis.test(store) == []
    results = read_results(store)
    (table,) = group_tables(results)
    assert {"patch lies", "patch tells", "worst group", "overall"} <= set(table.frame)
    tested = results.tests.iloc[0]
    assert list(tested["test_groups"]) == ["patch lies", "patch tells"]
    assert sum(tested["test_n_by_group"]) == 48
    names = [drawing.name for drawing in drawings(results, ["fig13", "groups"])]
    assert names == ["fig13", "groups"]


def test_the_tasks_of_a_table_are_known_to_the_grid(sweep, write, tmp_path):
    options = {"groups": ["y", "place"], "tasks": ["y", "place"], "outside": "place"}
    sweep["data"] = {"name": "csv", "root": str(tmp_path), "options": options}
    sweep["grid"]["task"] = ["y", "place"]
    guided = expand(load_spec(write(sweep), [])).guided.values()
    assert {config.guidance.task for config in guided if config.guidance} == {"y", "place"}
    sweep["grid"]["task"] = "sky"
    with pytest.raises(InputError, match="data set csv has no task 'sky'; choose from y, place"):
        expand(load_spec(write(sweep), []))


@pytest.mark.slow
def test_guidance_frees_the_network_from_the_patch(repository, tmp_path):
    store = tmp_path / "store"
    sweeps.run(repository / "sweeps" / "decoy.yaml", store=store, runner="inline")
    assert analysis.test(store) == []
    tested = read_results(store).tested
    tested = tested.assign(lies=[values[0] for values in tested["test_accuracy_by_group"]])
    start = tested[tested["is_reference"]].iloc[0]
    guided = tested[~tested["is_reference"] & (tested["loss"] == "energy")]
    chosen = guided.nlargest(1, "val_epg").iloc[0]
    assert start["val_accuracy"] > start["test_accuracy"] + 0.2, "it looks at the patch"
    assert chosen["lies"] > start["lies"] + 0.1
