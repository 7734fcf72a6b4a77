"""Group accuracies against counting by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mg_core.errors import InputError
from mg_core.metrics import group_accuracy

images = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1), st.floats(-5, 5), st.floats(-5, 5)),
    max_size=30,
)


def tensors(rows):
    groups = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    labels = torch.zeros(len(rows), 2, dtype=torch.bool)
    for i, row in enumerate(rows):
        labels[i, row[1]] = True
    logits = torch.tensor([row[2:] for row in rows], dtype=torch.float64).reshape(-1, 2)
    return logits, labels, groups


def counted(rows):
    chosen = [(y, int(b > a)) for _, y, a, b in rows]
    return sum(y == k for y, k in chosen) / len(chosen) if chosen else None


@given(images)
def test_accuracies_are_those_counted_by_hand(rows):
    found = group_accuracy(*tensors(rows))
    groups = [counted([row for row in rows if row[0] == group]) for group in range(4)]
    assert found["accuracy"] == pytest.approx(counted(rows))
    assert [found[f"accuracy_group_{group}"] for group in range(4)] == pytest.approx(groups)
    assert found["accuracy_worst_group"] == found["accuracy_group_2"]
    present = [value for value in groups if value is not None]
    assert found["accuracy_min_group"] == (pytest.approx(min(present)) if present else None)


def test_the_worst_group_is_a_fixed_one_and_the_lowest_any():
    rows = [(0, 0, 0.0, 1.0), (2, 1, 0.0, 1.0), (2, 1, 1.0, 0.0)]
    found = group_accuracy(*tensors(rows))
    assert found["accuracy_worst_group"] == 0.5
    assert found["accuracy_min_group"] == 0.0
    assert found["accuracy_group_1"] is None


def test_a_diverged_model_has_no_accuracy():
    logits, labels, groups = tensors([(0, 0, 1.0, 0.0), (1, 0, 1.0, 0.0)])
    logits[1, 1] = math.nan
    found = group_accuracy(logits, labels, groups)
    assert found["accuracy_group_0"] == 1
    assert all(math.isnan(found[f"accuracy{name}"]) for name in ("", "_group_1", "_min_group"))


def test_shapes_and_groups_are_checked():
    logits, labels, groups = tensors([(0, 0, 1.0, 0.0)])
    with pytest.raises(InputError, match=r"groups must have shape \(1,\), not \(0,\)"):
        group_accuracy(logits, labels, groups[:0])
    with pytest.raises(
        InputError, match=r"logits and labels .* \(N, K\), not \(1, 2\) and \(0, 2\)"
    ):
        group_accuracy(logits, labels[:0], groups)
    with pytest.raises(InputError, match=r"groups must be in \[0, 4\)"):
        group_accuracy(logits, labels, groups + 4)
