"""Guided training of any network: one step, its loss, and what can be guided where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mg_core.lazy import importing

if TYPE_CHECKING:
    from mg_core.guidance.precision import kernels
    from mg_core.guidance.preflight import check_guidance
    from mg_core.guidance.step import Batch, Guidance, StepLosses, guided_loss, guided_step

__all__ = [
    "Batch",
    "Guidance",
    "StepLosses",
    "check_guidance",
    "guided_loss",
    "guided_step",
    "kernels",
]
_PLACES = dict.fromkeys(__all__, "mg_core.guidance.step") | {
    "check_guidance": "mg_core.guidance.preflight",
    "kernels": "mg_core.guidance.precision",
}
__getattr__ = importing(__name__, _PLACES)
