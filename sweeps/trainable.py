"""A trial for Ray Tune: each step is one epoch; the process runs several trials in turn."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray import tune

from mg_core.config import Runtime, TrialConfig
from mg_core.training.execution import Outcome, run_trial


class TrialTrainable(tune.Trainable):
    """Runs the trial `config["trial"]` with the settings `config["runtime"]`, both JSON.

    A step of a failing trial raises no error: the attempt records the failure and the step's
    result contains it. Only a lost process is an error for Tune, which starts the trial again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare a trial, which the first step starts."""
        trial = TrialConfig.model_validate_json(config["trial"])
        runtime = Runtime.model_validate_json(config["runtime"])
        self._outcomes: Iterator[Outcome] = run_trial(trial, runtime)

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        outcome = next(self._outcomes)
        return {"outcome": asdict(outcome), "pid": os.getpid(), "done": outcome.state != "running"}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Free the memory of the last trial and prepare the next one in this process."""
        self._release()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Free the memory of the trial; one that is stopped early records an interruption."""
        self._release()

    def _release(self) -> None:
        import torch

        outcomes, self._outcomes = self._outcomes, iter(())
        if hasattr(outcomes, "close"):
            outcomes.close()
        del outcomes
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
