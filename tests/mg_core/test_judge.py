"""By which metric the best epoch of a baseline is known."""

import pyarrow as pa

from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt, kept_epochs
from mg_core.store.tables import METRICS

OBJECTIVES = ("f1", "epg", "iou")


def test_a_baseline_keeps_the_epoch_that_its_judge_prefers(baseline, tmp_path):
    def rows(f1, accuracy):
        return [{"kind": "baseline", "val_f1": f1, "val_accuracy": accuracy}]

    def table(values):
        found = [row | {"epoch": e} for e, v in enumerate(values, 1) for row in rows(*v)]
        return pa.Table.from_pylist(found, schema=METRICS)

    values = [(0.9, 0.1), (0.2, 0.8), (0.3, 0.8)]
    assert kept_epochs(table(values), OBJECTIVES) == {1}
    assert kept_epochs(table(values), OBJECTIVES, "accuracy") == {2}
    assert kept_epochs(table([*values, (0.95, None)]), OBJECTIVES, "accuracy") == {4}
    # A trial that began when F1 was the judge keeps what it has until an epoch is better in both.
    store = ResultStore(str(tmp_path))
    config = baseline.model_copy(update={"epochs": 3})
    first = Attempt(store, config, OBJECTIVES, "r")
    for epoch, found in ((1, (0.2, 0.8)), (2, (0.9, 0.1))):
        first.commit(epoch, rows(*found), bytes, bytes)
    second = Attempt(store, config, OBJECTIVES, "r", judge="accuracy")
    assert second.commit(3, rows(0.3, 0.5), bytes, bytes).checkpoints.keys() == {2}
