"""Group accuracies against counting by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mg_core.errors import InputError
from mg_core.metrics import accuracy_by_group, group_accuracy

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


@given(images, st.integers(4, 9))
def test_any_number_of_groups_is_counted_by_hand(rows, n_groups):
    found = accuracy_by_group(*tensors(rows), n_groups)
    by_hand = [counted([row for row in rows if row[0] == group]) for group in range(n_groups)]
    sizes = [sum(row[0] == group for row in rows) for group in range(n_groups)]
    assert found["n_by_group"] == sizes
    for value, expected in zip(found["accuracy_by_group"], by_hand, strict=True):
        assert math.isnan(value) if expected is None else value == pytest.approx(expected)
    present = [value for value in by_hand if value is not None]
    assert found["accuracy"] == pytest.approx(counted(rows))
    assert found["accuracy_min_group"] == (pytest.approx(min(present)) if present else None)
    mean = sum(present) / len(present) if present else None
    assert found["accuracy_mean_group"] == pytest.approx(mean)


def test_waterbirds_have_their_columns_beside_those_of_any_groups():
    own = tensors([(0, 0, 0.0, 1.0), (2, 1, 0.0, 1.0)])
    assert group_accuracy(*own).items() >= {"accuracy_group_2": 1.0, "accuracy": 0.5}.items()
    assert not any("group_2" in name for name in accuracy_by_group(*own, 4))
