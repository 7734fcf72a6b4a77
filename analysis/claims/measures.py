"""What findings are judged by: volumes of fronts and chosen checkpoints, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.efforts import hours_of_trials
from analysis.frame import with_percent, with_tests
from analysis.indicators import hypervolume, reference_point
from analysis.pareto import numbered
from analysis.results import Results
from analysis.selection import SLACK, best_within, guided_there
from mg_core.columns import COLUMNS, CONFIGURATION, PAIR, RUN, SCORES, TABLE

PANEL = [name for name in CONFIGURATION if name != "loss"]
"""What the losses that are compared with each other share."""

VALUES = [name for name in SCORES if name not in COLUMNS]
"""Metrics that findings may compare; `precision` is a column of the configuration already."""


@dataclass(frozen=True)
class Measures:
    """Selected checkpoints with the values that count, in percent.

    Attributes:
        rows: one per checkpoint and judged pair: `KEY`, configuration, validation metrics, and
            `VALUES` on test (on validation where nothing was tested) under their own names.
        step_seconds: median time of a training step of each trial.
        is_finished: whether no trial is missing, and no test of a selected checkpoint.
        elsewhere: chosen checkpoints as attributions that were not guided judge them, with the
            same columns; see `analysis.selection.judged_elsewhere`.
        hours: annotation time of each trial.
    """

    rows: pd.DataFrame
    step_seconds: pd.Series
    is_finished: bool
    elsewhere: pd.DataFrame
    hours: pd.Series = field(default_factory=lambda: pd.Series(dtype="float64"))

    @classmethod
    def of(cls, results: Results) -> Measures:
        """Take them from results; see `tested_rows`."""
        shown, split = tested_rows(results)
        rows = with_percent(shown[list(results.selected)], shown, split, VALUES)
        elsewhere = with_tests(results.elsewhere, results.tests)
        elsewhere = with_percent(elsewhere, elsewhere, split, VALUES)
        trained = results.rows[(results.rows["kind"] == "guided") & (results.rows["epoch"] >= 1)]
        seconds = trained.groupby("trial_id")["seconds_step"].median()
        is_run = results.states["complete"] == len(results.trials)
        is_finished = is_run and (split == "val" or len(shown) == len(results.selected))
        known = elsewhere[elsewhere[f"{split}_f1"].notna()].assign(is_reference=False)
        kept = [name for name in rows if name in known]
        hours = hours_of_trials(results).set_index("trial_id")["hours"]
        return cls(rows.reset_index(drop=True), seconds, is_finished, known[kept], hours)

    @classmethod
    def of_published(cls, published: pd.DataFrame) -> Measures:
        """Take them from tables of others, see `analysis.published`.

        The baseline of a model, attribution and layer is the reference of all that was guided
        there; where several are given, the first. Checkpoints are chosen among those that the
        tables have, on their validation values; test values stand in where there are none, as
        often for baselines.
        """
        rows = with_references(published)
        missing = pd.Series(np.nan, index=rows.index)
        val, test = (
            {name: rows.get(f"{split}_{name}", missing) for name in VALUES}
            for split in ("val", "test")
        )
        known = {f"val_{name}": val[name].fillna(test[name]).astype(float) for name in VALUES}
        described = rows[[n for n in rows if not str(n).startswith(("val_", "test_"))]]
        shown = pd.concat([described, pd.DataFrame(known)], axis=1)
        rows = with_percent(shown, rows, "test", VALUES)
        return cls(rows, pd.Series(dtype="float64"), False, rows.iloc[:0])

    @property
    def guided_there(self) -> pd.DataFrame:
        """Rows judged where they were guided."""
        return guided_there(self.rows).reset_index(drop=True)

    def chosen(
        self, rows: pd.DataFrame, by: str = "epg", constraint: str = "f1", slack: float = SLACK
    ) -> pd.DataFrame:
        """Return one checkpoint per configuration and seed, chosen on validation.

        It has the highest `by` among those whose `constraint` is at most `slack` below that of
        epoch 0. Where a finished sweep has no such checkpoint, the baseline is taken, as epoch 0
        of the trial with the smallest λ: to leave such runs out would favour what fails. Columns
        `start_…` hold the values of epoch 0. `slack` is a fraction.
        """
        rows = rows.assign(place=numbered(rows, [*CONFIGURATION, *RUN, *PAIR]))
        best = best_within(rows.drop(columns="front"), by, constraint, slack)
        start = rows[rows["is_reference"]]
        tried = set(rows.loc[~rows["is_reference"], "place"]) if self.is_finished else set()
        failed = start[start["place"].isin(tried - set(best["place"]))]
        stands = failed.sort_values("localization_weight", kind="stable").drop_duplicates("place")
        key = ["trial_id", *PAIR]
        before = start[[*key, *VALUES]].rename(columns={name: f"start_{name}" for name in VALUES})
        together = pd.concat([best, stands], ignore_index=True) if len(stands) else best
        return together.drop(columns="place").merge(before, on=key, how="left")


def with_references(published: pd.DataFrame) -> pd.DataFrame:
    """Give each configuration of published rows a trial of its own, begun by its baseline.

    Returns:
        Guided rows in `trial_id`s by configuration, and before each the baseline's row as epoch
        0, where there is one. Boxes are the usual ones where nothing is said of them.
    """
    rows = published.copy()
    for column in TABLE:
        if column.part == "boxes":
            rows[column.name] = rows[column.name].fillna(column.usual).infer_objects()
    place = ["source", "dataset", "model", *PAIR]
    numbers = numbered(rows, [*CONFIGURATION, *RUN, *PAIR])
    rows["trial_id"] = rows["source"] + " " + numbers.astype(str)
    starts = rows[rows["is_reference"]].drop_duplicates(place)
    guided = rows[~rows["is_reference"]]
    # The table of a baseline may have no epoch, and that of a checkpoint need not count from 1.
    guided = guided.assign(epoch=guided["epoch"].clip(lower=1))
    own = [*CONFIGURATION, *RUN, "trial_id"]
    trials = guided.drop_duplicates("trial_id")
    taken = [name for name in starts if name not in own or name in place]
    begun = trials[list(dict.fromkeys([*own, *place]))].merge(starts[taken], on=place)
    return pd.concat([begun.assign(epoch=0), guided], ignore_index=True)


def tested_rows(results: Results) -> tuple[pd.DataFrame, str]:
    """Return the selected rows that were tested and `test`, or all and `val` where none was."""
    rows = results.tested
    is_tested = rows["test_f1"].notna()
    return (rows[is_tested], "test") if is_tested.any() else (rows, "val")


def gained(chosen: pd.DataFrame, is_whole: pd.Series) -> pd.Series:
    """Return the EPG that chosen checkpoints gained over their baselines, in points.

    `is_whole` (rows,) marks the rows whose gain others are divided by. Where such a row is the
    baseline itself, its gain of 0 cannot be a divisor and is missing.
    """
    gain: pd.Series = (chosen["epg"] - chosen["start_epg"]).astype("float64")
    return gain.mask(is_whole & chosen["is_reference"])


def with_all_boxes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows guided by every box as it is, on a data set without groups."""
    return with_usual_boxes(rows[rows["task"].isna()])


