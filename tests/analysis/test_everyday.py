"""Odd numbers, any objectives, few results, a store that changes: a sentence, no warning."""

import itertools
import json
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import analysis
from analysis.claims import FINDINGS, judge, to_json
from analysis.claims.bootstrap import Interval
from analysis.claims.verdict import Condition, Finding
from analysis.frame import as_csv
from analysis.page.explorer import embedded, explorer_data
from analysis.pipeline import read
from analysis.plots import drawings, render
from analysis.plots.tradeoff import OF_METRIC
from analysis.results import read_results
from analysis.tabular.study import tables
from mg_core.columns import OBJECTIVES
from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.progress import FOOTER
from mg_core.store.tables import to_parquet

ONE = {"layers": ("final",), "losses": ("energy",)}
COMMANDS = ("fronts", "test", "tables", "findings", "figures", "report")


def changed(store, change):
    """Give the rows of each metrics file to `change`, and write what it returns."""
    for trial, key in store.metrics_keys().items():
        table, progress = store.read_rows(trial)
        rows = pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema)
        store.put(key, to_parquet(rows.replace_schema_metadata({FOOTER: progress.footer()})))


def with_values(**values):
    return lambda rows: [
        row | {name: value for name, value in values.items() if row[name] is not None}
        for row in rows
    ]


# Numbers that are not finite


def test_infinite_values_are_left_out_and_counted(sweep, make_grid, mg_analysis, tmp_path):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy", "l1"))
    plain = sweep(tmp_path / "plain", configs)
    right = {table.name: table.frame for table in tables(read(plain))}
    store = sweep(tmp_path / "odd", configs)
    guided = sorted(c.trial_id for c in configs if c.guidance)[0]

    def worst(rows):
        return [
            row | ({"val_epg": float("inf"), "val_f1": float("-inf")} if extra else {})
            for row in rows
            for extra in ([row["trial_id"] == guided and row["epoch"] == 1])
        ]

    changed(store, worst)
    results = read(store)
    assert results.n_infinite == 2
    assert np.isfinite(results.selected["val_epg"]).all()
    volumes = {table.name: table.frame for table in tables(results)}["volumes"]
    assert np.isfinite(volumes["hypervolume_mean"]).all()
    assert volumes["hypervolume_mean"].sum() <= right["volumes"]["hypervolume_mean"].sum() + 1e-9
    sentence = "values of metrics that are infinite count as missing: 2"
    for command in ("fronts", "test", "tables", "findings", "report"):
        code, out, err = mg_analysis(command, store.uri)
        assert code == (1 if command == "test" else 0)  # Its weights do not exist.
        assert sentence in (out if command in ("test", "report") else err), command
    assert sentence in (tmp_path / "odd" / "analysis" / "report.html").read_text(encoding="utf-8")


def test_findings_are_valid_json_whatever_they_found():
    odd = Interval(float("nan"), float("-inf"), float("inf"), 1, 2)
    detail = pd.DataFrame({"loss": ["l1"], "epg": [float("inf")]})
    finding = Finding("R0", "c", "p", "fig5", "m", (Condition("s", odd),), detail)
    (found,) = json.loads(to_json([finding]), parse_constant=pytest.fail)
    assert (
        found["conditions"][0] | {"value": None, "low": None, "high": None, "n_units": 2}
        == (found["conditions"][0])
    )
    assert found["detail"] == [{"loss": "l1", "epg": None}]


def test_published_tables_with_infinite_values_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("F1\n0.5\ninf\n")
    (tmp_path / "m.yaml").write_text(
        "name: x\nfiles: t.csv\ncolumns: {test_f1: F1}\n"
        "values: {model: a, attribution: b, layer: c, dataset: d}\n"
    )
    with pytest.raises(InputError, match="'test_f1' holds infinite values"):
        read(str(tmp_path / "m.yaml"))


# Objectives


@pytest.fixture(scope="module")
def few(sweep, make_grid, tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("few"), make_grid({"vanilla_tiny": ("ixg",)}, **ONE))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_alone_reaches_the_page(few, mg_analysis, tmp_path, name):
    options = ["--objectives", name, "--no-test", "--out", tmp_path]
    code, _, err = mg_analysis("report", few.uri, *options)
    assert (code, err) == (0, "")
    listing = pd.read_csv(tmp_path / "tables" / "fronts.csv")
    rows = read_results(few).rows.query("kind == 'guided' and epoch > 0")
    assert (listing[f"val_{name}"] == rows[f"val_{name}"].max()).all()
    assert (tmp_path / "figures" / "fig5.png").exists()


