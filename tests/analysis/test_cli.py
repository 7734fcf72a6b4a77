"""`mg-analysis` as it is typed: files, exit codes, and a sentence for whatever is wrong."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.cli import app
from analysis.page.output import Output
from analysis.results import read_results
from mg_core.cli import run
from mg_core.errors import InputError
from mg_core.store import ResultStore

ONE = {"layers": ("final",), "losses": ("energy",)}


@pytest.fixture
def mg_analysis(monkeypatch, capsys):
    """Run a command line in this process; return exit code, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["mg-analysis", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            run(app)
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return command


class Page(HTMLParser):
    """Collects what a page is made of, and checks that its tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    @property
    def links(self):
        return [v for _, a in self.attributes for k, v in a.items() if k in ("src", "href")]


def read_page(folder):
    return Page((Path(folder) / "report.html").read_text(encoding="utf-8"))


def test_help_is_quick(repository):
    command = [sys.executable, "-c", "from analysis.cli import main; main()", "--help"]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("fronts", "test", "figures", "report"))
    assert min(times) < 0.5 or os.getloadavg()[0] > (os.cpu_count() or 1)


def test_report_tests_draws_and_writes_one_page(untested, mg_analysis):
    code, out, err = mg_analysis("report", untested.uri)
    assert (code, err) == (0, "")
    found = re.search(r"tested (\d+) of 12 checkpoints", out)
    assert found
    folder = Path(untested.uri) / "analysis"
    assert f"report: {folder / 'report.html'}" in out
    for name in ("figures/fig5.png", "figures/fig5.csv", "figures/fig6.csv", "tables/best.md"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / ".tmp").exists()
    page = read_page(folder)
    assert f"{found[1]} of 12 checkpoints" in page.text
    assert "Guidance sweep small" in page.text
    for landmark in ("header", "nav", "main", "footer"):
        assert page.tags.count(landmark) == 1
    assert page.tags.count("h1") == 1
    images = [attributes for tag, attributes in page.attributes if tag == "img"]
    drawn = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert {"fig2.png", "fig4.png", "fig5.png", "fig6.png"} <= {
        path.name for path in (folder / "figures").iterdir()
    }
    assert all(len(image["alt"]) > 40 for image in images)
    shown = {base64.b64decode(i["src"].removeprefix("data:image/png;base64,")) for i in images}
    assert shown == drawn


@pytest.fixture(scope="module")
def demo_report(demo, tmp_path_factory):
    """The folder of the demo's report."""
    from analysis.cli import report

    folder = tmp_path_factory.mktemp("report")
    report([demo.uri], out=folder)
    return folder


def test_the_page_needs_no_network_and_its_links_lead_somewhere(demo_report):
    page = read_page(demo_report)
    ids = {attributes["id"] for _, attributes in page.attributes if "id" in attributes}
    assert len(ids) == sum("id" in attributes for _, attributes in page.attributes)
    for link in page.links:
        assert link.startswith("data:") or link[1:] in ids, link[:60]
    labels = {a["aria-labelledby"] for tag, a in page.attributes if tag == "section"}
    assert labels <= ids
    text = (demo_report / "report.html").read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"url\(|@import|https?://", without_scripts)
    assert not re.search(r"<script[^>]*src", text)
    assert "nan" not in page.text.split()


def test_report_states_what_guidance_did_with_numbers(demo_report):
    text = " ".join(read_page(demo_report).text.split())
    found = re.search(
        r"Vanilla tiny guided by energy with λ = 0.005 on (ixg|gradcam) at final raised EPG from "
        r"([\d.]+) to ([\d.]+) % on test \(([\d.]+) times the baseline's\) at ([\d.]+) points of "
        r"F1 less",
        text,
    )
    assert found
    before, after, ratio, loss = map(float, found.groups()[1:])
    assert after / before == pytest.approx(ratio, abs=0.02)
    assert ratio > 2
    assert loss < 6
    assert re.search(r"at least doubled EPG in \d of 8 fronts on test", text)


