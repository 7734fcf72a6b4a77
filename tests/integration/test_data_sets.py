"""Two models on every data set, with few and with coarse boxes, from files to tested rows."""

import pytest

import analysis
from analysis.frame import load_tests
from mg_core.data.drawn.birds import BirdsOptions, write_birds

pytestmark = pytest.mark.slow

FRACTIONS = [0.01, 0.1, 1.0]
DILATIONS = [0.0, 0.1, 0.25, 0.5]
GROUPS = [f"test_accuracy_group_{group}" for group in range(4)]


@pytest.fixture(scope="session")
def roots(tmp_path_factory, real_data):
    birds = tmp_path_factory.mktemp("birds")
    write_birds(birds, BirdsOptions(train=60, val=30, test=40, size=32))
    return {
        "shapes": None,
        "voc2007": real_data / "voc2007_mini" / "VOCdevkit",
        "coco2014": real_data / "coco2014_mini",
        "waterbirds100": birds,
    }


@pytest.mark.parametrize("name", ["shapes", "voc2007", "coco2014", "waterbirds100"])
def test_two_models_with_few_and_with_coarse_boxes(
    name, roots, sweep, write, mg_sweep, tmp_path, monkeypatch, mg_analysis
):
    options = {"train": 40, "val": 20, "test": 20, "size": 32} if name == "shapes" else {}
    sweep["data"] = {"name": name, "image_size": 32, "options": options}
    if roots[name]:
        sweep["data"]["root"] = str(roots[name])
    for stage in ("baseline", "guided"):
        sweep[stage] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16}
    sweep["grid"] = {
        "model": ["vanilla_tiny", "bcos_tiny"],
        "attribution": ["ixg", "bcos"],
        "layer": "input",
        "loss": {"energy": 0.01},
        "annotated_fraction": FRACTIONS,
        "box_dilation": DILATIONS,
    }
    n_tasks = 1
    if name == "waterbirds100":
        sweep["grid"]["task"], n_tasks = ["conventional", "reversed"], 2
    n_trials = 2 + 2 * n_tasks * len(FRACTIONS) * len(DILATIONS)
    found = mg_sweep("run", write(sweep), "--runner", "inline")
    assert f"{n_trials} complete of {n_trials} trials" in found.stdout

    guided = analysis.load(str(tmp_path / "store")).query("kind == 'guided' and epoch == 1")
    assert len(guided) == n_trials - 2
    assert sorted(guided["annotated_fraction"].unique()) == FRACTIONS
    assert sorted(guided["box_dilation"].unique()) == DILATIONS
    fewest = guided.groupby("annotated_fraction")["n_annotated"].max()
    assert 1 <= fewest[0.01] < fewest[0.1] < fewest[1.0]

    mg_analysis("test", "store")
    tested = load_tests(str(tmp_path / "store"))
    assert tested["test_f1"].notna().all()
    if name == "waterbirds100":
        assert tested[GROUPS].notna().all(axis=None)
