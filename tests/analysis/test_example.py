"""The recorded study: written from stores, read without them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.claims import judge
from analysis.example import record, recorded_study, studies
from analysis.plots import drawings
from analysis.results import read_results


@pytest.fixture
def tested(untested):
    from analysis.testing.bench import run_tests, runtime_of
    from analysis.testing.plan import plan_tests

    results = read_results(untested)
    list(run_tests(plan_tests(results).jobs, runtime_of(results), 2))
    return read_results(untested)


def test_what_was_recorded_reads_as_the_store_does(tested, tmp_path):
    record(tested, tmp_path, "0123abc")
    again = recorded_study(tmp_path)
    left = ["val_iou_by_threshold"]
    pd.testing.assert_frame_equal(again.rows.drop(columns=left), tested.rows.drop(columns=left))
    pd.testing.assert_frame_equal(again.tests, tested.tests)
    assert again.states == tested.states
    assert again.versions["commit"] == "0123abc"
    assert [d.name for d in drawings(again)] == [d.name for d in drawings(tested)]
    assert [f.verdict for f in judge(again)] == [f.verdict for f in judge(tested)]
    (drawing,) = drawings(again, ["fig2"])
    cell = drawing.data.iloc[-1]
    from mg_core.config import EvaluationPair

    pair = EvaluationPair(attribution=cell["attribution"], layer=cell["layer"])
    where = (cell["trial_id"], cell["epoch"], pair)
    maps = [found.load(found.key(*where)) for found in (again.heatmaps, tested.heatmaps)]
    assert len(maps[0]) == len(maps[1]) == 2
    assert all((a.map == b.map).all() for a, b in zip(*maps, strict=True))


def test_axes_that_were_not_known_when_it_was_recorded_are_at_their_usual_values():
    rows = recorded_study().rows
    assert set(rows["optimizer"]) == {"adam"}
    assert rows["augment"].isna().all()


def test_a_study_is_named_or_refused(mg_analysis):
    assert studies()[0] == "study"
    code, _, said = mg_analysis("report", "--example", "stduy")
    assert code == 2
    assert "no recorded study 'stduy'; choose from study" in said
    code, _, said = mg_analysis("report", "--example", "study", "study")
    assert code == 2
    assert "--example reports one study; choose from study" in said


def test_the_recorded_study_is_reported_without_any_store(tmp_path):
    command = ["-c", "from analysis.cli import main; main()", "report", "--example"]
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True)
    folder = tmp_path / "example"
    page = (folder / "report.html").read_text()
    assert f"of {len(recorded_study().trials)} trials" in page
    assert "recorded study" in page
    drawn = {file.name.split("-")[0].split(".")[0] for file in (folder / "figures").iterdir()}
    numbered = {f"fig{number}" for number in (2, 4, 5, 6, 8, 9, 10, 11, 12, 13)}
    assert drawn == numbered | {"epg_by_class", "epg_by_box_size"}


JUDGED_ON = {"C1": "ladder", "C2": "controls", "C3": "controls", "C4": "ladder", "C5": "controls"}
"""The recorded sweep that each finding beyond the paper is judged on."""
NUMBER = r"(−?\d+(?:\.\d+)?)"


def of_the_paper():
    """Return the findings by name that the paper has, of which the recorded study tells."""
    return {f.name: f for f in judge(recorded_study()) if not f.name.startswith("C")}


def beyond_the_paper():
    """Return the other findings by name, each judged on the sweep that is made for it."""
    found = {study: judge(recorded_study(study)) for study in set(JUDGED_ON.values())}
    return {
        name: next(f for f in found[study] if f.name == name) for name, study in JUDGED_ON.items()
    }


def intervals_in(text):
    """Return what a text says in the form of `value [low, high]`, as it is written."""
    return re.findall(rf"{NUMBER}[^\d\[]*\[{NUMBER},\s+{NUMBER}\]", text)


def says(written, interval):
    """Tell whether numbers are those of an interval, rounded as they are written."""
    return all(
        f"{value:.{len(shown.partition('.')[2])}f}".replace("-", "−") == shown
        for value, shown in zip(interval, written, strict=True)
    )


def claims_in(text, names, found):
    """Return the README's numbers by finding, once its verdicts are those that were found."""
    rows = re.findall(rf"^\| ({names}) \|(.*)\| ([a-z ]+) \|$", text, flags=re.MULTILINE)
    assert {name: verdict for name, _, verdict in rows} == {
        name: finding.verdict for name, finding in found.items()
    }
    return {name: said for name, said, _ in rows}


def test_the_readme_says_what_the_recorded_study_found(repository):
    text = (repository / "README.md").read_text()
    found = of_the_paper()
    for name, said in claims_in(text, r"R\d|Table 1", found).items():
        numbers = set(re.findall(NUMBER, said))
        conditions = [c for c in found[name].conditions if c.verdict == found[name].verdict]
        for estimate in (condition.estimate for condition in conditions):
            for value in (estimate.value, estimate.low, estimate.high):
                rounded = {f"{value:.{digits}f}".replace("-", "−") for digits in range(3)}
                assert rounded & numbers, (name, value)


def test_the_readme_says_what_was_found_beyond_the_paper(repository):
    text = (repository / "README.md").read_text()
    found = beyond_the_paper()
    for name, said in claims_in(text, r"C\d", found).items():
        estimates = [condition.estimate for condition in found[name].conditions]
        written = intervals_in(said)
        assert len(written) == len(estimates)
        for shown, estimate in zip(written, estimates, strict=True):
            assert says(shown, (estimate.value, estimate.low, estimate.high)), (name, shown)
    detail = found["C2"].detail
    by_gradcam = detail[detail["attribution"] == "gradcam"].set_index("model")["gain"]
    said = re.search(rf"it gained {NUMBER} points in the X-DNN and lost\s+{NUMBER} in the", text)
    assert says(said.groups(), [by_gradcam["xdnn_tiny"], -by_gradcam["vanilla_tiny"]])


def test_other_seeds_gave_the_same_verdicts(repository):
    others = json.loads(Path(__file__).with_name("other_seeds.json").read_text())
    recorded = of_the_paper() | beyond_the_paper()
    assert {finding["finding"]: finding["verdict"] for finding in others} == {
        name: finding.verdict for name, finding in recorded.items()
    }
    intervals = [
        [condition["value"], condition["low"], condition["high"]]
        for finding in others
        for condition in finding["conditions"]
    ]
    text = (repository / "README.md").read_text()
    paragraphs = re.findall(r"verdict\s+is\s+the\s+same:(.*?)\n\n", text, flags=re.DOTALL)
    said = [written for paragraph in paragraphs for written in intervals_in(paragraph)]
    assert len(paragraphs) == 2
    assert len(said) >= 20
    for written in said:
        assert any(says(written, interval) for interval in intervals), written


@pytest.mark.parametrize("study", ["ladder", "controls", "losses"])
def test_every_recorded_sweep_is_whole(study):
    results = recorded_study(study)
    assert results.states["complete"] == len(results.trials)
    assert results.tested["test_f1"].notna().all()
