"""Progress of long work, in a terminal and without one."""

import re

from mg_core import progress


def test_without_a_terminal_a_line_comes_every_ten_seconds(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bars("decoding") as report:
        for now in range(25):
            report("train", now, 40)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "decoding train: 10 of 40, about 30 s left",
        "decoding train: 20 of 40, about 20 s left",
    ]


def test_what_was_done_before_does_not_count_as_speed(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bars() as report:
        report("loading", 100, 200)
        now = 10.0
        report("loading", 150, 200)
    assert capsys.readouterr().err == "loading: 150 of 200, about 10 s left\n"


def test_a_terminal_shows_a_bar_for_each_name(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.progress_bars("decoding") as report:
        report("train", 3, 4)
        report("val", 1, 2)
    shown = capsys.readouterr().err
    assert re.search(r"decoding train.*3/4", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))
    assert "left" not in shown
