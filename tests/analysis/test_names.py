"""Odd names and damaged files: text stays text, and a sentence names the file."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import analysis
from analysis.frame import as_csv
from analysis.page.explorer import explorer_data
from analysis.results import read_results
from analysis.tabular.formats import Table, to_html, to_latex, to_markdown
from mg_core.errors import InputError
from mg_core.store.progress import FOOTER
from mg_core.store.tables import HEATMAPS, to_parquet

ONE = {"layers": ("final",), "losses": ("energy",)}
COMMANDS = ("fronts", "test", "tables", "findings", "figures", "report")


# Spreadsheets


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1"])
def test_a_formula_is_written_as_text(text):
    frame = pd.DataFrame({"class": [text, "cat"], "=f1": [-0.5, 1e-30]})
    found = pd.read_csv(io.StringIO(as_csv(frame)))
    assert found.columns.tolist() == ["class", "'=f1"]
    assert found["class"].tolist() == ["'" + text, "cat"]
    assert found["'=f1"].tolist() == [-0.5, 1e-30]


def test_numbers_and_ordinary_text_are_written_as_pandas_writes_them():
    frame = pd.DataFrame(
        {
            "text": pd.array(["ixg", None, "a,b"], dtype="string"),
            "mixed": np.array([1, -2.5, None], dtype=object),
            "written number": ["-1.5", "+3e-4", "-.5"],
            "count": pd.array([1, None, -3], dtype="Int64"),
            "value": [float("-inf"), float("nan"), -0.1],
            "flag": [True, False, True],
        }
    )
    assert as_csv(frame) == frame.to_csv(index=False)


def test_control_characters_do_not_break_rows():
    found = pd.read_csv(io.StringIO(as_csv(pd.DataFrame({"image": ["a\rb\0c", "\r=1"]}))))
    assert found["image"].tolist() == ["a␍b␀c", "␍=1"]


def test_every_csv_file_is_safe(demo, tmp_path):
    results = read_results(demo)
    model = "=HYPERLINK(1)"
    rows = results.rows.assign(model=model)
    trials = {k: c.model_copy(update={"model": model}) for k, c in results.trials.items()}
    found = analysis.report(replace(results, rows=rows, trials=trials), tmp_path, testing=None)
    files = sorted(tmp_path.rglob("*.csv"))
    assert {"best.csv", "fronts.csv", "fig4.csv", "fig5.csv"} <= {file.name for file in files}
    for file in files:
        frame = pd.read_csv(file)
        if "model" in frame:
            assert set(frame["model"]) <= {"'" + model}, file
    assert found.path.exists()


# Names


SPECIAL = "<b>&\"'|*_[x](y)`$\\x^{1}$#%~\n\x1b[31m\u202e猫"


def test_names_are_text_in_every_format():
    table = Table("names", "Names.", pd.DataFrame({"class": [SPECIAL], "f1": [0.5]}))
    (header, rule, row) = to_markdown(table).splitlines()[2:]
    assert header == "| class | f1 |"
    assert rule == "| --- | ---: |"
    assert row == (
        "| \\<b\\>\\&\"'\\|\\*\\_\\[x\\](y)\\`\\$\\\\x^{1}\\$#%\\~ ␛\\[31m\ufffd猫 | 0.5 |"
    )
    (cells,) = [line for line in to_latex(table).splitlines() if line.endswith(r"0.5 \\")]
    assert cells.startswith(r"\textless{}b\textgreater{}\&" + "\"'" + r"\textbar{}{*}\_{[}x](y)`\$")
    assert r"\$\textbackslash{}x\textasciicircum{}\{1\}\$\#\%\textasciitilde{}" in cells

    class Cells(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.data = [], []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)

        def handle_data(self, data):
            self.data.append(data)

    page = Cells()
    page.feed(to_html(table))
    assert "b" not in page.tags
    assert SPECIAL.replace("\n", " ").replace("\x1b", "␛").replace("\u202e", "\ufffd") in page.data
    assert to_markdown(Table("t", "T.", pd.DataFrame({"model": ["bcos_x_y"]}))).count("\\") == 0


def with_maps(store, **changes):
    """Write heat maps of every selected checkpoint; return the key of one of them."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(buffer, "JPEG")
    results = read_results(store)
    for row in results.selected.itertuples():
        trial, epoch = results.heatmaps.checkpoint(row.trial_id, row.epoch)
        common = {"trial_id": trial, "epoch": epoch, "attribution": row.attribution}
        own = {"layer": row.layer, "task": None, "image": SPECIAL, "class_name": SPECIAL}
        seen = {"probability": 0.5, "prediction": SPECIAL, "size": 8, "boxes": [1.0, 1.0, 4.0, 4.0]}
        map_ = np.full((8, 8), 0.5, dtype="<f2").tobytes()
        maps = {"map": map_, "picture": buffer.getvalue()} | changes
        table = pa.Table.from_pylist([common | own | seen | maps], schema=HEATMAPS)
        key = f"heatmaps/{trial}/{epoch:04d}-{row.attribution}@{row.layer}.parquet"
        store.put(key, to_parquet(table))
    return key


