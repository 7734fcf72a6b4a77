"""From a YAML file to a grid of trials to Ray Tune.

The names in `__all__` are public and stay; everything else is private and may change. Importing
this package imports neither ray nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from sweeps.library import plan, run
    from sweeps.planning import Plan
    from sweeps.spec import SweepSpec

__all__ = ["Plan", "SweepSpec", "plan", "run"]
__getattr__ = importing(
    __name__,
    {
        "Plan": "sweeps.planning",
        "SweepSpec": "sweeps.spec",
        "plan": "sweeps.library",
        "run": "sweeps.library",
    },
)
