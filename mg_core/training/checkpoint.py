"""Models and optimisers as bytes: safetensors for weights, PyTorch's format for resume states."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from mg_core.atomic import locked
from mg_core.config import TrialConfig
from mg_core.counter import digest as hashed
from mg_core.data.cache import cache_folder
from mg_core.errors import InputError, StorageError
from mg_core.models import build_model
from mg_core.models.weights import find_weights, load_network
from mg_core.store import ResultStore
from mg_core.store.layout import store_and_key
from mg_core.store.tables import damaged

if TYPE_CHECKING:
    from mg_core.store.progress import Progress
    from mg_core.training.recipe import Recipe

SEED_BITS = 63
ORIGIN_KEY = "baseline.from"
"""Key of a sweep file that names trained networks, with which messages begin."""


def seed_torch(*key: int | str) -> None:
    """Seed PyTorch's generators from a key, for initialisation and stochastic layers."""
    torch.manual_seed(hashed(*key) >> (64 - SEED_BITS))


def initial_model(
    config: TrialConfig, num_classes: int, cache: str | None = None
) -> torch.nn.Module:
    """Build the model of a trial from its seed and `weights`, or the network that it is trained as.

    Raises:
        InputError: a file is not there, or does not fit the model or the number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        seed_torch(config.seed, "initialisation")
        model = build_model(config.model, num_classes, config.weights, config.data.image_size)
    if config.origin is not None:
        path = find_weights(_local(config.origin, cache), {}, ORIGIN_KEY)
        load_network(model, path, num_classes, config.model, ORIGIN_KEY)
    return model


def _local(origin: str, cache: str | None) -> str:
    """Return the path or address of a trained network, copied once from object storage."""
    uri, _, digits = origin.partition("#sha256=")
    if "://" not in uri or uri.startswith(("http://", "https://", "file://")):
        return origin
    place, mark, settings = uri.partition("?")
    folder, key = store_and_key(place)
    copy = cache_folder(cache) / "checkpoints" / f"{hashed(origin):016x}.safetensors"
    with locked(copy):
        if not copy.is_file():
            store = ResultStore(folder + mark + settings)
            data = store.referenced(key, None)
            ResultStore(str(copy.parent)).put(copy.name, data)
    return f"{copy}#sha256={digits}"


def weights_bytes(model: torch.nn.Module) -> bytes:
    """Serialise a state dict as safetensors."""
    data: bytes = save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    return data


def state_bytes(model: torch.nn.Module, recipe: Recipe) -> bytes:
    """Serialise model and recipe; random numbers are counter-based and have no state."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), **recipe.state_dict()}, buffer)
    return buffer.getvalue()


def load_state(
    store: ResultStore, progress: Progress, model: torch.nn.Module, recipe: Recipe
) -> None:
    """Restore a model and its recipe as they were after the last committed epoch.

    Raises:
        StorageError: the state is missing or damaged.
    """
    key = str(progress.state)
    data = store.referenced(key, progress.digests.get(key))
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        recipe.load_state_dict(state)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Damaged bytes may raise anything in PyTorch's unpickler.
        raise damaged(key, error) from error


def load_baseline(
    model: torch.nn.Module, store: ResultStore, trial_id: str, cache: str | None = None
) -> None:
    """Load the best-F1 weights of a baseline into a model.

    From object storage each node downloads a checkpoint once: the guided trials of a baseline share
    a copy in the node's cache folder. A key contains its attempt, so a copy is never out of date.

    Raises:
        InputError: the baseline is not complete.
        StorageError: its weights are missing or damaged.
    """
    progress = store.progress(trial_id).get(trial_id)
    if progress is None or not progress.is_complete:
        raise InputError(f"store {store.uri!r}: baseline {trial_id} is not complete")
    (key,) = progress.checkpoints.values()
    digest = progress.digests.get(key)
    if store.local_path is None:
        weights = _cached_weights(store, key, digest, cache)
    else:
        weights = store.weights(key, digest)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged(key, error) from None


def _cached_weights(
    store: ResultStore, key: str, digest: str | None, cache: str | None
) -> dict[str, torch.Tensor]:
    folder = cache_folder(cache) / "checkpoints"
    copies = ResultStore(str(folder))
    name = f"{hashed(store.uri, key):016x}-{key.split('/')[-1]}"
    with locked(folder / name), contextlib.suppress(StorageError):
        return copies.weights(name, digest)
    with locked(folder / name):
        copies.put(name, store.referenced(key, digest))
    return copies.weights(name, digest)
