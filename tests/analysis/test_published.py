"""Tables of others beside one's own."""

import json

import numpy as np
import pytest
import yaml

from analysis.plots import drawings
from analysis.plots.tradeoff import tradeoff_data
from analysis.published import beside, is_mapping, read_published
from analysis.results import merge, read_results
from mg_core.errors import InputError

MAPPING = {
    "name": "re-run",
    "files": "tables/{model}_{layer}.csv",
    "columns": {"test_f1": "F1", "test_epg": "EPG", "test_iou": "IoU", "loss": "Loss"},
    "values": {"dataset": "shapes", "attribution": "ixg"},
    "rename": {"loss": {"Energy": "energy", "L1": "l1", "none": None}},
    "percent": True,
}
CSV = "Loss,F1,EPG,IoU\nEnergy,70.5,60.0,20\nEnergy,60.0,50.0,30\nL1,71.0,40.0,40\nnone,72,30,10\n"


@pytest.fixture
def write(tmp_path):
    """Write a mapping file and tables; return the mapping's path."""

    def make(tables, **changes):
        (tmp_path / "tables").mkdir(exist_ok=True)
        for name, text in tables.items():
            (tmp_path / "tables" / name).write_text(text)
        file = tmp_path / "published.yaml"
        file.write_text(yaml.safe_dump(MAPPING | changes))
        return file

    return make


def test_names_values_and_percentages_are_translated(write):
    found = read_published(write({"vanilla_tiny_input.csv": CSV, "vanilla_tiny_final.csv": CSV}))
    assert len(found) == 8
    assert set(found["model"]) == {"vanilla_tiny"}
    assert set(found["layer"]) == set(found["guided_layer"]) == {"input", "final"}
    assert found["test_epg"].max() == 0.6
    assert found["is_reference"].sum() == 2
    assert set(found["source"]) == {"re-run"}


def test_json_in_its_usual_shapes(write):
    records = [{"Loss": "Energy", "scores": {"F1": 70, "EPG": 60, "IoU": 20}}]
    nested = {"columns": {"test_f1": "scores.F1", "test_epg": "scores.EPG", "loss": "Loss"}}
    by_column = {"Loss": ["Energy", "L1"], "F1": [70, 71], "EPG": [60, 40], "IoU": [20, 40]}
    shapes = {
        "json": (json.dumps(records), nested),
        "jsonl": ("\n".join(json.dumps(r) for r in records * 2), nested),
        "columns.json": (json.dumps(by_column), {}),
        "one.json": (json.dumps(records[0]), nested),
    }
    for name, (text, changes) in shapes.items():
        ending = name.split(".")[-1]
        file = write({f"vanilla_tiny_input.{name}": text}, files=f"tables/*.{name}", format=ending,
                     values=MAPPING["values"] | {"model": "vanilla_tiny", "layer": "input"},
                     **changes)  # fmt: skip
        found = read_published(file)
        assert found["test_f1"].iloc[0] == 0.7, name
        assert len(found) == (2 if name in ("jsonl", "columns.json") else 1)


def test_figures_show_them_hollow_beside_ones_own(write, demo):
    published = read_published(write({"vanilla_tiny_final.csv": CSV}))
    results = merge([read_results(demo)], published)
    (figure,) = drawings(results, ["fig5"])
    assert set(figure.data["source"].dropna()) == {"re-run"}
    drawn = figure.draw(figure.data)
    faces = {line.get_markerfacecolor() for axes in drawn.axes for line in axes.lines}
    assert "white" in faces
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert "published by others" in labels


def test_figures_of_published_tables_alone(write):
    published = read_published(
        write({"vanilla_tiny_final.csv": CSV, "vanilla_tiny_input.csv": CSV})
    )
    found = {drawing.name: drawing for drawing in drawings(merge([], published))}
    assert set(found) == {"fig5", "fig6"}
    data = found["fig5"].data
    line = data[(data["layer"] == "final") & data["is_on_line"] & (data["loss"] == "energy")]
    assert line["f1"].tolist() == [70.5], "60.0/50.0 is dominated by 70.5/60.0"
    assert not np.isnan(data["epg"]).any()


def test_a_setting_that_is_not_named_is_that_of_ones_own(write, demo):
    published = read_published(write({"vanilla_tiny_final.csv": CSV}))
    own = read_results(demo).tested
    together = beside(own, published)
    assert together["learning_rate"].nunique() == own["learning_rate"].nunique() == 1
    assert len(tradeoff_data(together, "epg")) == len(tradeoff_data(own, "epg")) + 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"columns": {"test_f1": "F2"}}, "there is no column 'F2'; found Loss, F1, EPG, IoU"),
        ({"columns": {"test_ff": "F1"}}, "unknown column 'test_ff'"),
        ({"columns": {"loss": "Loss"}}, "names no test metric"),
        ({"files": "none/{model}_{layer}.csv"}, "no file matches 'none/"),
        ({"files": "tables/*.csv"}, "nothing gives the column 'model'"),
        ({"colums": {}}, "unknown key 'colums'"),
        ({"columns": {"test_f1": "Loss"}, "rename": {}}, "'test_f1' holds no numbers"),
    ],
)
def test_what_is_wrong_is_a_sentence(write, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        read_published(write({"vanilla_tiny_final.csv": CSV}, **changes))


def test_a_broken_table_is_a_sentence(write):
    file = write({"vanilla_tiny_final.json": "{"}, files="tables/{model}_{layer}.json")
    with pytest.raises(InputError, match="this table cannot be read"):
        read_published(file)
    assert is_mapping(str(file))
    assert not is_mapping(str(file.parent))


def test_a_seed_that_is_no_number_is_a_sentence(tmp_path):
    (tmp_path / "theirs.csv").write_text("seed,F1\nseed0,0.6\n")
    mapping = {
        "name": "theirs",
        "files": "theirs.csv",
        "columns": {"seed": "seed", "test_f1": "F1"},
        "values": {"model": "m", "attribution": "ixg", "layer": "input"},
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(InputError, match=r"theirs.yaml: column 'seed' holds no numbers"):
        read_published(tmp_path / "theirs.yaml")


def test_a_name_that_can_be_cut_in_more_than_one_way(write):
    rename = {"model": {"bcos": "bcos_resnet50"}, "loss": {"Energy": "energy"}}
    table = {"files": "tables/{model}_{layer}_{loss}.csv", "rename": rename}
    table["columns"] = {"test_f1": "F1", "test_epg": "EPG", "test_iou": "IoU"}
    found = read_published(write({"bcos_final_Energy.csv": CSV}, **table))
    assert set(zip(found["model"], found["layer"], found["loss"], strict=True)) == {
        ("bcos_resnet50", "final", "energy")
    }
    # One of two ways gives names that are known.
    found = read_published(write({"vanilla_tiny_input_Energy.csv": CSV}, **table))
    assert set(found["model"]) == {"bcos_resnet50", "vanilla_tiny"}
    file = write({"bcos_final_Energy_dilation_0.1.csv": CSV}, **table)
    with pytest.raises(InputError, match=r"dilation_0\.1\.csv can be cut in more than one way by"):
        read_published(file)


def test_json_with_a_record_for_each_checkpoint_by_its_name(write):
    checkpoint = {"Loss": "Energy", "F1": 70, "EPG": 60, "IoU": 20}
    text = json.dumps({"front_1.pt": checkpoint, "front_2.pt": checkpoint | {"EPG": 50}})
    file = write({"vanilla_tiny_input.json": text}, files="tables/{model}_{layer}.json")
    assert read_published(file)["test_epg"].tolist() == [0.6, 0.5]
