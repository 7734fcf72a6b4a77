"""A trial as a sequence of epochs, each of which is committed to the store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mg_core.config import NUMERICS_VERSION, DataConfig, Runtime, TrialConfig
from mg_core.data import open_data
from mg_core.data.annotations import check_annotatable
from mg_core.errors import DamagedError, InputError, NodeError, NumericalError
from mg_core.guidance import Batch, Guidance, StepLosses, check_guidance, guided_loss, kernels
from mg_core.models.study import STUDY_MODELS
from mg_core.registry import import_variants
from mg_core.store.attempt import Attempt
from mg_core.store.progress import Progress
from mg_core.training import checkpoint
from mg_core.training.batches import annotated_classes, batch_ids, slices, training_batches
from mg_core.training.checks import check_labels, check_task
from mg_core.training.evaluation import Evaluation, averages, evaluate
from mg_core.training.recipe import Recipe
from mg_core.training.stopping import is_stopped

if TYPE_CHECKING:
    from mg_core.data import Data, Split

Report = Callable[[str, int, int], None]
_checked: set[tuple[object, ...]] = set()


class Trial:
    """One trial, which goes on from its last committed epoch.

    Args:
        config: configuration of the trial.
        runtime: folders, device and other settings that do not change results.
        attempt: the attempt that commits the epochs.
        report: called with the phase ("train" or "validate"), the number of images done and the
            number of all images.

    Raises:
        NodeError: this node has other data or none, another release, or no GPU.
        InputError: the baseline is not complete.
    """

    def __init__(
        self,
        config: TrialConfig,
        runtime: Runtime,
        attempt: Attempt,
        report: Report | None = None,
    ) -> None:
        self.config = config
        self.report = report or (lambda phase, done, total: None)
        self.attempt = attempt
        if self.is_complete:
            return
        store = attempt.store
        with _of_this_node():
            _check_numerics(config)
            self.device = prepare_process(runtime)
            self.data = _open_data(config.data.model_dump_json(), runtime.data_root, runtime.cache)
            where = runtime.data_root or "the generated data set"
            store.record_fingerprint(
                config.data.key, self.data.fingerprint, where, self.data.former_fingerprint
            )
        self._start(runtime.cache)
        if self.attempt.progress is not None:
            try:
                checkpoint.load_state(store, self.attempt.progress, self.model, self.recipe)
            except DamagedError as error:
                self.attempt.start_over(error)
                self._start(runtime.cache)

    @property
    def is_complete(self) -> bool:
        """Whether every epoch is committed, or training stopped early."""
        return self.attempt.is_complete

    def step(self) -> Progress:
        """Run and commit the next epoch; epoch 0 of a guided trial only evaluates its baseline.

        Raises:
            NumericalError: a loss or the validation logits are not finite.
            SupersededError: another attempt of this trial has begun.
        """
        epoch = self.attempt.next_epoch
        start = time.perf_counter()
        trained = self._train(epoch) if epoch else {}
        middle = time.perf_counter()
        evaluation = evaluate(
            self.model,
            self._split("val"),
            self.config.evaluate,
            self.config.batch_size,
            self.device,
            self._counted("validate", len(self._split("val"))),
        )
        if not np.isfinite(evaluation.classification["bce"]):
            raise NumericalError(f"epoch {epoch}: the validation logits are not finite")
        times = {"seconds_train": middle - start, "seconds_val": time.perf_counter() - middle}
        rows = [trained | times | row for row in validation_rows(evaluation)]
        before = self.attempt.rows.to_pylist() if self.config.early_stop else []
        return self.attempt.commit(
            epoch,
            rows,
            weights=lambda: checkpoint.weights_bytes(self.model),
            state=lambda: checkpoint.state_bytes(self.model, self.recipe),
            is_stopped=is_stopped(self.config, [*before, *({"epoch": epoch} | r for r in rows)]),
        )

    def _split(self, name: str) -> Split:
        # A baseline has the data set's first task; the training labels of all tasks are the same.
        task = self.config.guidance.task if self.config.guidance else None
        try:
            return self.data.split(name, task)
        except NodeError as error:  # Decoded images do not fit on the disk.
            raise NodeError(f"node {socket.gethostname()}: {error}") from None

    def _start(self, cache: str | None) -> None:
        """Build model and recipe as they are before the first epoch."""
        config = self.config
        if config.guidance and config.guidance.task:
            check_task(self._split("train"), self.data.split("train"), config.guidance.task)
        model = checkpoint.initial_model(config, len(self.data.classes), cache)
        if config.baseline and self.attempt.progress is None:
            checkpoint.load_baseline(model, self.attempt.store, config.baseline, cache)
        self.model: torch.nn.Module = model.to(self.device)
        self.model.to(memory_format=memory_format(self.device, config.precision))
        _check_once(self.model, config, len(self.data.classes))
        self.recipe = Recipe(config, self.model.parameters(), self.device)

    def _train(self, epoch: int) -> dict[str, Any]:
        start = time.perf_counter()
        config, recipe = self.config, self.recipe
        checkpoint.seed_torch(config.seed, "stochastic layers", epoch)
        self.model.train()
        split = self._split("train")
        check_labels(split, config)
        if config.guidance is not None:
            check_annotatable(split, [config.guidance.annotation])
        counted = self._counted("train", len(split))
        losses: list[StepLosses] = []
        n_annotated = n_skipped = 0
        length = 1 / len(slices(np.arange(len(split)), config.batch_size))
        for batch in training_batches(self.model, split, config, epoch, self.device):
            done = epoch - 1 + len(losses) * length
            terms, is_taken = train_step(self.model, recipe, batch, config, done, length)
            n_skipped += not is_taken
            losses.append(terms)
            n_annotated += len(batch.annotated) if batch.annotated is not None else 0
            counted(len(batch.inputs))
        ids = partial(batch_ids, split, config, epoch)
        means = _epoch_means(losses, epoch, ids, is_guided=guidance_of(config) is not None)
        recipe.check_scale(epoch)
        return {
            **means,
            "n_annotated": n_annotated,
            "n_annotated_objects": int(split.n_boxes[annotated_classes(split, config)].sum()),
            "n_skipped_steps": n_skipped if config.precision == "fp16" else None,
            "seconds_step": (time.perf_counter() - start) / len(losses),
        }

    def _counted(self, phase: str, total: int) -> Callable[[int], None]:
        done = 0

        def add(images: int) -> None:
            nonlocal done
            done += images
            self.report(phase, done, total)

        return add


@contextmanager
def _of_this_node() -> Iterator[None]:
    """Turn an InputError into a NodeError, since every other trial would fail on this node too.

    Raises:
        NodeError: names the node and the mistake.
    """
    try:
        yield
    except InputError as error:
        raise NodeError(f"node {socket.gethostname()}: {error}") from None


def _check_numerics(config: TrialConfig) -> None:
    if config.numerics != NUMERICS_VERSION:
        raise InputError(
            f"trial {config.trial_id} needs numerics version {config.numerics}, this package "
            f"computes version {NUMERICS_VERSION}; every node needs the same release"
        )


def _check_once(model: torch.nn.Module, config: TrialConfig, n_classes: int) -> None:
    """Refuse a trial whose maps cannot be guided; a process tries each kind of trial once.

    Tests do this for the models of the study.
    """
    if config.guidance is None or config.model in STUDY_MODELS:
        return
    g = config.guidance
    guided = [] if g.is_none else [(g.attribution, g.layer)]
    evaluated = [(pair.attribution, pair.layer) for pair in config.evaluate]
    key = (config.model, n_classes, config.data.image_size, *guided, *evaluated)
    if key not in _checked:
        check_guidance(model, guided, evaluated, config.data.image_size)
        _checked.add(key)


def validation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row for each evaluated pair, or a single row if no pair is evaluated."""
    common = {f"val_{name}": value for name, value in evaluation.classification.items()}
    rows = [
        common
        | {"attribution": pair.attribution, "layer": pair.layer}
        | {f"val_{name}": value for name, value in averages(scores).items()}
        for pair, scores in evaluation.scores.items()
    ]
    return rows or [common]


