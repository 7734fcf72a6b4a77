"""Reading stores in every state they may be in."""

import pytest

from analysis.results import read_results
from mg_core.errors import InputError


def test_counts_of_a_finished_sweep(demo):
    results = read_results(demo)
    assert results.states == {"complete": 25, "failed": 0, "unfinished": 0}
    assert results.n_checkpoints == 24 * 4
    assert 0 < results.n_selected < results.n_checkpoints
    assert len(results.tested) == len(results.selected)


def test_counts_of_a_running_sweep(sweep, make_grid, tmp_path):
    results = read_results(sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}), epochs=2))
    assert results.states == {"complete": 0, "failed": 0, "unfinished": 13}
    assert results.n_checkpoints == 12 * 2


def test_objectives_are_the_sweeps_unless_named(demo):
    assert read_results(demo).objectives == ("f1", "epg", "iou")
    assert read_results(demo, ["f1", "map"]).objectives == ("f1", "map")
    demo.put_spec("objectives: [f1, epg]\n")
    try:
        assert read_results(demo).objectives == ("f1", "epg")
    finally:
        demo.put_spec("objectives: [f1, epg, iou]\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"objectives": ["f2"]},
            "unknown objective 'f2'; choose from f1, precision, recall, map, "
            "macro_f1, epg, iou, iou_at_0.5, pointing_game",
        ),
        ({"objectives": ["f1", "f1"]}, "stands twice"),
        ({"tolerance": -0.1}, "a tolerance is a fraction"),
        ({"tolerance": float("nan")}, "a tolerance is a fraction"),
    ],
)
def test_wrong_options_are_sentences(demo, options, sentence):
    with pytest.raises(InputError, match=sentence):
        read_results(demo, **options)


def test_a_larger_tolerance_selects_fewer(demo):
    sizes = [read_results(demo, tolerance=t).n_selected for t in (0.0, 0.005, 0.05)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2]
