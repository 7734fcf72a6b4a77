"""Tables of older versions, which lack columns that were declared since."""

import pyarrow as pa

from mg_core.store.tables import METRICS, conformed

OLD = METRICS.remove(METRICS.get_field_index("annotated_fraction"))
OLD = OLD.remove(OLD.get_field_index("val_epg"))


def table(kind):
    row = {"trial_id": "t", "kind": kind, "epoch": 1, "val_f1": 0.5}
    return pa.Table.from_pylist([row, row], schema=OLD)


def test_an_axis_that_a_file_is_too_old_to_have_is_at_its_usual_value():
    assert conformed(table("guided"), METRICS)["annotated_fraction"].to_pylist() == [1.0, 1.0]
    assert conformed(table("baseline"), METRICS)["annotated_fraction"].to_pylist() == [None, None]


def test_a_metric_that_a_file_is_too_old_to_have_is_missing():
    found = conformed(table("guided"), METRICS)
    assert found.schema.equals(METRICS)
    assert found["val_epg"].to_pylist() == [None, None]
    assert found["val_f1"].to_pylist() == [0.5, 0.5]
