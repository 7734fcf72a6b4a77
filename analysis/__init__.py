"""From a result store to fronts, test results, figures, tables and one report.

The names in `__all__` are public and stay; everything else is private and may change. Importing
this package imports neither pandas nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from analysis.checkpoints import Checkpoint, best, load_model
    from analysis.claims import Finding
    from analysis.frame import columns, load
    from analysis.pipeline import (
        Report,
        Testing,
        annotation_hours,
        figures,
        findings,
        fronts,
        report,
        tables,
        test,
    )  # fmt: skip
    from analysis.plots import FIGURES, Drawing
    from analysis.results import Results
    from analysis.tabular.formats import Table
    from mg_core.pareto import non_dominated

__all__ = [
    "FIGURES",
    "Checkpoint",
    "Drawing",
    "Finding",
    "Report",
    "Results",
    "Table",
    "Testing",
    "annotation_hours",
    "best",
    "columns",
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
        **dict.fromkeys(("columns", "load"), "analysis.frame"),
        "non_dominated": "mg_core.pareto",
        **dict.fromkeys(("FIGURES", "Drawing"), "analysis.plots"),
        "Finding": "analysis.claims",
        "Results": "analysis.results",
        "Table": "analysis.tabular.formats",
        **dict.fromkeys(("Checkpoint", "best", "load_model"), "analysis.checkpoints"),
    },
)
