"""Checkpoints of a store as models: which one is best, and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.frame import StoreLike, open_store, with_tests
from analysis.heatmaps import task_of
from analysis.results import Results, read_results
from analysis.selection import best_within, guided_there
from mg_core.columns import TABLE
from mg_core.errors import InputError
from mg_core.store import ResultStore, reading

if TYPE_CHECKING:
    from torch import Tensor

    from mg_core.config import TrialConfig
    from mg_core.models import Model


class Checkpoint(NamedTuple):
    """A trained model and what is needed to use it.

    Attributes:
        model: in evaluation mode, on the CPU; `model.encode` makes its inputs.
        classes: names of its logits, in their order.
        image_size: side in pixels of the images that it was trained on.
    """

    model: Model
    classes: tuple[str, ...]
    image_size: int


def best(store: StoreLike | Results, by: str = "val_epg", within: float = 0.05) -> pd.DataFrame:
    """Return the best checkpoint of every front, the best of all first.

    A checkpoint counts if it is on its front and loses at most `within` of validation F1 against
    its baseline; it is judged where it was guided, and chosen on validation.

    Args:
        store: a folder, a URI, a `ResultStore`, or results that were read before.
        by: column of a validation metric of which more is better, such as `val_epg`.
        within: largest loss of F1, in fractions.

    Returns:
        One row of `load` per front, with test columns where it was tested.

    Raises:
        InputError: the store cannot be read, or `by` is no such column.

    Example:
        >>> import analysis
        >>> row = analysis.best("runs/demo").iloc[0]
        >>> print(row["loss"], row["trial_id"], row["epoch"])  # doctest: +ELLIPSIS
        energy ...
    """
    metrics = {c.name: c.metric for c in TABLE if c.metric and c.better == "higher"}
    if by not in metrics:
        raise InputError(
            f"by: {by!r} is not a column to choose by; choose from {', '.join(metrics)}"
        )
    if not 0 <= within <= 1:
        raise InputError(f"within: a loss of F1 is a fraction from 0 to 1, not {within}")
    results = store if isinstance(store, Results) else read_results(store)
    rows = guided_there(results.selected).drop(columns="front")
    found = best_within(rows, metrics[by], "f1", within)
    ranked = found.sort_values(by, ascending=False, kind="stable").reset_index(drop=True)
    return with_tests(ranked, results.tests)


def load_model(
    store: StoreLike, trial: str, epoch: int | None = None, data: str | None = None
) -> Checkpoint:
    """Load a trained checkpoint.

    Args:
        store: a folder, a URI, or a `ResultStore`.
        trial: id of the trial, or how it begins.
        epoch: whose weights; 0 of a guided trial is its baseline's checkpoint. By default the
            last one whose weights were kept.
        data: folder of the data set, which is asked for class names that follow from its files
            alone; the sweep's by default.

    Returns:
        The model ready for inference, its class names and its image size.

    Raises:
        InputError: there is no such trial or checkpoint, or its weights are not finite.

    Example:
        >>> import analysis
        >>> row = analysis.best("runs/demo").iloc[0]
        >>> checkpoint = analysis.load_model("runs/demo", row["trial_id"], row["epoch"])
        >>> checkpoint.image_size, checkpoint.classes
        (24, ('ellipse', 'rectangle', 'triangle', 'star', 'cross', 'ring'))
    """
    from mg_core.data import class_names
    from mg_core.models import build_model
    from mg_core.registry import import_variants

    opened = open_store(store)
    with reading(opened):
        spec = opened.spec()
        trial_id = opened.find_trial(trial)
        (config,) = opened.trials([trial_id]).values()
        import_variants(tuple(spec.get("imports") or ()))
        key, digest = _weights_key(opened, trial_id, config, epoch)
        weights = opened.weights(key, digest)
    if not are_finite(weights):
        raise InputError(f"checkpoint {key} holds weights that are not finite")
    settings = spec.get("data") or {}
    root, cache = data or settings.get("root"), settings.get("cache")
    classes = class_names(config.data, root, cache, task_of(config))
    model = build_model(config.model, len(classes), image_size=config.data.image_size)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {key} does not fit {config.model}: {reason}") from None
    return Checkpoint(model.eval(), classes, config.data.image_size)


def are_finite(weights: Mapping[str, Tensor]) -> bool:
    """Say whether a model with these weights can give numbers."""
    return all(bool(values.isfinite().all()) for values in weights.values())


def _weights_key(
    store: ResultStore, trial_id: str, config: TrialConfig, epoch: int | None
) -> tuple[str, str | None]:
    """Return the key of a checkpoint's weights and their digest."""
    if epoch == 0 and config.baseline is not None:
        trial_id, epoch = config.baseline, None
    progress = store.progress(trial_id).get(trial_id)
    kept = progress.checkpoints if progress else {}
    chosen = max(kept, default=None) if epoch is None else int(epoch)
    if chosen not in kept:
        which = "no checkpoint" if chosen is None else f"no weights of epoch {chosen}"
        shown = ", ".join(map(str, sorted(kept))) or "none"
        raise InputError(
            f"store {store.uri!r} keeps {which} of trial {trial_id}; epochs kept: {shown}"
        )
    assert progress is not None
    return kept[chosen], progress.digests.get(kept[chosen])
