"""What annotations cost: published times, and the hours that a trial's annotations take.

The times are those of drawing what guides a trial. Image labels, which every rung of the ladder and
the baseline need too, come on top: 20 seconds an image for the 20 classes of PASCAL VOC, one second
a class (Bearman et al., ECCV 2016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from mg_core.errors import InputError
from mg_core.recipe import Named

if TYPE_CHECKING:
    from analysis.results import Results

HOUR = 3600.0


@dataclass(frozen=True)
class Effort:
    """How long an annotator takes.

    Attributes:
        seconds: for one object.
        further: for each further item of the same object, where an annotation has a `count`.
        source: who measured it.
    """

    seconds: float
    further: float = 0.0
    source: str = ""


EFFORTS: Mapping[str, Effort] = {
    "mask": Effort(79.0, source="Lin et al., ECCV 2014: 22 hours for 1,000 outlines (COCO)"),
    "box": Effort(
        35.0,
        source="Su et al., AAAI workshops 2012: drawn and checked; by extreme clicking it takes "
        "7 seconds (Papadopoulos et al., ICCV 2017)",
    ),
    "points": Effort(
        2.4,
        0.9,
        "Bearman et al., ECCV 2016: the first click on a class, and each further one; theirs were "
        "on further objects",
    ),
    "random_box": Effort(35.0, source="the control: as a box"),
    "none": Effort(0.0, source="nothing is drawn"),
}
"""By annotation; boxes that are off take as long as others."""


def hours_of_trials(results: Results) -> pd.DataFrame:
    """Return the annotation time of each guided trial; see `analysis.annotation_hours`."""
    rows = results.rows[(results.rows["kind"] == "guided") & (results.rows["epoch"] >= 1)]
    objects = rows.groupby("trial_id")["n_annotated_objects"].max().astype("float64")
    found = []
    for trial_id, n_objects in objects.items():
        config = results.trials[str(trial_id)]
        assert config.guidance is not None
        each = seconds_of(config.guidance.annotation, results.seconds)
        found.append(
            {
                "trial_id": trial_id,
                "annotation": str(config.guidance.drawn),
                "annotated_fraction": config.guidance.annotated_fraction,
                "n_annotated_objects": n_objects,
                "seconds": each,
                "hours": n_objects * each / HOUR,
            }
        )
    columns = ["trial_id", "annotation", "annotated_fraction", "n_annotated_objects"]
    return pd.DataFrame(found, columns=[*columns, "seconds", "hours"])


def seconds_of(annotation: Named, own: Mapping[str, float]) -> float:
    """Return the seconds that one object takes, NaN if nobody said how long.

    `own` has the user's seconds for one object by annotation; further items stay as published.
    """
    published = EFFORTS.get(annotation.name, Effort(math.nan))
    n_further = int(annotation.arguments.get("count", 1)) - 1
    return own.get(annotation.name, published.seconds) + published.further * n_further


def with_seconds(results: Results, seconds: Mapping[str, float] | None) -> Results:
    """Return results whose annotations take the user's own seconds for an object.

    Raises:
        InputError: no such annotation is known or was used, or a time is no number of seconds.
    """
    if not seconds:
        return results
    guidances = (config.guidance for config in results.trials.values())
    known = [*EFFORTS, *(g.annotation.name for g in guidances if g)]
    for name, value in seconds.items():
        if name not in known:
            allowed = ", ".join(dict.fromkeys(known))
            raise InputError(f"seconds: no annotation is called {name!r}; choose from {allowed}")
        if not 0 <= value < math.inf:
            raise InputError(f"seconds: {name} takes {value} seconds, and must take at least 0")
    return replace(results, seconds=dict(seconds))
