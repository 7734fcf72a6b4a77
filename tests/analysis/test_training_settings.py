"""Training settings in what analysis shows: those that some trials lack, and very long ones."""

import pytest

from analysis.page.explorer import explorer_data
from analysis.pipeline import figures, read
from analysis.settings import by_setting
from analysis.tabular.study import tables
from mg_core.recipe import named


@pytest.fixture
def results(sweep, make_grid, tmp_path):
    """Return results of trials with and without augmentation and weight decay."""
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy", "l1"))
    pipeline = tuple(named(f"transform_number_{n}") for n in range(20))
    more = [
        c.model_copy(update={"augment": pipeline, "weight_decay": decay})
        for c in configs
        if c.guidance
        for decay in (None, 0.1)
    ]
    return read(sweep(tmp_path / "store", [*configs, *more]))


def test_what_some_trials_lack_is_a_level_of_its_own(results):
    categories = explorer_data(results)["categories"]
    assert categories["weight_decay"]["levels"] == ["0.1", "none"]
    assert "none" in categories["augment"]["levels"]
    assert categories["loss"]["levels"] == ["energy", "l1", "baseline"]
    data = explorer_data(results)
    recipes = data["categories"]["recipe"]  # Each is a panel of its own.
    assert len(recipes["levels"]) == 3
    assert recipes["levels"][0] == ""
    by_recipe = list(zip(recipes["codes"], data["points"]["reference"], strict=True))
    assert {code for code, is_reference in by_recipe if is_reference} == {0, 1, 2}
    assert len(set(data["points"]["start"])) == 1  # All of them are one network.
    assert max(map(len, recipes["levels"])) < 70
    told = [text for text in data["points"]["describe"] if "weight decay 0.1, " in text]
    (with_decay,) = [n for n, name in enumerate(recipes["levels"]) if "weight decay 0.1" in name]
    assert len(told) == by_recipe.count((with_decay, 0)) > 0
    assert results.selected.loc[~results.selected["is_reference"], "front"].nunique() == 6


def test_settings_have_figures_and_rows_of_their_own(results):
    assert len(list(by_setting(results.selected))) == 3
    slugs = [setting.slug for setting in by_setting(results.selected)]
    assert len(set(slugs)) == 3
    assert max(map(len, slugs)) < 200
    names = [drawing.name for drawing in figures(results)]
    assert len(set(names)) == len(names)
    best = {table.name: table.frame for table in tables(results)}["best"]
    assert {"augment", "weight_decay"} <= set(best)
