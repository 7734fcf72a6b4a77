"""The tables of a study, computed as frames."""

from __future__ import annotations

import pandas as pd

from analysis.frame import with_tests
from analysis.results import Results
from analysis.selection import SLACK, TABLE_1_SLACK, best_within, guided_there
from analysis.settings import describing, distinguishing
from analysis.tabular.formats import Table
from analysis.tabular.volumes import attained, volumes
from mg_core.columns import AXES, BY_METRIC, CONFIGURATION, PAIR, SPLITS, configured

BASELINE_SETTING = ["dataset", "dataset_options", "image_size", "horizontal_flip"]
"""What a baseline shares with the guided trials that start from it, besides model and weights."""

TRAINING = [column for column in AXES if column.part == "training" and column.name != "seed"]
"""How a trial is trained."""


def tables(results: Results) -> list[Table]:
    """Return all tables of a store."""
    makers = [guidance_gains, best_by_metric, baselines, volumes, attained, front_listing]
    if results.rows["val_accuracy_worst_group"].notna().any():
        makers.insert(0, table_1)
    return [make(results) for make in makers]


def front_listing(results: Results) -> Table:
    """List every checkpoint that is on a front, with what it got on both splits."""
    tested = results.tested[~results.tested["is_reference"]]
    kept = [
        epoch in results.progress[trial].checkpoints
        for trial, epoch in zip(tested["trial_id"], tested["epoch"], strict=True)
    ]
    own = _describing(tested)
    columns = [*own, "localization_weight", "epoch", *_metrics(results), "trial_id"]
    if not all(kept):
        # Fronts over other objectives than the sweep's hold points that it did not keep.
        tested = tested.assign(is_kept=kept)
        columns.append("is_kept")
    frame = tested.sort_values([*own, "val_f1"], kind="stable", ignore_index=True)
    title = (
        f"Checkpoints that are non-dominated on validation in {results.objectives_in_words}, over "
        "λ and epochs, per configuration and seed (%)."
    )
    return Table("fronts", title, frame[columns])


def front_sizes(results: Results) -> Table:
    """Count the points of every front, and give the largest value of each objective on it."""
    selected = results.selected[~results.selected["is_reference"]]
    largest = {f"val_{name}": (f"val_{name}", "max") for name in results.objectives}
    own = _describing(selected)
    fronts = selected.groupby(["front", *own], dropna=False, sort=False)
    frame = fronts.agg(n_points=("epoch", "size"), **largest).reset_index().drop(columns="front")
    title = "Points on each front, and the largest value of each objective on validation."
    return Table("front_sizes", title, frame.sort_values(own, kind="stable", ignore_index=True))


def best_by_metric(results: Results) -> Table:
    """For every front the checkpoint with the best value of each objective on validation.

    Of equal values the earlier epoch is taken, then the smaller λ.
    """
    tested = results.tested[~results.tested["is_reference"]]
    parts = []
    for name in results.objectives:
        order = [f"val_{name}", "epoch", "localization_weight"]
        ranked = tested.sort_values(order, ascending=[False, True, True], kind="stable")
        parts.append(ranked.drop_duplicates("front").assign(best_by=BY_METRIC[name].header))
    best = pd.concat(parts).sort_values("front", kind="stable")
    own = _describing(tested)
    columns = [*own, "best_by", "localization_weight", "epoch", *_metrics(results)]
    frame = best.sort_values(own, kind="stable", ignore_index=True)
    title = "The checkpoint of each front that is best on validation by each metric (%)."
    return Table("best", title, frame[columns])


def baselines(results: Results) -> Table:
    """Every baseline's checkpoint as each evaluated (attribution, layer) judges it.

    A baseline that no guided trial has started from has its classification alone.
    """
    start = results.tested[results.tested["is_reference"]]
    best = {t: epoch for t, found in results.progress.items() for epoch in found.checkpoints}
    alone = results.rows[
        (results.rows["kind"] == "baseline")
        & (results.rows["epoch"] == results.rows["trial_id"].map(best))
        & ~results.rows["trial_id"].isin(start["baseline"])
    ]
    alone = with_tests(alone, results.tests).assign(baseline=alone["trial_id"].to_numpy())
    parts = [part for part in (start, alone) if len(part)]
    found = pd.concat(parts, ignore_index=True) if parts else start
    # Rows of guided trials have their own training; a baseline is described by that of its own.
    trained = {
        column.name: [configured(results.trials.get(b), column) for b in found["baseline"]]
        for column in TRAINING
    }
    found = found.assign(**trained)
    setting = [*BASELINE_SETTING, *trained]
    own = [*distinguishing(found, setting), "model", *distinguishing(found, ["weights"])]
    own += [*PAIR, *distinguishing(found, ["seed"]), "baseline"]
    frame = found.drop_duplicates(own).sort_values(own, kind="stable", ignore_index=True)
    title = "Baselines before guidance, as each attribution and layer judges them (%)."
    return Table("baselines", title, frame[[*own, *_metrics(results)]])


