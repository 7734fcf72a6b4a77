"""Grids: products, what is left out, and what is refused."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mg_core.columns import AXES
from mg_core.config import GuidanceConfig, TrialConfig
from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import BlockSpec, SweepSpec, load_spec

BASE = {
    "name": "g",
    "store": "s",
    "data": {"name": "shapes"},
    "baseline": {"epochs": 1},
    "guided": {"epochs": 1},
}


def subsets(values):
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@given(
    subsets(["vanilla_tiny", "vanilla_resnet18"]),
    subsets(["ixg", "gradcam"]),
    subsets(["input", "mid1", "final"]),
    st.dictionaries(
        st.sampled_from(["energy", "l1", "ppce", "rrr"]),
        subsets([0.0, 1e-3, 0.5]),
        min_size=1,
    ),
    subsets([0, 1, 2]),
    subsets([1.0, 0.1]),
    subsets([0, 0.5]),
)
def test_a_block_is_a_product_of_different_trials(
    model, attribution, layer, loss, seed, fraction, dilation
):
    block = {
        "model": model,
        "attribution": attribution,
        "layer": layer,
        "loss": loss,
        "seed": seed,
        "annotated_fraction": fraction,
        "box_dilation": dilation,
    }
    grid = expand(SweepSpec.model_validate({**BASE, "grid": block}))
    n_losses = sum(map(len, loss.values()))
    n_settings = len(seed) * len(fraction) * len(dilation)
    n_places = len(model) * len(attribution) * len(layer)
    assert len(grid.guided) == n_places * n_losses * n_settings
    assert len(grid.baselines) == len(model) * len(seed)
    assert all(trial_id == config.trial_id for trial_id, config in grid.trials.items())
    assert {c.baseline for c in grid.guided.values()} == set(grid.baselines)
    kinds = [config.kind for config in grid.trials.values()]
    assert kinds == sorted(kinds)  # baselines first


def test_a_baseline_knows_nothing_of_guidance(sweep, write):
    file = write(sweep)
    first = expand(load_spec(file, []))
    settings = ["grid.layer=mid2", "grid.box_dilation=0.5", "guided.epochs=9", "evaluate=[]"]
    second = expand(load_spec(file, settings))
    assert first.baselines == second.baselines
    assert not first.guided.keys() & second.guided.keys()
    other = expand(load_spec(file, ["baseline.epochs=3"]))
    assert not first.trials.keys() & other.trials.keys()


def test_resources_and_places_are_no_part_of_an_id(sweep, write):
    file = write(sweep)
    settings = ["resources.cpu=2", "data.root=/elsewhere", "max_retries=0", "device=cpu", "name=n"]
    settings += ["fail_fast_on=2", "tracking=mlflow"]
    assert expand(load_spec(file, [])).trials == expand(load_spec(file, settings)).trials


def test_further_pairs_are_evaluated_where_they_fit(sweep, write):
    sweep["evaluate"] = [{"attribution": "ixg", "layer": "input"}]
    grid = expand(load_spec(write(sweep), []))
    for config in grid.guided.values():
        assert "ixg@input" in [str(pair) for pair in config.evaluate]
        assert len(set(config.evaluate)) == len(config.evaluate)
    assert all(trial_id == config.trial_id for trial_id, config in grid.trials.items())


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("grid.model=vanila_tiny", "grid.0.model: unknown model 'vanila_tiny' (did you mean"),
        ("grid.loss={engy: 1}", "grid.0.loss: unknown loss 'engy'"),
        ("grid.attribution=lime", "grid.0.attribution: unknown attribution 'lime'; choose from"),
        ("grid.layer=[input, mid9]", "grid.0.layer: no model of this block has layer 'mid9'; cho"),
        ("grid.attribution=[bcos]", "grid.0: no valid combination; attribution 'bcos' does not"),
        ("data.name=imagenet", "data.name: unknown data set 'imagenet'; choose from"),
        ("data.options={trian: 3}", "data.options: unknown key 'trian'; allowed here: train"),
        ("imports=[no_such_package]", "imports: module 'no_such_package' cannot be imported"),
        (
            "evaluate=[{attribution: ixg, layer: nowhere}]",
            "evaluate.0: model 'vanilla_tiny' has no layer 'nowhere'; choose from input, mid1",
        ),
    ],
)
def test_what_does_not_exist_is_refused_with_the_choices(sweep, write, setting, sentence):
    spec = load_spec(write(sweep), [setting])
    with pytest.raises(InputError, match=re.escape(sentence)):
        expand(spec)


def test_combinations_that_mean_nothing_are_dropped_and_counted(sweep, write):
    grid = expand(load_spec(write(sweep), ["grid.attribution=[ixg, bcos, intgrad]"]))
    assert len(grid.guided) == 4
    assert sum(grid.dropped.values()) == 8
    assert all("does not fit model 'vanilla_tiny'" in reason for reason in grid.dropped)


def test_two_blocks_may_not_share_a_combination(sweep, write):
    block = sweep["grid"]
    sweep["grid"] = [block, {**block, "layer": ["final", "mid1"]}]
    with pytest.raises(InputError, match=r"grid\.1: the combination vanilla_tiny ixg@final"):
        expand(load_spec(write(sweep), []))


def wide(n_weights, n_seeds):
    block = {"model": "vanilla_tiny", "attribution": ["ixg", "gradcam"], "layer": "final"}
    weights = [round(0.001 * number, 6) for number in range(1, n_weights + 1)]
    grid = {**block, "loss": {"energy": weights}, "seed": list(range(n_seeds))}
    return load_spec({**BASE, "grid": grid}, [])


def test_large_grids_are_listed_in_seconds_and_larger_ones_refused_at_once():
    start = time.process_time()
    assert len(expand(wide(5000, 4)).guided) == 40_000
    assert len(expand(wide(1, 10_000)).guided) == 20_000
    assert time.process_time() - start < 10  # Ten times what it takes.
    start = time.process_time()
    sentence = (
        "grid: 40,000,000,000 combinations are more than the 200,000 that a sweep may have; "
        "grid.0 has 200,000 seed × 100,000 loss × 2 attribution; make several sweeps of it"
    )
    with pytest.raises(InputError, match=re.escape(sentence)):
        expand(wide(100_000, 200_000))
    # Two blocks with the same seeds share their baselines.
    several = wide(1, 80_000)
    several = several.model_copy(update={"grid": several.grid * 2})
    sentence = (
        "grid: 160,000 combinations and their 80,000 baselines are more than the 200,000 that a "
        "sweep may have; grid.0 has 80,000 seed × 2 attribution"
    )
    with pytest.raises(InputError, match=re.escape(sentence)):
        expand(several)
    assert time.process_time() - start < 5


def test_ids_are_those_of_the_configurations_whatever_they_differ_in():
    block = {"model": ["vanilla_tiny", "bcos_tiny"], "attribution": ["ixg", "bcos"]}
    block |= {"layer": ["input", "final"], "loss": {"energy": [1e-05, 3, 0.1], "l1": [0.0]}}
    block |= {"annotation": ["box", "none", {"box": {"dilate": 0.5}}], "seed": [2**40, 0]}
    sweep = {**BASE, "grid": [block], "baseline": {"epochs": [1, 2], "learning_rate": 1e-3}}
    sweep["guided"] = {"epochs": 1, "clip_norm": [None, 2], "schedule": {"cosine": {"final": 0.1}}}
    grid = expand(load_spec(sweep, []))
    assert len(grid.baselines) == 8
    # Losses without their λ, at two layers, with boxes of two kinds; and one without guidance.
    assert len(grid.guided) == 8 * 2 * (4 * 2 * 2 + 1)
    assert all(key == config.trial_id for key, config in grid.trials.items())
    again = {key: TrialConfig.model_validate(c.model_dump()) for key, c in grid.trials.items()}
    assert again == grid.trials


def test_options_of_data_sets_are_the_same_however_they_are_written(sweep, write):
    def data(name, *options):
        settings = [f"data.name={name}", *(f"data.options.{option}" for option in options)]
        sweep["data"] = {"name": name, "image_size": 24}
        return next(iter(expand(load_spec(write(sweep), settings)).trials.values())).data

    named = data("voc2007", "classes='cat,dog'")
    assert data("voc2007", "classes=[cat, dog]") == named
    assert named.options["classes"] == "cat,dog"
    assert data("coco2014", "year=2017") == data("coco2014", "year='2017'")
    assert data("coco2014", "year=") == data("coco2014", "year=''")
    for name, option, sentence in (
        ("voc2007", "classes=[cat, no]", "data.options.classes: False is no class name; put"),
        ("voc2007", "classes=", "data.options.classes: input should be a valid string, not None"),
        ("voc2007", "classes={a: 1}", "data.options.classes: input should be a valid string"),
        ("coco2014", "year=2017.5", "data.options.year: input should be a valid string, not 20"),
        ("shapes", "train=[1]", "data.options.train: input should be a valid integer, not [1]"),
        ("shapes", "train=", "data.options.train: input should be a valid integer, not None"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            data(name, option)


def test_every_axis_of_a_block_is_declared_so_that_no_front_pools_it():
    declared = {axis.source for axis in AXES if axis.part}
    shared = GuidanceConfig.model_fields.keys() & BlockSpec.model_fields.keys()
    assert {f"guidance.{name}" for name in shared} <= declared
