"""The axis of annotations: ids, what is one trial, what is refused, and what a sweep records."""

import pytest
import yaml

import analysis
import sweeps
from mg_core.data.annotations import ANNOTATIONS
from mg_core.data.drawn.birds import BirdsOptions, write_birds
from mg_core.errors import InputError
from sweeps.grid import expand
from sweeps.spec import load_spec


def grid_of(sweep, **axes):
    return expand(load_spec({**sweep, "grid": sweep["grid"] | axes}, []))


def test_boxes_have_the_ids_of_sweeps_without_the_axis(sweep):
    plain = grid_of(sweep).trials.keys()
    assert grid_of(sweep, annotation="box").trials.keys() == plain
    assert grid_of(sweep, annotation=["box", {"points": 3}]).trials.keys() > plain
    dilated = grid_of(sweep, annotation={"box": {"dilate": 0.25}})
    assert dilated.trials.keys() == grid_of(sweep, box_dilation=0.25).trials.keys()


def test_a_sweep_without_the_axis_is_written_as_before(sweep):
    assert "annotation" not in load_spec(sweep, []).to_yaml().replace("annotated_fraction", "")
    axes = {"annotation": ["box", {"points": 5}, {"box": {"shift": 0.2}}]}
    spec = load_spec({**sweep, "grid": sweep["grid"] | axes}, [])
    assert load_spec(yaml.safe_load(spec.to_yaml()), []) == spec


def test_each_annotation_multiplies_the_guided_trials(sweep):
    ladder = ["mask", "box", {"points": 1}, {"points": 5}, "random_box"]
    n_guided = len(grid_of(sweep).guided)
    grid = grid_of(sweep, annotation=ladder)
    assert len(grid.guided) == 5 * n_guided
    assert sorted(grid.axes()["annotation"]) == [
        "box", "mask", "points(count=1)", "points(count=5)", "random_box",
    ]  # fmt: skip
    labels = {config.label for config in grid.guided.values()}
    assert "vanilla_tiny ixg@input energy λ=0.01 lr0.001 b8 points(count=5) s0" in labels


def test_none_is_one_trial_of_each_model_seed_and_recipe(sweep):
    axes = {
        "annotation": ["box", "none"],
        "annotated_fraction": [0.5, 1.0],
        "seed": [0, 1],
        "learning_rate": [1e-3, 1e-2],
    }
    grid = grid_of(sweep, **axes)
    unguided = [c for c in grid.guided.values() if c.guidance.is_none]
    assert len(unguided) == 4
    assert {config.label for config in unguided} == {
        f"vanilla_tiny unguided {rate}b8 s{seed}"
        for rate in ("lr0.001 ", "lr0.01 ")
        for seed in (0, 1)
    }
    judged = [str(pair) for pair in unguided[0].evaluate]
    assert judged == ["gradcam@final", "gradcam@input", "ixg@final", "ixg@input"]
    # A second block has the same trial, which is judged where either is guided.
    first = sweep["grid"] | {"layer": "input", "annotation": ["box", "none"]}
    second = sweep["grid"] | {"layer": "final", "annotation": ["mask", "none"]}
    both = expand(load_spec({**sweep, "grid": [first, second]}, []))
    (only,) = (config for config in both.guided.values() if config.guidance.is_none)
    assert [str(pair) for pair in only.evaluate] == judged
    alone = grid_of(sweep, annotation="none")
    assert len(alone.trials) == 2
    assert all(trial_id == config.trial_id for trial_id, config in grid.trials.items())


@pytest.mark.parametrize(
    ("axes", "wrong"),
    [
        ({"annotation": "boxs"}, "grid.0.annotation: unknown annotation 'boxs' (did you mean"),
        ({"annotation": {"points": 0}}, "grid.0.annotation: points: count is 0"),
        ({"annotation": "mask", "box_dilation": 0.1}, "grid.0.box_dilation: it dilates the ann"),
        (
            {"annotation": {"box": {"dilate": 0.2}}, "box_dilation": [0.0, 0.1]},
            "there is box(dilate=0.2) too",
        ),
        ({"annotation": [{"points": 1}, {"points": {"count": 1}}]}, "stands twice in a list"),
        (
            {"annotation": [{"points": 1}, {"points": {"count": 1, "radius": 0.05}}]},
            "the combination vanilla_tiny ixg@input energy λ=0.01 lr0.001 b8 points(count=1) s0 "
            "stands twice",
        ),
        ({"annotation": []}, "at least one value is wanted"),
    ],
)  # fmt: skip
def test_wrong_annotations_are_refused(sweep, axes, wrong):
    with pytest.raises(InputError) as caught:
        grid_of(sweep, **axes)
    assert wrong in str(caught.value)


def test_an_annotation_of_ones_own_needs_one_function(sweep, monkeypatch):
    monkeypatch.setattr(ANNOTATIONS, "_variants", dict(ANNOTATIONS))

    @ANNOTATIONS.register("cross")
    def cross(place, width=1):
        return place.fill(place.boxes)

    grid = grid_of(sweep, annotation=["box", "cross", {"cross": {"width": 2}}])
    assert list(grid.axes()["annotation"]) == ["box", "cross", "cross(width=2)"]
    with pytest.raises(InputError, match="its arguments are width"):
        grid_of(sweep, annotation={"cross": {"length": 2}})


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_sweep):
    """Return the store of a small ladder."""
    folder = tmp_path_factory.mktemp("ladder")
    ladder = ["mask", "box", {"points": 2}, "random_box", "none"]
    axes = {"annotation": ladder, "annotated_fraction": [0.25, 1.0], "attribution": "gradcam"}
    axes |= {"layer": "final", "loss": {"energy": 0.01}}
    content = {**small_sweep, "grid": small_sweep["grid"] | axes, "store": str(folder / "store")}
    sweeps.run({**content, "guided": {**content["guided"], "epochs": 1}}, runner="inline")
    return folder / "store"


def test_a_ladder_runs_and_records_what_was_annotated(store):
    rows = analysis.load(store)
    last = rows[(rows["kind"] == "guided") & (rows["epoch"] == 1)]
    assert len(last) == 9
    few = last[last["annotated_fraction"] == 0.25].set_index("annotation")
    # Every shape has a mask, so that the same images are annotated on each rung.
    assert few["n_annotated"].tolist() == [6] * 4
    assert few["n_annotated_objects"].nunique() == 1
    assert int(few["n_annotated_objects"].iloc[0]) >= 6
    whole = last[last["annotated_fraction"] == 1].set_index("annotation")
    assert whole["train_localization_loss"].notna().drop("none").all()
    assert whole["train_localization_loss"].drop("none").nunique() == 4
    none = whole.loc["none"]
    assert (none["n_annotated"], none["n_annotated_objects"]) == (0, 0)
    assert (none["loss"], none["guided_attribution"], none["guided_layer"]) == ("none",) * 3
    assert none["localization_weight"] == 0
    assert (none["attribution"], none["layer"]) == ("gradcam", "final")


def test_a_set_without_masks_is_refused_before_anything_trains(sweep, tmp_path):
    sweep["data"] = {"name": "waterbirds100", "root": str(tmp_path / "birds"), "image_size": 24}
    write_birds(tmp_path / "birds", BirdsOptions(train=12, val=10, test=10, size=24))
    sweep["grid"] |= {"annotation": ["box", "mask"]}
    sweep["store"] = str(tmp_path / "store")
    with pytest.raises(InputError, match="annotation: mask needs segmentation masks"):
        sweeps.run(sweep, runner="inline")
    assert not list((tmp_path / "store").glob("metrics/*"))
