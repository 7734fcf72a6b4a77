"""A trial as Ray Tune sees it: one step an epoch, in a process that outlives the trial."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray import tune

from mg_core.config import Runtime, TrialConfig
from mg_core.training.execution import Outcome, run_trial

RUNNING = "running"


class TrialTrainable(tune.Trainable):
    """Runs the trial of `config["trial"]` under `config["runtime"]`, both as JSON.

    A step never raises for a trial that fails: the attempt records why and the step's result says
    so. What Tune sees as an error, and tries again, is a lost process.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare a trial; the first step starts it."""
        trial = TrialConfig.model_validate_json(config["trial"])
        runtime = Runtime.model_validate_json(config["runtime"])
        self._outcomes: Iterator[Outcome] = run_trial(trial, runtime)

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        outcome = next(self._outcomes)
        return {"outcome": asdict(outcome), "pid": os.getpid(), "done": outcome.state != RUNNING}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into this process, freeing what the last one held."""
        self._release()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Free what the trial held; one that is stopped early records an interruption."""
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