def with_usual_boxes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows guided by every box as it is."""
    is_usual = pd.Series(True, index=rows.index)
    for column in TABLE:
        if column.part == "boxes":
            is_usual &= rows[column.name] == column.usual
    return rows[is_usual].reset_index(drop=True)


def by_boxes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows guided by boxes, dilated ones too: other annotations have own findings."""
    return rows[rows["annotation"] == "box"].reset_index(drop=True)


def volume_shares(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the hypervolume of each loss in (F1, metric), as a share of all losses' together.

    All losses of a panel and seed are measured against one reference point, the component-wise
    minimum of the baseline and everybody's points. Each panel and seed has a row: `configuration`
    (the panel's number), the panel's columns, and one column per loss, in percent; a loss that
    was not run there has NaN.
    """
    numbers = numbered(rows, [*PANEL, *PAIR])
    found = []
    for _, group in rows.assign(configuration=numbers).groupby(["configuration", *RUN]):
        points = group[["f1", metric]].to_numpy(dtype=np.float64)
        if np.isnan(points).any(axis=1).all():
            continue
        reference = reference_point(points)
        guided = group[~group["is_reference"]]
        whole = hypervolume(guided[["f1", metric]], reference)
        shares = {
            str(loss): 100 * hypervolume(own[["f1", metric]], reference) / whole
            for loss, own in guided.groupby("loss")
            if whole > 0
        }
        found.append(group.iloc[0][["configuration", *PANEL]].to_dict() | shares)
    # Without any row there would be no columns either.
    return pd.DataFrame(found, columns=None if found else ["configuration", *PANEL])


def paired(chosen: pd.DataFrame, across: str, values: Sequence[str]) -> pd.DataFrame:
    """Lay chosen checkpoints out with one column per value of `across`, a row per the rest.

    `configuration` numbers all that is shared but the seed. Several `values` give each value of
    `across` as many columns. Where several rows share everything, their mean is taken.
    """
    rest = [name for name in CONFIGURATION if name != across]
    return laid_out(chosen.assign(configuration=numbered(chosen, rest)), across, values)


def laid_out(rows: pd.DataFrame, across: str, values: Sequence[str]) -> pd.DataFrame:
    """Lay out rows that have their number in `configuration` already; see `paired`."""
    index = ["configuration", "seed"]
    # Columns of no rows have no type of their own.
    rows = rows.astype(dict.fromkeys(values, "float64"))
    wide = rows.pivot_table(index=index, columns=across, values=list(values)).dropna(how="all")
    names = wide.columns if len(values) > 1 else wide.columns.get_level_values(1)
    numbers = wide.index.get_level_values("configuration")
    columns = {name: wide.iloc[:, place].to_numpy() for place, name in enumerate(names)}
    return pd.DataFrame({"configuration": numbers, **columns})


def by_column(rows: pd.DataFrame, across: str, value: str) -> pd.DataFrame:
    """Give each value of `across` a column that is known in its own rows alone.

    Statistics that compare means of different configurations need this. The loss is no part of
    the configurations that are resampled.
    """
    keys = sorted(map(str, rows[across].unique()))
    columns = {key: rows[value].where(rows[across] == key).to_numpy() for key in keys}
    return pd.DataFrame({"configuration": numbered(rows, PANEL), **columns})
