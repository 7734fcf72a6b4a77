"""The steps as functions: what was read once is not lost, nor read again."""

from collections import Counter

import yaml

import analysis
from analysis.pipeline import read
from mg_core.store.files import Files


def _published(folder):
    (folder / "theirs.csv").write_text("loss,F1,EPG\n,0.6,0.3\nenergy,0.62,0.5\n")
    mapping = {
        "name": "theirs",
        "files": "theirs.csv",
        "columns": {"loss": "loss", "test_f1": "F1", "test_epg": "EPG"},
        "values": {
            "model": "vanilla_tiny",
            "attribution": "ixg",
            "layer": "input",
            "dataset": "shapes",
        },
    }
    (folder / "theirs.yaml").write_text(yaml.safe_dump(mapping))
    return str(folder / "theirs.yaml")


def test_results_that_were_read_keep_what_others_published(demo, tmp_path):
    results = read([demo, _published(tmp_path)])
    assert len(results.published) == 2
    assert read(results) is results
    (figure,) = analysis.figures(results, only="fig5")
    assert set(figure.data["source"].dropna()) == {"theirs"}


def test_a_report_shows_what_others_published(demo, tmp_path):
    report = analysis.report([demo, _published(tmp_path)], out=tmp_path / "out", testing=None)
    assert "theirs" in (report.path.parent / "figures" / "fig5.csv").read_text()


def test_a_report_reads_each_heat_map_file_once(untested, tmp_path, monkeypatch):
    assert analysis.test(untested) == []
    reads: Counter[str] = Counter()
    get = Files.get

    def counted(files, key):
        reads[key] += key.startswith("heatmaps/")
        return get(files, key)

    monkeypatch.setattr(Files, "get", counted)
    analysis.report(untested.uri, out=tmp_path / "out", testing=None)
    assert set(reads.values()) <= {0, 1}
    assert sum(reads.values()) > 3
