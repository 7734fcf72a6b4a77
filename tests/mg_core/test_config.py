"""Identity and validation of trials."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from mg_core.config import DataConfig, GuidanceConfig, TrialConfig, parse
from mg_core.errors import InputError


def changed(config, path, value):
    content = config.model_dump()
    *parents, last = path.split(".")
    place = content
    for part in parents:
        place = place[part]
    place[last] = value
    return TrialConfig.model_validate(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("numerics", 2),
        ("data.name", "voc2007"),
        ("data.image_size", 33),
        ("data.horizontal_flip", True),
        ("data.options", {"seed": 2}),
        ("model", "vanilla_resnet18"),
        ("weights", "imagenet"),
        ("seed", 1),
        ("epochs", 4),
        ("learning_rate", 2e-3),
        ("batch_size", 9),
        ("precision", "bf16"),
        ("baseline", "0123456789abcdef"),
        ("guidance.attribution", "gradcam"),
        ("guidance.layer", "final"),
        ("guidance.loss", "l1"),
        ("guidance.localization_weight", 2e-3),
        ("guidance.reduction", "mean"),
        ("guidance.annotated_fraction", 0.1),
        ("guidance.box_dilation", 0.1),
        ("guidance.task", "reversed"),
        ("evaluate", ()),
    ],
)
def test_every_field_is_in_the_id(guided, path, value):
    assert changed(guided, path, value).trial_id != guided.trial_id


def test_ids_are_those_of_the_first_version(baseline, guided):
    # Stores written by an earlier release must be found again.
    assert (baseline.trial_id, guided.trial_id) == ("7546c1c71000c342", "73565c75b4ef5094")


def test_a_later_field_stays_out_of_the_id_at_its_default(guided):
    later = create_model("Later", __base__=TrialConfig, warmup=(int, 0))
    content = guided.model_dump()
    assert later.model_validate(content).trial_id == guided.trial_id
    assert later.model_validate({**content, "warmup": 1}).trial_id != guided.trial_id


@pytest.mark.parametrize(
    ("part", "base", "new", "other"),
    [
        ("guidance", GuidanceConfig, (float, 1.0), 0.5),
        ("guidance", GuidanceConfig, (str | None, None), "blurred"),
        ("guidance", GuidanceConfig, (tuple[str, ...], ()), ("blurred",)),
        ("data", DataConfig, (float, 0.0), 0.5),
        ("data", DataConfig, (bool, False), True),
    ],
)
def test_a_later_field_of_a_part_stays_out_of_the_id_at_its_default(guided, part, base, new, other):
    extended = create_model("Extended", __base__=base, new=new)
    later = create_model("Later", __base__=TrialConfig, **{part: (extended, ...)})
    content = guided.model_dump()
    at_default, elsewhere = (
        later.model_validate({**content, part: {**content[part], **fields}})
        for fields in ({"new": new[1]}, {"new": other})
    )
    without = later.model_validate(content)
    assert at_default.trial_id == without.trial_id == guided.trial_id
    assert elsewhere.trial_id != guided.trial_id
    assert later.model_validate_json(elsewhere.model_dump_json()).trial_id == elsewhere.trial_id
    assert at_default.data.key == guided.data.key
    assert (elsewhere.data.key == guided.data.key) == (part != "data")


def test_the_id_does_not_depend_on_the_process(guided):
    code = (
        "import sys; from mg_core.config import TrialConfig;"
        "print(TrialConfig.model_validate_json(sys.stdin.read()).trial_id)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=guided.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout.strip() == guided.trial_id


@given(st.floats(0, 1e6), st.integers(0, 2**40), st.floats(1e-9, 1))
def test_json_round_trip_keeps_the_trial(weight, seed, fraction):
    config = TrialConfig.model_validate(
        {
            "numerics": 1,
            "data": {
                "name": "shapes",
                "image_size": 8,
                "horizontal_flip": False,
                "options": {"b": 1, "a": fraction},
            },
            "model": "m",
            "weights": None,
            "seed": seed,
            "epochs": 1,
            "learning_rate": 1e-4,
            "batch_size": 1,
            "precision": "fp32",
            "baseline": "b",
            "guidance": {
                "attribution": "a",
                "layer": "input",
                "loss": "l",
                "localization_weight": weight,
                "reduction": "sum",
                "annotated_fraction": fraction,
                "box_dilation": 0,
                "task": None,
            },
            "evaluate": [],
        }
    )
    again = TrialConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.trial_id == config.trial_id


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("epochs", -1, "epochs: input should be greater than or equal to 0"),
        ("epochs", "3", "epochs: input should be a valid integer, not '3'"),
        ("epochs", True, "epochs: a number is wanted, not true or false"),
        ("learning_rate", "fast", "learning_rate: input should be a valid number"),
        (
            "precision",
            "fp8",
            "precision: input should be 'fp32', 'tf32', 'bf16' or 'fp16', not 'fp8'",
        ),
        ("guidance.annotated_fraction", 0, "annotated_fraction: input should be greater than 0"),
        ("guidance.localization_weight", float("nan"), "localization_weight: input should be"),
        ("guidance.lambda", 1, "unknown key 'guidance.lambda'; allowed here: attribution, layer"),
    ],
)
def test_bad_values_are_one_sentence(guided, path, value, sentence):
    content = guided.model_dump()
    *parents, last = path.split(".")
    place = content
    for part in parents:
        place = place[part]
    place[last] = value
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        parse(TrialConfig, content, "sweep.yaml")
    assert str(caught.value).startswith("sweep.yaml: ")
    assert "\n" not in str(caught.value)


def test_numbers_that_yaml_reads_as_text_are_numbers(guided):
    assert changed(guided, "learning_rate", "1e-3").trial_id == guided.trial_id
