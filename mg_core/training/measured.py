"""What trials were measured to take, kept in the cache so that a plan can say it.

What was found out holds for the data and the user's own code that it was found out with.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from mg_core.config import Frozen, Runtime, TrialConfig, digest
from mg_core.data.cache import cache_folder

FOLDER = "measured"
RATES = ("weight_decay", "schedule", "warmup_epochs", "label_smoothing", "early_stop")
"""Settings of training that change no time of an epoch."""


class Measured(Frozen):
    """What a trial takes on one device.

    Attributes:
        device: name of the device.
        step_seconds: time of a training step, median.
        image_seconds: time to validate an image, mean.
        commit_seconds: time to write an epoch's weights and state.
        n_steps: steps of an epoch.
        n_images: images of the validation split.
        memory_bytes: largest memory of the process; of its GPU where it trains on one.
        weights_bytes: size of a checkpoint.
        state_bytes: size of the state that a trial resumes from.
    """

    device: str
    step_seconds: float
    image_seconds: float
    commit_seconds: float
    n_steps: int
    n_images: int
    memory_bytes: int
    weights_bytes: int
    state_bytes: int

    @property
    def epoch_seconds(self) -> float:
        """Expected time of an epoch."""
        return self.n_steps * self.step_seconds + self.validation_seconds

    @property
    def validation_seconds(self) -> float:
        """Expected time of epoch 0, which validates and does not train."""
        return self.n_images * self.image_seconds + self.commit_seconds


def shape(config: TrialConfig) -> TrialConfig:
    """Return a configuration without what changes no time: loss, λ, seed, rates and weights."""
    g = config.guidance
    same = g.model_copy(update={"loss": "", "localization_weight": 0.0}) if g else None
    update = {"guidance": same, "seed": 0, "epochs": 1, "weights": None, "learning_rate": 1.0}
    update |= {name: type(config).model_fields[name].default for name in RATES}
    return config.model_copy(update=update | {"baseline": "" if g else None})


class Known(Frozen):
    """What was found out of the trials of one shape.

    Attributes:
        data: fingerprint of the data set that it was found out with.
        measured: what they take; none if it was not measured.
        together: by number of trials that train on one device at a time, how many times as long a
            step takes as alone.
        problems: by loss that was rehearsed, why it cannot guide; empty if it can.
    """

    data: str
    measured: Measured | None = None
    together: Mapping[int, float] = {}
    problems: Mapping[str, str] = {}


def known(config: TrialConfig, runtime: Runtime) -> Known | None:
    """Return what was found out of such trials on this machine, with whatever data were here."""
    try:
        return Known.model_validate_json(_file(config, runtime).read_text())
    except (OSError, ValueError):
        return None


def keep(
    config: TrialConfig,
    runtime: Runtime,
    data: str,
    measured: Measured | None = None,
    together: Mapping[int, float] | None = None,
    problems: Mapping[str, str] | None = None,
) -> None:
    """Write down what was found out; a cache that cannot be written is left alone.

    What was found out before with the same data stays, and with others is forgotten.
    """
    before = known(config, runtime)
    if before is None or before.data != data:
        before = Known(data=data)
    found = Known(
        data=data,
        measured=measured or before.measured,
        together={**before.together, **(together or {})},
        problems={**before.problems, **(problems or {})},
    )
    file = _file(config, runtime)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{secrets.token_hex(8)}")
        temporary.write_text(found.model_dump_json())
        temporary.replace(file)


def _file(config: TrialConfig, runtime: Runtime) -> Path:
    # Nodes may share a cache folder.
    machine = f"{runtime.device} {runtime.threads} {os.uname().nodename} {runtime.version}"
    # All of it: what the losses of these trials are is not part of their shape.
    code = [f"{module} {version}" for module, version in sorted(runtime.code.items())]
    name = digest(" ".join([shape(config).canonical, machine, *code]))
    return cache_folder(runtime.cache) / FOLDER / f"{name}.json"
