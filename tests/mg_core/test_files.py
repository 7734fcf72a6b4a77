"""Files of a store whose folders come and go while they are listed."""

import contextlib
import threading
import time

import pytest

from mg_core.files import Files

SECONDS = 1.5
"""Long enough for some twenty listings to meet a folder in the making."""


@pytest.fixture
def coming_and_going(tmp_path):
    """Make and remove one folder as fast as the disk allows."""
    is_over = threading.Event()

    def make_and_remove():
        while not is_over.is_set():
            (tmp_path / "data").mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                (tmp_path / "data").rmdir()

    thread = threading.Thread(target=make_and_remove)
    thread.start()
    yield
    is_over.set()
    thread.join()


@pytest.mark.usefixtures("coming_and_going")
def test_a_folder_that_is_made_at_that_moment_can_be_listed(tmp_path):
    files = Files(str(tmp_path))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert files.keys("data") == []