def train_step(
    model: torch.nn.Module,
    recipe: Recipe,
    batch: Batch,
    config: TrialConfig,
    done: float,
    step_length: float,
) -> tuple[StepLosses, bool]:
    """Take one step of a trial; the last arguments are those of `Recipe.update`.

    Returns:
        The terms of the loss, and whether the step was taken.
    """
    with kernels(config.precision):
        loss, terms = guided_loss(
            model,
            batch,
            guidance_of(config),
            config.precision,
            config.classification_loss,
            config.label_smoothing,
        )
        return terms, recipe.update(loss, done, step_length)


def guidance_of(config: TrialConfig) -> Guidance | None:
    """Return the settings of a trial's guided steps; none where nothing is guided."""
    g = config.guidance
    if g is None or g.is_none:
        return None
    return Guidance(g.attribution, g.layer, g.loss, g.localization_weight, g.reduction)


def prepare_process(runtime: Runtime) -> torch.device:
    """Set threads and kernels, import the user's variants, and return the trial's device.

    Raises:
        InputError: the device is a GPU and there is none, or a module cannot be imported.
    """
    torch.set_num_threads(runtime.threads)
    import_variants(runtime.imports)
    wanted = runtime.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {wanted!r}: PyTorch sees no GPU here; give cpu or auto")
    if wanted.startswith("cuda") and runtime.deterministic:
        # cuBLAS reads it once, before its first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(wanted)


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Return the memory format of the weights, which features of convolutions follow.

    Tensor cores compute half-precision convolutions in channels-last format and transpose other
    formats first. On other devices and in other precisions, no gain is known.
    """
    pays = device.type == "cuda" and precision != "fp32"
    return torch.channels_last if pays else torch.contiguous_format


@lru_cache(maxsize=2)
def _open_data(config: str, root: str | None, cache: str | None) -> Data:
    # Cached: a process runs many trials on the same data, and computes its fingerprint once.
    return open_data(DataConfig.model_validate_json(config), root, cache)


def _epoch_means(
    losses: list[StepLosses], epoch: int, ids: Callable[[int], list[str]], is_guided: bool
) -> dict[str, float | None]:
    """Average the losses of all steps, with one transfer from the device.

    Raises:
        NumericalError: a loss is not finite.
    """
    table = torch.stack([torch.stack([s.loss, s.bce, s.localization]) for s in losses])
    values = table.double().cpu().numpy()
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        loss, bce, localization_loss = values[broken[0]]
        raise NumericalError(
            f"epoch {epoch}, batch {broken[0]}: the loss is {loss} "
            f"(classification {bce}, localization {localization_loss})",
            ids(int(broken[0])),
        )
    total, bce, localization_loss = values.mean(axis=0).tolist()
    return {
        "train_loss": total,
        "train_bce": bce,
        "train_localization_loss": localization_loss if is_guided else None,
    }
