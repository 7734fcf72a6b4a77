"""Logs of trials: their content, their size, and no secrets."""

import logging
import threading
import time
import warnings

import pytest

from mg_core.training.log import LOG_BYTES, TAIL_LINES, TrialLog, redacted


@pytest.fixture
def log():
    """Return a started log and the list of texts that it published."""
    published = []
    log = TrialLog(published.append)
    log.start()
    assert published == []  # There is nothing to say yet.
    yield log, published
    log.stop()


def test_pythons_logging_and_warnings_are_in_it(log):
    log, published = log
    log.write("epoch 1")
    logging.getLogger("somebody").warning("it is %s", "late")
    warnings.warn("watch out", stacklevel=1)
    log.stop()
    logging.getLogger("somebody").warning("afterwards")
    text = published[-1]
    lines = [line.split(" ", 1)[1] for line in text.splitlines()]
    assert lines[0] == "epoch 1"
    assert lines[1] == "WARNING somebody: it is late"
    assert any("watch out" in line for line in lines[2:])
    assert "afterwards" not in text


def test_the_newest_lines_stay_within_bounds(log):
    log, published = log
    for number in range(3000):
        log.write(f"line {number} " + "x" * 40)
    log.write("y" * (2 * LOG_BYTES))
    log.write("the last one")
    log.publish()
    assert len(published[0]) <= LOG_BYTES
    assert published[0].endswith("the last one\n")
    assert len(log.tail()) <= TAIL_LINES


def test_it_is_written_out_at_once_and_while_an_epoch_lasts(monkeypatch):
    monkeypatch.setattr("mg_core.training.log.LOG_SECONDS", 0.02)
    published, enough = [], threading.Event()

    def publish(text):
        published.append(text)
        if "in the middle" in text:
            enough.set()

    log = TrialLog(publish)
    log.write("begun")
    log.start()
    assert len(published) == 1
    log.write("in the middle of an epoch")
    assert enough.wait(10)
    n_published = len(published)
    log.stop()
    assert len(published) == n_published  # Nothing was new.


def test_a_log_that_was_interrupted_at_its_start_still_ends():
    def interrupt(text):
        raise KeyboardInterrupt

    log = TrialLog(interrupt)
    log.write("begun")
    with pytest.raises(KeyboardInterrupt):
        log.start()
    log.stop()
    assert log not in logging.getLogger().handlers


def test_the_last_text_comes_last(monkeypatch):
    monkeypatch.setattr("mg_core.training.log.LOG_SECONDS", 0.02)
    published, is_away, is_back = [], threading.Event(), threading.Event()

    def slow(text):
        if "middle" in text and "end" not in text:
            is_away.set()
            assert is_back.wait(10)
        published.append(text)

    log = TrialLog(slow)
    log.write("begun")
    log.start()
    log.write("middle")
    assert is_away.wait(10)
    log.write("end")
    threading.Timer(0.1, is_back.set).start()
    log.stop()
    time.sleep(0.1)
    assert "end" in published[-1]


def test_a_store_that_refuses_the_log_is_no_failure():
    def refuse(text):
        raise OSError("full")

    log = TrialLog(refuse)
    log.write("a")
    log.publish()
    assert log.tail()[-1].endswith("this log could not be written: full")


def test_secrets_of_the_environment_are_blacked_out(log, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+12345")
    monkeypatch.setenv("SHORT_TOKEN", "no")
    log, _ = log
    log.write("denied for abc/def+12345, no more")
    assert log.tail()[0].endswith("denied for ***, no more")
    assert redacted("nothing") == "nothing"
