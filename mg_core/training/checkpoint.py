"""Models and optimisers as bytes: safetensors for weights, PyTorch's format for resume states."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save

from mg_core.atomic import locked
from mg_core.config import TrialConfig
from mg_core.counter import digest
from mg_core.data.cache import cache_folder
from mg_core.errors import InputError
from mg_core.models import build_model
from mg_core.store.files import Files

if TYPE_CHECKING:
    from mg_core.store import ResultStore

SEED_BITS = 63


def seed_torch(*key: int | str) -> None:
    """Seed PyTorch's generators from a key, for initialisation and stochastic layers."""
    torch.manual_seed(digest(*key) >> (64 - SEED_BITS))


def initial_model(config: TrialConfig, num_classes: int) -> torch.nn.Module:
    """Build the untrained model of a trial from its seed and `weights`."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(config.seed, "initialisation")
        return build_model(config.model, num_classes, config.weights)


def weights_bytes(model: torch.nn.Module) -> bytes:
    """Serialise a state dict as safetensors."""
    data: bytes = save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    return data


def state_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Serialise model and optimiser; random numbers are counter-based and have no state."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    return buffer.getvalue()


def load_state(data: bytes, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore a model and its optimiser from `state_bytes`."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def load_weights(
    model: torch.nn.Module, store: ResultStore, key: str, cache: str | None = None
) -> None:
    """Load a checkpoint of the store into a model.

    From object storage each node downloads a checkpoint once: the guided trials of a baseline share
    a copy in the node's cache folder. A key contains its attempt, so a copy is never out of date.

    Raises:
        InputError: the store has no such checkpoint.
    """
    if store.local_path is None:
        name = f"{digest(store.uri, key):016x}-{key.split('/')[-1]}"
        target = cache_folder(cache) / "checkpoints" / name
        if not target.is_file():
            with locked(target):
                if not target.is_file():
                    Files(str(target.parent)).put(target.name, store.get(key))
        model.load_state_dict(load(target.read_bytes()))
    else:
        model.load_state_dict(store.weights(key))


def baseline_checkpoint(store: ResultStore, trial_id: str) -> str:
    """Return the key of a baseline's best-F1 weights.

    Raises:
        InputError: the baseline is not complete.
    """
    progress = store.progress(trial_id).get(trial_id)
    if progress is None or not progress.is_complete:
        raise InputError(f"store {store.uri!r}: baseline {trial_id} is not complete")
    (key,) = progress.checkpoints.values()
    return key
