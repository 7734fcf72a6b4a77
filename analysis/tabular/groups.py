"""Table 1 (Sec. 5.5), for Waterbirds as the paper has it and for any data set with groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.frame import with_tests
from analysis.results import Results
from analysis.selection import TABLE_1_SLACK, best_within
from analysis.settings import DATASETS, distinguishing
from analysis.tabular.formats import Table
from mg_core.columns import CONFIGURATION, PAIR, SPLITS
from mg_core.data.layouts.waterbirds import Waterbirds

RANK = {"baseline": 0, "energy": 1, "l1": 2}
"""Order of the losses, others come last."""
CHOICE = (
    "of the checkpoint with the highest validation EPG at a loss of at most 1 point of validation "
    "accuracy."
)


@dataclass(frozen=True)
class Chosen:
    """Baselines and the checkpoints that were chosen for them, one row each.

    Attributes:
        rows: with validation and test columns; a baseline's `loss` is "baseline".
        own: columns that tell the configurations apart, besides task and loss.
        split: whose accuracies count: those on test, or on validation where nothing was tested.
    """

    rows: pd.DataFrame
    own: list[str]
    split: str

    @classmethod
    def of(cls, rows: pd.DataFrame, tests: pd.DataFrame) -> Chosen:
        """Choose per seed the checkpoint that Table 1 does, of rows on data with groups."""
        is_elsewhere = any((rows[f"guided_{name}"] != rows[name]).any() for name in PAIR)
        guided = [f"guided_{name}" for name in PAIR]
        shown = {"model", "task", "loss", *(() if is_elsewhere else guided)}
        own = distinguishing(rows, [name for name in CONFIGURATION if name not in shown])
        own += ["model", *PAIR]
        best = with_tests(best_within(rows, "epg", "accuracy", TABLE_1_SLACK), tests)
        start = with_tests(rows[rows["is_reference"]], tests)
        start = start.drop_duplicates([*own, "task", "seed", "baseline"])
        both = pd.concat([start.assign(loss="baseline"), best], ignore_index=True)
        # Every seed has a baseline; a loss has those in which it was guided, chosen and tested.
        n_all = both.groupby([*own, "task"], dropna=False)["seed"].transform("nunique")
        rank = both["loss"].map(RANK).fillna(len(RANK))
        split = "test" if both["test_accuracy"].notna().any() else "val"
        return cls(both.assign(rank=rank, n_all=n_all), own, split)

    @property
    def measured(self) -> str:
        """What the cells of a table hold, in words."""
        return (
            f"on {SPLITS[self.split]} in %, mean ± standard deviation over "
            f"{self.rows['seed'].nunique()} seeds, {CHOICE}"
        )


def table_1(results: Results) -> Table:
    """Table 1: accuracy with groups, worst group and overall, mean ± standard deviation over seeds.

    Per seed, of the checkpoints whose validation accuracy is at most 1 point below the
    baseline's, the one with the highest validation EPG; deviations are those of a sample. A cell
    says so where seeds have no such checkpoint, or none that was tested.
    """
    chosen = Chosen.of(_of_waterbirds(_with_groups(results.selected)), results.tests)
    both, own, split = chosen.rows, chosen.own, chosen.split
    tasks = sorted(both["task"].dropna().unique())
    values = {"worst": f"{split}_accuracy_worst_group", "overall": f"{split}_accuracy"}
    cells = [
        dict(zip([*own, "rank", "loss"], key, strict=True))
        | {
            f"{task}, {name}": _mean_and_deviation(of_task.dropna(subset=column), column)
            for task, of_task in group.groupby("task")
            for name, column in values.items()
        }
        for key, group in both.groupby([*own, "rank", "loss"], dropna=False)
    ]
    names = [f"{task}, {name}" for task in tasks for name in values]
    title = (
        f"Table 1: accuracy of the worst group (waterbirds on land) and overall {chosen.measured}"
    )
    return Table("table1", title, pd.DataFrame(cells, columns=[*own, "loss", *names]))


def has_waterbirds(results: Results) -> bool:
    """Tell whether there are results for Table 1."""
    return not _of_waterbirds(_with_groups(results.rows)).empty


def group_tables(results: Results) -> list[Table]:
    """Return what Table 1 is to Waterbirds for all other data sets: the accuracy of every group.

    A row is a loss and a task, or the baseline; the checkpoints are those that Table 1 would
    choose. Data sets whose groups have other names have tables of their own.
    """
    rows = _with_groups(results.selected)
    names = group_names(rows)
    others = [own for own in dict.fromkeys(names) if own not in ((), Waterbirds.groups)]
    return [
        _group_table(
            rows[[own == groups for own in names]],
            results.tests,
            groups,
            "groups" if number == 1 else f"groups_{number}",
        )
        for number, groups in enumerate(others, start=1)
    ]


def with_accuracies(rows: pd.DataFrame, split: str, names: tuple[str, ...]) -> pd.DataFrame:
    """Return rows with a column for the accuracy of each group, by its place, NaN if unknown."""
    lists = rows[f"{split}_accuracy_by_group"]
    table = [
        list(values) if isinstance(values, np.ndarray | list) else [np.nan] * len(names)
        for values in lists
    ]
    return rows.assign(
        **{f"group {n}": column for n, column in enumerate(zip(*table, strict=True))}
    )


def _group_table(
    rows: pd.DataFrame, tests: pd.DataFrame, groups: tuple[str, ...], name: str
) -> Table:
    chosen = Chosen.of(rows, tests)
    own, split = chosen.own, chosen.split
    both = with_accuracies(chosen.rows, split, groups)
    own += ["task"] if both["task"].notna().any() else []
    values = _headed(groups, [*own, "loss"]) | {
        "worst group": f"{split}_accuracy_min_group",
        "mean of groups": f"{split}_accuracy_mean_group",
        "overall": f"{split}_accuracy",
    }
    cells = [
        dict(zip([*own, "rank", "loss"], key, strict=True))
        | {
            header: _mean_and_deviation(of_row.dropna(subset=column), column)
            for header, column in values.items()
        }
        for key, of_row in both.groupby([*own, "rank", "loss"], dropna=False)
    ]
    sets = ", ".join(DATASETS.get(data, data) for data in sorted(rows["dataset"].unique()))
    title = f"{sets}: accuracy of every group, of the worst and overall {chosen.measured}"
    return Table(name, title, pd.DataFrame(cells, columns=[*own, "loss", *values]))


def _headed(groups: tuple[str, ...], taken: list[str]) -> dict[str, str]:
    """Return the column of each group by its header: its name, unless another column has it."""
    reserved = {*taken, "worst group", "mean of groups", "overall"}
    return {
        f"group {name}" if name in reserved else name: f"group {number}"
        for number, name in enumerate(groups)
    }


def _with_groups(rows: pd.DataFrame) -> pd.DataFrame:
    # Images of one label each have an accuracy without any group, too.
    of_groups = rows[["val_accuracy_min_group", "val_accuracy_worst_group"]]
    return rows[of_groups.notna().any(axis=1)]


def _of_waterbirds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[own in ((), Waterbirds.groups) for own in group_names(rows)]]


def group_names(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the names of each row's groups; none in stores that are older than the names."""
    known = rows["val_groups"] if "val_groups" in rows else [None] * len(rows)
    return [tuple(own) if isinstance(own, np.ndarray | list) else () for own in known]


def _mean_and_deviation(known: pd.DataFrame, column: str) -> str | None:
    if known.empty:
        return None
    values = 100 * known[column].astype(float)
    text = f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")
    n_seeds, n_all = known["seed"].nunique(), known["n_all"].iloc[0]
    return text if n_seeds == n_all else f"{text} ({n_seeds} of {n_all} seeds)"
