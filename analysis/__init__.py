"""From a result store to fronts, test results, figures, tables and one report.

The names in `__all__` are public and stay; everything else is private and may change. Importing
this package imports neither pandas nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from analysis.checkpoints import Checkpoint, best, load_model
    from analysis.frame import load
    from analysis.pareto import non_dominated
    from analysis.pipeline import Report, Testing, figures, findings, fronts, report, tables, test
    from analysis.plots import FIGURES

__all__ = [
    "FIGURES",
    "Checkpoint",
    "Report",
    "Testing",
    "best",
    "figures",
    "findings",
    "fronts",
    "load",
    "load_model",
    "non_dominated",
    "report",
    "tables",
    "test",
]
__getattr__ = importing(
    __name__,
    {
        **dict.fromkeys(__all__, "analysis.pipeline"),
        "load": "analysis.frame",
        "non_dominated": "analysis.pareto",
        "FIGURES": "analysis.plots",
        **dict.fromkeys(("Checkpoint", "best", "load_model"), "analysis.checkpoints"),
    },
)