@pytest.mark.parametrize("names", list(itertools.combinations(OBJECTIVES, 2)), ids=",".join)
def test_every_pair_of_objectives_has_tables_findings_and_figures(few, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = read(few, names)
        found = {table.name: table.frame for table in tables(results)}
        assert len(found["best"]) == 2
        for name in names:
            assert found["fronts"][f"val_{name}"].max() == found["best"][f"val_{name}"].max()
        assert len(judge(results)) == len(FINDINGS)
        drawn = {drawing.name for drawing in drawings(results)}
        assert {"fig4", "fig5", "fig6", *set(names).intersection(OF_METRIC)} <= drawn
        json.loads(embedded(explorer_data(results)), parse_constant=pytest.fail)


# Few results


STATES = {
    "no positives in validation": with_values(
        val_f1=0.0, val_map=float("nan"), val_epg=float("nan"), val_iou=float("nan")
    ),
    "constant metrics": with_values(val_f1=0.5, val_epg=0.25, val_iou=0.125, val_map=0.5),
    "metrics of zero": with_values(val_f1=0.0, val_epg=0.0, val_iou=0.0, val_map=0.0),
    "one epoch": lambda rows: rows,
    "one trial": lambda rows: rows,
    "only baselines": lambda rows: rows,
    "untested": lambda rows: rows,
    "failed": lambda rows: rows,
    "nothing": lambda rows: rows,
}


@pytest.fixture(params=STATES)
def state(request, sweep, make_grid, tmp_path):
    name = request.param
    epochs = {"epochs": 1} if name == "one epoch" else {}
    configs = make_grid({"vanilla_tiny": ("ixg",)}, **ONE, **epochs)
    if name == "only baselines":
        configs = [config for config in configs if config.guidance is None]
    configs = {"one trial": configs[:2], "nothing": []}.get(name, configs)
    store = sweep(tmp_path, [] if name == "failed" else configs, tested=name != "untested")
    changed(store, STATES[name])
    if name == "failed":
        store.put_trials({config.trial_id: config for config in configs})
        for config in configs:
            record = {"trial_id": config.trial_id, "attempt": 1, "nonce": "00000000", "run": ""}
            record |= {"how": "failed", "kind": "bug", "error": "caf\udce9"}
            key = f"attempts/{config.trial_id}/0001-00000000.json"
            store.put(key, json.dumps(record).encode())
    return name, store


def test_every_command_says_what_there_is(state, mg_analysis):
    name, store = state
    options = {"figures": ["--only", "fig5", "--only", "fig8"]}
    said = {name: mg_analysis(name, store.uri, *options.get(name, [])) for name in COMMANDS}
    nothing_chosen = name == "no positives in validation"
    is_unguided = name in ("only baselines", "failed", "nothing")
    for command, (code, out, err) in said.items():
        # The weights of made-up trials do not exist.
        is_missing = command == "test" and not is_unguided
        assert code == is_missing, (command, err)
        assert out
        if nothing_chosen:
            assert "no checkpoint is selected: none of the " in err, command
    assert is_unguided == ("no guided trial has committed an epoch" in said["test"][1])
    assert is_unguided == ("nothing to draw: no guided trial" in said["figures"][1])
    page = (Path(store.uri) / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "nan" not in page.partition("<script")[0].partition("</style>")[2].split()
    assert nothing_chosen == ("no checkpoint is selected" in page)
    if name == "failed":
        assert "caf\\udce9" in page


# Files that come and go


def test_reading_goes_on_while_a_sweep_commits(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    rights = as_csv(read_results(store).selected.drop(columns="attempt"))
    found = {t: store.read_rows(t) for t in store.metrics_keys()}
    is_over = threading.Event()

    def commit():
        number = 1
        while not is_over.is_set():
            number += 1
            for trial, (table, progress) in found.items():
                footer = replace(progress, attempt=f"{number:04d}-00000000").footer()
                data = to_parquet(table.replace_schema_metadata({FOOTER: footer}))
                record = {"trial_id": trial, "attempt": number, "nonce": "00000000", "run": ""}
                for folder, ending in (("attempts", "json"), ("metrics", "parquet")):
                    key = f"{folder}/{trial}/{number:04d}-00000000.{ending}"
                    content = data if folder == "metrics" else json.dumps(record | {"how": None})
                    store.put(key, content if folder == "metrics" else content.encode())
                    store.files.delete([key.replace(f"{number:04d}-", f"{number - 1:04d}-")])

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for _ in range(30):
            read_again = read_results(ResultStore(store.uri))
            assert as_csv(read_again.selected.drop(columns="attempt")) == rights
    finally:
        is_over.set()
        thread.join()


def test_a_trial_that_is_set_aside_meanwhile_is_left_out(sweep, make_grid, tmp_path, monkeypatch):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    trial, key = list(store.metrics_keys().items())[-1]
    rows = ResultStore.rows

    def then_gone(self, *arguments):
        found = rows(self, *arguments)
        self.files.delete([key])
        return found

    monkeypatch.setattr(ResultStore, "rows", then_gone)
    results = read_results(store)
    assert trial not in set(results.rows["trial_id"])
    assert analysis.report(results, tmp_path / "out", testing=None).path.exists()


def test_figures_whose_names_differ_in_punctuation_are_different_files(few):
    results = read_results(few)
    first = results.rows.assign(dataset="a b")
    rows = pd.concat([first, first.assign(dataset="a?b", trial_id="x" + first["trial_id"])])
    both = replace(results, rows=rows.reset_index(drop=True))
    names = [drawing.name for drawing in drawings(both, ["fig5"])]
    assert len(names) == len(set(names))
    assert all(render(drawing, ["png"]) for drawing in drawings(both, ["fig4"]))