def test_a_report_shows_odd_names_as_they_are(sweep, make_grid, mg_analysis, tmp_path):
    folder = tmp_path / "<i>a&b\udcff"
    store = sweep(folder, make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    with_maps(store)
    code, _, err = mg_analysis("report", folder, "--no-test")
    assert (code, err) == (0, "")
    text = (folder / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Guidance sweep &lt;i&gt;a&amp;b\\udcff" in text
    assert "<i>a" not in text
    assert "&lt;b&gt;&amp;" in text  # A class name, in what describes a figure.
    assert "<b>&" not in text
    start = text.index('id="explorer-data">') + len('id="explorer-data">')
    assert json.loads(text[start : text.index("</script>", start)])["name"] == "<i>a&b\udcff"
    assert (folder / "analysis" / "figures" / "fig2.png").stat().st_size > 0


# Damaged files


@pytest.mark.parametrize(
    "damage",
    [
        {"map": b"123"},
        {"map": np.full((8, 8), np.nan, dtype="<f2").tobytes()},
        {"map": None},
        {"size": 0, "map": b""},
        {"size": -8},
        {"size": 4},
        {"boxes": [1.0, 2.0]},
        {"boxes": None},
        {"picture": b"\xff\xd8\xff no picture"},
        {"picture": b""},
        {"probability": None},
    ],
    ids=str,
)
def test_damaged_heat_maps_are_a_sentence(sweep, make_grid, mg_analysis, tmp_path, damage):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE)[:2])
    with_maps(store, **damage)
    code, _, err = mg_analysis("report", tmp_path, "--no-test")
    assert code == 2
    assert err.startswith("error: heatmaps/"), err
    assert "remove this file, and `mg-analysis test` makes them again" in err
    assert len(err.splitlines()) == 1


def test_heat_maps_without_a_column_are_a_sentence(sweep, make_grid, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE)[:2])
    key = with_maps(store)
    table = pq.read_table(tmp_path / key).drop_columns(["picture"])
    store.put(key, to_parquet(table))
    with pytest.raises(InputError, match=r"cannot be shown \('picture'\)"):
        explorer_data(read_results(store))


def test_a_footer_without_progress_is_a_sentence(sweep, make_grid, mg_analysis, tmp_path):
    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    trial, key = next(iter(store.metrics_keys().items()))
    rows, _ = store.read_rows(trial)
    store.put(key, to_parquet(rows.replace_schema_metadata({})))
    for command in COMMANDS:
        code, _, err = mg_analysis(command, tmp_path)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert key in err


def test_a_checkpoint_of_another_model_is_a_sentence(untested, mg_analysis):
    import torch
    from safetensors.torch import save

    results = read_results(untested)
    row = results.selected.query("epoch > 0").iloc[0]
    trial, epoch = row["trial_id"], int(row["epoch"])
    key = results.progress[trial].checkpoints[epoch]
    table, progress = untested.read_rows(trial)
    untested.put(key, save({"fc.weight": torch.zeros(2, 2)}))
    footer = replace(progress, digests={}).footer()
    metrics = untested.metrics_keys(trial)[trial]
    untested.put(metrics, to_parquet(table.replace_schema_metadata({FOOTER: footer})))
    code, _, err = mg_analysis("test", untested.uri)
    assert code == 1
    assert f"not tested: checkpoint {key} does not fit its model" in err
    with pytest.raises(InputError, match=f"checkpoint {key} does not fit vanilla_tiny"):
        analysis.load_model(untested, trial, epoch)
