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


LONG = "what a library says " * 40
SAME = [
    ("bad batch 3 at epoch 12", "bad batch 40 at epoch 1"),
    ("cannot open '/data/a b/1.jpg'", "cannot open '/scratch/2.png'"),
    ("cannot open /data/x/1.jpg: no", "cannot open /y/2.png: no"),
    ("data/a/1.txt is gone", "data/b/22.txt is gone"),
    ("s3://b/k.parquet is gone", "s3://c/d/e.parquet is gone"),
    ("<Tensor at 0x7f00aa>", "<Tensor at 0x1b>"),
    ("shape [8, 3, 32, 32]", "shape [4, 3, 64, 64]"),
    ("loss 1.5e-03", "loss -2"),
    ("trial 96dccc6cf419b085", "trial 0123456789abcdef"),
    ("img_001.jpg is broken", "img_777.jpg is broken"),
    ("img001.jpg is broken", "cat.PNG is broken"),
    (f"{LONG} of batch 3", f"{LONG} of batch 14"),
    ("no answer from 10.0.0.1:6379", "no answer from 10.2.3.4:1234"),
    ("late since 2026-11-26T06:54:01", "late since 2025-01-01T10:00:00"),
]
OTHER = [
    ("there is no layer mid1", "there is no layer mid2"),
    ("index out of range", "device-side assert triggered"),
    ("'cat'", "'dog'"),
    ("weight and/or bias", "weight and bias"),
    (f"{LONG} of the head", f"{LONG} of the backbone"),
]


@pytest.mark.parametrize("kind", [RuntimeError, InputError, OSError])
def test_failures_are_told_apart_by_what_they_say(kind):
    # All of them are raised by one line, as in a library.
    def known(text):
        return failure(lambda: raised(kind(text))).signature

    assert [pair for pair in SAME if known(pair[0]) != known(pair[1])] == []
    assert [pair for pair in OTHER if known(pair[0]) == known(pair[1])] == []
    assert known("a") != failure(lambda: raised(ValueError("a"))).signature
    where = f"{kind.__name__} at test_failures.py:{raised.__code__.co_firstlineno + 1}, "
    assert known("").startswith(where)
    assert known("") == known("")


def test_a_failure_without_words_is_known_by_the_lines_that_led_to_it():
    def first():
        raised(AssertionError())

    def second():
        raised(AssertionError())

    found = [failure(work).signature for work in (first, first, second)]
    assert found[0] == found[1] != found[2]


def test_a_failure_is_known_by_what_it_was_raised_from():
    def wrapped(cause):
        def work():
            try:
                raised(cause)
            except Exception as error:
                raise RuntimeError("the batch cannot be built") from error

        return failure(work).signature

    assert wrapped(KeyError("box")) != wrapped(KeyError("mask"))
    own = RuntimeError("of itself")
    own.__cause__ = own
    assert failure(lambda: raised(own)).signature == "RuntimeError: of itself"
    assert wrapped(ValueError("image 3 is empty")) == wrapped(ValueError("image 9 is empty"))


def test_a_record_has_all_that_is_known_and_no_secret(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "hunter2-hunter2")
    record = failure(lambda: raised(NumericalError("nan hunter2-hunter2", ["im1", "im2"]))).record()
    assert record["kind"] == "numerical"
    assert record["images"] == ("im1", "im2")
    assert record["log"] == ("a line",)
    assert record["error"] == "nan ***"
    assert "Traceback" in record["traceback"]
    assert "hunter2" not in str(record).replace('hunter2-hunter2"', "")
