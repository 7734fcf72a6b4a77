"""Sweep files: what they may hold and what is said of those that do not."""

import re
from pathlib import Path

import pytest

from mg_core.errors import InputError
from sweeps.spec import differences, load_spec
from sweeps.yaml_file import override, read_sweep


def changed(sweep, path, value):
    return override(sweep, [f"{path}={value}"])


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("guided.epochs", "-1", "guided.epochs: input should be greater than 0, not -1"),
        ("guided.epochs", "2.5", "guided.epochs: input should be a valid integer"),
        ("guided.epochs", "'2'", "guided.epochs: input should be a valid integer, not '2'"),
        ("guided.epoch", "2", "unknown key 'guided.epoch'; allowed here: epochs, learning_rate"),
        ("grid.lambda", "[1]", "unknown key 'grid.0.lambda'; allowed here: model, attribution"),
        ("storage", "x", "unknown key 'storage'; allowed here: name, store, data"),
        ("grid.layer", "[input, input]", "grid.0.layer: the value 'input' stands twice in a list"),
        ("grid.loss.energy", "[1e-3, 0.001]", "the value 0.001 stands twice in a list"),
        ("grid.loss.energy", "[-1]", "input should be greater than or equal to 0, not -1"),
        ("grid.loss.energy", "much", "should be a valid number"),
        ("grid.loss", "{}", "grid.0.loss: dictionary should have at least 1 item"),
        ("grid.model", "[]", "grid.0.model: at least one value is wanted"),
        ("objectives", "[f2]", "objectives.0: unknown objective 'f2'; choose from f1, "),
        ("resources.gpu", "-0.5", "resources.gpu: input should be greater than or equal to 0"),
        ("device", "tpu", "device: string should match pattern"),
        ("data", "shapes", "data: input should be a valid dictionary or instance of DataSpec"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(sweep, write, path, value, sentence):
    file = write(changed(sweep, path, value))
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        load_spec(file, [])
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", "line 1: not valid YAML"),
        ("name: a\nname: b\n", "line 2: not valid YAML: key 'name' stands twice"),
        ("- a\n- b\n", "a sweep is a mapping"),
        ("", "a sweep is a mapping"),
        ("? {a: 1}\n: 2\n", "a key must be a word or a number"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
        ("cluster_name: c\n", "holds its sweep under metadata.sweep"),
    ],
)
def test_what_is_no_sweep_is_said_to_be_none(write, text, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_spec(write(text), [])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sweep file '.*nowhere\.yaml' cannot be read"):
        load_spec(tmp_path / "nowhere.yaml", [])


def test_weights_that_yaml_reads_as_text_are_numbers(sweep, write):
    text = "loss: {energy: [5e-4, 1e-3]}"
    spec = load_spec(write(sweep), [f"grid.{text.split(': ', 1)[0]}={text.split(': ', 1)[1]}"])
    assert spec.grid[0].loss["energy"] == (5e-4, 1e-3)


def test_a_ray_cluster_file_holds_its_sweep_as_metadata(sweep, write):
    cluster = {"cluster_name": "c", "provider": {"type": "local"}, "metadata": {"sweep": sweep}}
    plain, inside = load_spec(write(sweep), []), load_spec(write(cluster, "cluster.yaml"), [])
    assert plain == inside


@pytest.mark.parametrize("setting", ["guided.epochs", "=3", "name.x.y=1", "seed.3=1"])
def test_a_setting_that_leads_nowhere_is_refused(sweep, write, setting):
    sweep["seed"] = [0]
    with pytest.raises(InputError, match="--set"):
        load_spec(write(sweep), [setting])


def test_settings_and_store_override_the_file(sweep, write):
    sweep["grid"] = [sweep["grid"]]
    settings = ["guided.epochs=7", "grid.0.layer=[mid1]"]
    spec = load_spec(write(sweep), settings, store="elsewhere")
    assert (spec.guided.epochs, spec.grid[0].layer) == (7, ("mid1",))
    assert spec.store == str(Path("elsewhere").absolute())


def test_yaml_merge_keys_work(write):
    path = write("base: &b {x: 1}\nname: {<<: *b, x: 2}\n")
    assert read_sweep(path)["name"] == {"x": 2}


def test_places_are_the_same_from_anywhere(sweep, write, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    sweep["data"] |= {"root": "$DATA/voc", "cache": "~/cache"}
    spec = load_spec(write(sweep), [])
    assert (spec.data.root, spec.data.cache) == ("/data/voc", "~/cache")
    assert Path(spec.store).is_absolute()
    assert load_spec(write(sweep), [], store="s3://bucket/x").store == "s3://bucket/x"


def test_a_resolved_spec_is_the_same_spec(sweep, write):
    spec = load_spec(write(sweep), [])
    again = load_spec(write(spec.to_yaml(), "resolved.yaml"), [])
    assert again == spec
    assert differences(spec.model_dump(mode="json"), again) == []


def test_differences_name_keys_and_values(sweep, write):
    old = load_spec(write(sweep), []).model_dump(mode="json")
    new = load_spec(write(sweep), ["guided.epochs=5", "name=other", "data.root=/x"])
    assert differences(old, new) == ["guided.epochs: 2 → 5"]
    del old["grid"][0]["box_dilation"]  # as if an older version had written it
    assert differences(old, new) == ["guided.epochs: 2 → 5"]


def test_threads_follow_the_cpu_request(sweep, write):
    assert load_spec(write(sweep), ["resources.cpu=0.5"]).threads == 1
    assert load_spec(write(sweep), ["resources.cpu=3"]).threads == 3