def guidance_gains(results: Results) -> Table:
    """What guidance did to EPG at a bounded loss of F1, per configuration and seed.

    The checkpoint is the one with the highest validation EPG among those whose validation F1 is
    at most `SLACK` below the baseline's; baseline and checkpoint are judged where guidance acted.
    A front without such a checkpoint has no row.
    """
    selected = results.selected
    rows = guided_there(selected)
    best = with_tests(best_within(rows, "epg", "f1", SLACK), results.tests)
    start = with_tests(selected[selected["is_reference"]], results.tests)
    key = ["trial_id", *PAIR]
    start = start[[*key, *(f"{split}_{metric}" for split in SPLITS for metric in ("f1", "epg"))]]
    best = best.merge(start, on=key, how="left", suffixes=("", "_start"))
    own = _describing(best, judged=False)
    columns = [*own, "localization_weight", "epoch"]
    for split in SPLITS:
        best[f"{split}_epg_ratio"] = best[f"{split}_epg"] / best[f"{split}_epg_start"]
        shown = ["f1_start", "f1", "epg_start", "epg", "epg_ratio"]
        columns += [f"{split}_{name}" for name in shown]
    n_fronts = int(rows.loc[~rows["is_reference"], "front"].nunique())
    title = (
        f"The highest EPG at a loss of at most {100 * SLACK:g} points of F1 against the baseline, "
        "both on validation, and what the same checkpoint gets on test (%)."
    )
    if n_fronts > len(best):
        title += f" Of {n_fronts} fronts {n_fronts - len(best)} have none."
    frame = best.sort_values(own, kind="stable", ignore_index=True)
    return Table("gains", title, frame[columns])


def table_1(results: Results) -> Table:
    """Table 1: accuracy with groups, worst group and overall, mean ± standard deviation over seeds.

    Per seed, of the checkpoints whose validation accuracy is at most 1 point below the
    baseline's, the one with the highest validation EPG; deviations are those of a sample. A cell
    says so where seeds have no such checkpoint, or none that was tested.
    """
    selected = results.selected
    rows = selected[selected["val_accuracy"].notna()]
    is_elsewhere = any((rows[f"guided_{name}"] != rows[name]).any() for name in PAIR)
    guided = [f"guided_{name}" for name in PAIR]
    shown = {"model", "task", "loss", *(() if is_elsewhere else guided)}
    own = distinguishing(rows, [name for name in CONFIGURATION if name not in shown])
    own += ["model", *PAIR]
    best = with_tests(best_within(rows, "epg", "accuracy", TABLE_1_SLACK), results.tests)
    start = with_tests(rows[rows["is_reference"]], results.tests)
    start = start.drop_duplicates([*own, "task", "seed", "baseline"])
    both = pd.concat([start.assign(loss="baseline"), best], ignore_index=True)
    split = "test" if both["test_accuracy"].notna().any() else "val"
    tasks = sorted(both["task"].dropna().unique())
    values = {"worst": f"{split}_accuracy_worst_group", "overall": f"{split}_accuracy"}
    rank = both["loss"].map({"baseline": 0, "energy": 1, "l1": 2}).fillna(3)
    # Every seed has a baseline; a loss has those in which it was guided, chosen and tested.
    n_all = both.groupby([*own, "task"], dropna=False)["seed"].transform("nunique")
    groups = both.assign(rank=rank, n_all=n_all).groupby([*own, "rank", "loss"], dropna=False)
    cells = [
        dict(zip([*own, "rank", "loss"], key, strict=True))
        | {
            f"{task}, {name}": _mean_and_deviation(of_task.dropna(subset=column), column)
            for task, of_task in group.groupby("task")
            for name, column in values.items()
        }
        for key, group in groups
    ]
    names = [f"{task}, {name}" for task in tasks for name in values]
    title = (
        f"Table 1: accuracy of the worst group (waterbirds on land) and overall on {SPLITS[split]} "
        f"in %, mean ± standard deviation over {both['seed'].nunique()} seeds, of the checkpoint "
        "with the highest validation EPG at a loss of at most 1 point of validation accuracy."
    )
    return Table("table1", title, pd.DataFrame(cells, columns=[*own, "loss", *names]))


def _mean_and_deviation(known: pd.DataFrame, column: str) -> str | None:
    if known.empty:
        return None
    values = 100 * known[column].astype(float)
    text = f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")
    n_seeds, n_all = known["seed"].nunique(), known["n_all"].iloc[0]
    return text if n_seeds == n_all else f"{text} ({n_seeds} of {n_all} seeds)"


def _describing(frame: pd.DataFrame, judged: bool = True) -> list[str]:
    """Return the columns that describe guided rows: `judged` adds a judged pair that differs."""
    elsewhere = any((frame[f"guided_{name}"] != frame[name]).any() for name in PAIR)
    pair = PAIR if judged and elsewhere else []
    own = [*describing(frame), *pair, "loss", *distinguishing(frame, ["seed"])]
    # Baselines of one model and seed differ where the sweep varies their own training.
    known = distinguishing(frame, [*CONFIGURATION, "seed", "baseline"])
    return [*own, *(["baseline"] if "baseline" in known else [])]


def _metrics(results: Results) -> list[str]:
    shown = dict.fromkeys(["f1", *results.objectives])
    return [f"{split}_{name}" for split in SPLITS for name in shown]
