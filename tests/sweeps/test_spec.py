"""Sweep files: what they may hold and what is said of those that do not."""

import itertools
import re
import time
from pathlib import Path

import pytest

from analysis.published import read_published
from mg_core.errors import InputError
from mg_core.store import ResultStore
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
        ("device", "tpu", "device: auto, cpu, cuda or such as cuda:1 is wanted, not "),
        ("grid.model", "torchvision/", "grid.0.model.0: a registered model or a library and a net"),
        ("grid.layer", "''", "grid.0.layer.0: a name of letters, digits, '.', '_' and '-' is wan"),
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
        ("name: [", "line 2: not valid YAML"),
        ("name: a\nname: b\n", "line 2: not valid YAML: key 'name' stands twice"),
        ("- a\n- b\n", "a sweep is a mapping"),
        ("", "a sweep is a mapping"),
        ("? {a: 1}\n: 2\n", "a key must be a word or a number"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
        ("cluster_name: c\n", "holds its sweep under metadata.sweep"),
        ("name: !!timestamp x\n", "line 1: not valid YAML: 'x' is no timestamp"),
        ("name: !!int x\n", "line 1: not valid YAML: 'x' is no int"),
        (f"a: 1\nname: {'9' * 5000}\n", "line 2: not valid YAML: '99"),
        ("seed: 010\n", "line 1: not valid YAML: 010 would be read in base 8 or 60"),
        ("epochs: 1:30\n", "line 1: not valid YAML: 1:30 would be read in base 8 or 60"),
        ("x: " + "[" * 20000, "line 1: not valid YAML: "),
        ("x: " + "{a: " * 900 + "}" * 900, "line 1: not valid YAML: nested more than 50 deep"),
        ("x:\n" + "".join(f"{' ' * n}-\n" for n in range(1, 90)), "nested more than 50 deep"),
        ("a: &a [*a]\n", "line 1: not valid YAML: 'a' contains itself"),
        ("a: &a {<<: *a}\n", "line 1: not valid YAML: 'a' contains itself"),
        ("a: *b\n", "line 1: not valid YAML: found undefined alias"),
        ("<<: 5\n", "line 1: not valid YAML: expected a mapping or list of mappings for merging"),
        ("a: &a {x: 1}\n<<: *a\n<<: *a\n", "line 3: not valid YAML: key '<<' stands twice"),
        ("- <<\n", "line 1: not valid YAML: could not determine a constructor"),
        ("? !!set {a}\n: 1\n", "line 1: not valid YAML: a key must be a word or a number"),
        ("~: 1\n", "line 1: not valid YAML: a key must be a word or a number"),
        ("1: 2\n", "1: keys should be strings, not 1"),
        ("a: 1\n\tb: 1\n", "line 2: not valid YAML"),
        ("a: b\0\n", "not valid YAML: unacceptable character #x0000"),
        ("a: b\n---\na: b\n", "not valid YAML: but found another document"),
    ],
)
def test_what_is_no_sweep_is_said_to_be_none(write, text, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_spec(write(text), [])


def bomb(merge):
    """Return a few hundred bytes of YAML that stand for 9^15 values."""
    lines = ["a: &a {x: 1}" if merge else "a: &a [x, x]"]
    for before, letter in itertools.pairwise("abcdefghijklmnop"):
        names = ", ".join([f"*{before}"] * 9)
        lines.append(f"{letter}: &{letter} " + (f"{{<<: [{names}]}}" if merge else f"[{names}]"))
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [True, False])
def test_yaml_that_explodes_is_refused_at_once(write, merge, tmp_path):
    start = time.monotonic()
    sentence = "not valid YAML: more than 2,000,000 values, those of aliases included"
    with pytest.raises(InputError, match=sentence):
        load_spec(write(bomb(merge)), [])
    with pytest.raises(InputError, match=sentence):
        read_published(write(bomb(merge), "theirs.yaml"))
    (tmp_path / "store" / "trials").mkdir(parents=True)
    (tmp_path / "store" / "trials" / "0123456789abcdef.json").touch()
    (tmp_path / "store" / "sweep.yaml").write_text(bomb(merge))
    with pytest.raises(InputError, match=rf"store '.*store': sweep.yaml line \d+: {sentence}"):
        ResultStore(str(tmp_path / "store")).spec()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_named_and_a_byte_order_mark_is_none(sweep, write, encoding, tmp_path):
    plain, file = load_spec(write(sweep), []), tmp_path / "other.yaml"
    file.write_bytes(("\ufeff" + write(sweep).read_text()).encode())
    assert load_spec(file, []) == plain
    file.write_bytes((write(sweep).read_text() + "# é\n").encode(encoding))
    with pytest.raises(InputError, match=r"other.yaml is .*text; save it as UTF-8"):
        load_spec(file, [])


def test_a_date_is_text(sweep, write):
    assert load_spec(write(sweep), ["name=2024-02-01"]).name == "2024-02-01"
    with pytest.raises(InputError, match=r"name: .* not '2024-02-01T25:00:00Z'"):
        load_spec(write(sweep), ["name=2024-02-01T25:00:00Z"])


def test_a_sweep_file_given_as_a_mapping_file_names_its_store(sweep, write):
    with pytest.raises(InputError, match="is a sweep file; name its store, store, instead"):
        read_published(write(sweep))


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
    assert (spec.guided.epochs, spec.grid[0].layer) == ((7,), ("mid1",))
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