def test_test_is_idempotent_and_says_how_many(untested, mg_analysis):
    first = mg_analysis("test", untested.uri)
    again = mg_analysis("test", untested.uri)
    assert first[0] == again[0] == 0
    assert re.fullmatch(r"tested \d+ of 12 checkpoints\n", first[1])
    assert first[1] == again[1]


def test_a_missing_checkpoint_is_a_sentence_and_a_page(untested, mg_analysis):
    results = read_results(untested)
    trial, epoch = results.selected.query("epoch > 0").iloc[0][["trial_id", "epoch"]]
    key = results.progress[trial].checkpoints[epoch]
    (Path(untested.uri) / key).unlink()
    code, out, err = mg_analysis("test", untested.uri)
    assert code == 1
    assert err == f"not tested: checkpoint {key} of {untested.uri!r} is missing\n"
    assert "tested" in out
    assert mg_analysis("report", untested.uri)[0] == 0
    assert f"{key} of" in read_page(Path(untested.uri) / "analysis").text


def test_missing_data_are_a_sentence(untested, mg_analysis, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "unrelated").write_text("")
    code, _, err = mg_analysis("test", untested.uri, "--data", folder)
    assert code == 2
    assert err.startswith("error: ")
    assert "elsewhere" in err
    assert len(err.splitlines()) == 1


def test_fronts_prints_sizes_and_writes_the_listing(demo, mg_analysis, tmp_path):
    code, out, _ = mg_analysis("fronts", demo.uri, "--out", tmp_path, "--objectives", "f1, epg")
    assert code == 0
    listing = (tmp_path / "tables" / "fronts.csv").read_text().splitlines()
    assert f"{len(listing) - 1} of 96 checkpoints are on a front" in out
    assert "val_iou" not in listing[0]


def test_figures_of_one_name_only(sweep, make_grid, mg_analysis, tmp_path):
    store = sweep(tmp_path / "store", make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    code, out, _ = mg_analysis("figures", store.uri, "--only", "fig6", "--out", tmp_path)
    assert code == 0
    assert out.strip() == str(tmp_path / "figures" / "fig6.png")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"fig6.{kind}" for kind in ("png", "pdf", "csv")
    }


STORES = {
    "empty": ({}, {}),
    "only a baseline": ({"vanilla_tiny": ()}, {}),
    "one configuration": ({"vanilla_tiny": ("ixg",)}, ONE),
    "running": ({"vanilla_tiny": ("ixg",)}, ONE | {"epochs_done": 2}),
    "only references": ({"vanilla_tiny": ("ixg",)}, ONE | {"epochs_done": 0}),
    "untested": ({"vanilla_tiny": ("ixg",)}, ONE | {"tested": False}),
}


@pytest.mark.parametrize("state", STORES)
def test_a_store_in_any_state_gives_a_useful_page(state, sweep, make_grid, mg_analysis, tmp_path):
    models, options = STORES[state][0], dict(STORES[state][1])
    epochs, tested = options.pop("epochs_done", None), options.pop("tested", True)
    configs = make_grid(models, **options)
    store = sweep(tmp_path / "store", configs, tested=tested, epochs=epochs)
    # Its weights do not exist, so whatever is left to test is listed as missing.
    code, out, _ = mg_analysis("report", store.uri)
    assert code == 0, out
    page = read_page(tmp_path / "store" / "analysis")
    assert "Summary" in page.text
    assert ("not finished" in page.text) == (state in {"running", "only references"})
    assert mg_analysis("fronts", store.uri)[0] == 0


def test_all_nan_gives_a_page(sweep, make_grid, mg_analysis, tmp_path):
    import pyarrow as pa

    store = sweep(tmp_path, make_grid({"vanilla_tiny": ("ixg",)}, **ONE))
    for trial, key in store.metrics_keys().items():
        rows, progress = store.read_rows(trial)
        for name in ("val_f1", "val_epg", "val_iou"):
            nan = pa.array([float("nan")] * len(rows))
            rows = rows.set_column(rows.column_names.index(name), name, nan)
        from mg_core.store.progress import FOOTER
        from mg_core.store.tables import to_parquet

        store.put(key, to_parquet(rows.replace_schema_metadata({FOOTER: progress.footer()})))
    assert mg_analysis("report", store.uri)[0] == 0
    assert read_results(store).n_selected == 0
    assert "Figures" in read_page(tmp_path / "analysis").text


