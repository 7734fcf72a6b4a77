"""Failures: what kind they are, and which are the same."""

import errno

import pytest
import torch

from mg_core.errors import InputError, NodeError, NumericalError, StorageError
from mg_core.store.ledger import FAILURE_KINDS
from mg_core.training.failures import Failure, failure_kind


def allocate_on_host():
    torch.empty(2**60, dtype=torch.uint8)


def raised(error):
    raise error


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda: raised(InputError("x")), "data"),
        (lambda: raised(NodeError("x")), "node"),
        (lambda: raised(NumericalError("x")), "numerical"),
        (lambda: raised(torch.OutOfMemoryError("x")), "gpu-memory"),
        (lambda: raised(OSError(errno.ENOMEM, "x")), "host-memory"),
        (lambda: raised(MemoryError()), "host-memory"),
        (allocate_on_host, "host-memory"),
        (lambda: raised(StorageError(errno.ENOSPC, "x")), "storage"),
        (lambda: raised(FileNotFoundError("of the user's own")), "bug"),
        (lambda: {}["x"], "bug"),
    ],
)
def test_every_exception_has_a_kind(work, kind):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
        work()
    assert failure_kind(caught.value) == kind
    assert kind in FAILURE_KINDS


def failure(work):
    try:
        work()
    except Exception as error:
        return Failure.of(error, ["a line"])


def test_the_same_bug_is_known_by_its_line_and_a_mistake_by_its_sentence():
    def bug(number):
        raise ValueError(f"number {number}")

    first, second = (failure(lambda n=n: bug(n)) for n in (1, 2))
    assert first.signature == second.signature
    assert first.error != second.error
    other = failure(lambda: raised(ValueError("number 1")))
    assert other.signature != first.signature
    mistakes = [failure(lambda t=t: raised(InputError(t))).signature for t in ("a", "a", "b")]
    assert mistakes[0] == mistakes[1] != mistakes[2]


def test_a_record_has_all_that_is_known_and_no_secret(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "hunter2-hunter2")
    record = failure(lambda: raised(NumericalError("nan hunter2-hunter2", ["im1", "im2"]))).record()
    assert record["kind"] == "numerical"
    assert record["images"] == ("im1", "im2")
    assert record["log"] == ("a line",)
    assert record["error"] == "nan ***"
    assert "Traceback" in record["traceback"]
    assert "hunter2" not in str(record).replace('hunter2-hunter2"', "")