def test_one_point_gives_a_figure(sweep, make_grid, mg_analysis, tmp_path):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",), epochs=1)
    store = sweep(tmp_path, configs[:2])
    assert mg_analysis("report", store.uri)[0] == 0
    listing = (tmp_path / "analysis" / "tables" / "fronts.csv").read_text().splitlines()
    assert len(listing) == 1 + 1
    assert (tmp_path / "analysis" / "figures" / "fig5.png").exists()


def test_failures_are_on_the_page(sweep, make_grid, mg_analysis, tmp_path):
    configs = make_grid({"vanilla_tiny": ("ixg",)}, ("final",), ("energy",))
    store = sweep(tmp_path, configs[:-1])
    store.put_trials({configs[-1].trial_id: configs[-1]})
    trial = configs[-1].trial_id
    record = {"trial_id": trial, "attempt": 1, "nonce": "00000000", "run": "", "how": "failed"}
    record |= {"kind": "bug", "error": "boom <x>", "traceback": "Traceback: boom"}
    record |= {"versions": {"torch": "9.9"}, "python": "3.12"}
    store.put(f"attempts/{trial}/0001-00000000.json", json.dumps(record).encode())
    assert mg_analysis("report", store.uri)[0] == 0
    text = read_page(tmp_path / "analysis").text
    assert "bug: boom <x>" in text
    assert "Traceback: boom" in text


def test_a_broken_or_newer_store_is_a_sentence(sweep, make_grid, mg_analysis, tmp_path):
    from mg_core.store.progress import FOOTER
    from mg_core.store.tables import to_parquet

    store = sweep(tmp_path / "newer", make_grid({"vanilla_tiny": ("ixg",)}))
    trial, key = next(iter(store.metrics_keys().items()))
    rows, progress = store.read_rows(trial)
    newer = replace(progress, format=99).footer()
    store.put(key, to_parquet(rows.replace_schema_metadata({FOOTER: newer})))
    shutil.copytree(store.uri, tmp_path / "torn")
    (tmp_path / "torn" / key).write_bytes(b"torn")
    shutil.copytree(store.uri, tmp_path / "yaml")
    (tmp_path / "yaml" / "sweep.yaml").write_text("name: [")
    for name in ("newer", "torn", "yaml"):
        code, _, err = mg_analysis("report", tmp_path / name)
        assert code == 2, name
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: "), err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--objectives", "f1,epq"],
            "unknown objective 'epq'; choose from f1, precision, recall, map, "
            "macro_f1, epg, iou, iou_at_0.5, pointing_game",
        ),
        (["--objectives", ","], "unknown objective ''"),
        (["--tolerance", "2"], "a tolerance is a fraction"),
        (["--out", "$UNSET/page"], "the variable $UNSET in '$UNSET/page' is not set"),
    ],
)
def test_wrong_options_are_sentences(demo, mg_analysis, arguments, sentence):
    code, _, err = mg_analysis("report", demo.uri, *arguments)
    assert code == 2
    assert sentence in err


def test_no_store_is_a_sentence(mg_analysis, tmp_path):
    for command in ("fronts", "test", "figures", "report"):
        code, _, err = mg_analysis(command, tmp_path / "none")
        assert code == 2
        assert "is not a result store" in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(demo, mg_analysis, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = mg_analysis("fronts", demo.uri, "--out", tmp_path / "file" / "below")
    assert code == 2
    assert "name another folder with --out" in err


def test_a_store_elsewhere_wants_a_folder(demo):
    remote = ResultStore("s3://bucket/store?region=us-east-1&endpoint_override=127.0.0.1:1")
    results = replace(read_results(demo), stores=(remote,))
    with pytest.raises(InputError, match="name a folder for the output with --out"):
        Output(results)
