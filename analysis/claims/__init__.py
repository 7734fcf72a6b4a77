"""The paper's findings, and controls beyond it (C), judged on what a sweep measured.

Each finding is one or several conditions: a number with a bootstrap interval that must lie above a
threshold. Points are percentage points. A checkpoint is always chosen on validation; its numbers
are those of the test split where it was tested. R1 to R6 and R9 are judged on trials guided by
every box as it is; fewer, coarser and reversed boxes have findings of their own.

"Chosen" is the checkpoint with the highest EPG (IoU where IoU is judged) that loses at most 5
points of F1 against the baseline, both on validation. Where guidance left no such checkpoint in a
finished sweep, the baseline is taken, which has gained nothing. Table 1 allows a loss of 1 point of
accuracy instead; R6 has a choice of its own.

R1 to R9 and Table 1 are the paper's. C1 and C4 ask what annotations are worth
(`sweeps/ladder.yaml`), C2, C3 and C5 whether guidance worked at all (`sweeps/controls.yaml`); their
thresholds were fixed before the sweeps that judge them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from types import MappingProxyType
from typing import Any

from analysis.claims.bootstrap import Interval
from analysis.claims.boxes import r7, r8
from analysis.claims.controls import c2, c3, c5
from analysis.claims.groups import table_1
from analysis.claims.ladder import c1, c4
from analysis.claims.losses import r1, r2, r3
from analysis.claims.measures import Measures
from analysis.claims.places import r4, r5, r6, r9
from analysis.claims.verdict import FAILS, HOLDS, UNKNOWN, Condition, Finding
from analysis.results import Results

__all__ = ["FAILS", "FINDINGS", "HOLDS", "UNKNOWN", "Condition", "Finding", "judge", "to_json"]
__all__ += ["judge_published", "published_to_text", "to_text"]

FINDINGS: tuple[Callable[[Measures], Finding], ...] = (
    *(r1, r2, r3, r4, r5, r6, r7, r8, r9, table_1),
    *(c1, c2, c3, c4, c5),
)


def judge(results: Results) -> list[Finding]:
    """Judge every finding, on test where checkpoints were tested and else on validation."""
    return _judged(Measures.of(results))


def judge_published(results: Results) -> dict[str, list[Finding]]:
    """Judge the findings on tables of others; see `Measures.of_published`.

    Returns:
        By the tables' name, and where there are several, under all names for all together.
    """
    published = results.published
    if published.empty:
        return {}
    parts = {str(name): rows for name, rows in published.groupby("source", sort=False)}
    if len(parts) > 1:
        parts[", ".join(parts)] = published
    return {name: _judged(Measures.of_published(rows)) for name, rows in parts.items()}


def _judged(measures: Measures) -> list[Finding]:
    return [define(measures) for define in FINDINGS]


def to_text(findings: Sequence[Finding]) -> str:
    """Write findings for a terminal, the verdict first."""
    blocks = []
    for finding in findings:
        lines = [f"{finding.name:8}{finding.verdict.upper():16}{finding.claim}"]
        lines += [f"{'':8}{condition}" for condition in finding.conditions]
        if finding.needs:
            lines.append(f"{'':8}needs {finding.needs}")
        if finding.reference:
            lines.append(f"{'':8}{finding.reference}")
        blocks.append("\n".join(lines))
    counts = {v: sum(f.verdict == v for f in findings) for v in (HOLDS, FAILS, UNKNOWN)}
    blocks.append(", ".join(f"{verdict}: {number}" for verdict, number in counts.items()))
    return "\n\n".join(blocks)


def _numbers(estimate: Interval | None) -> dict[str, float | int | None]:
    """Return an estimate as JSON can hold it: numbers that are not finite are null."""
    found = asdict(estimate) if estimate else {"value": None}
    return {k: None if v is None or not isfinite(v) else v for k, v in found.items()}


def published_to_text(judged: Mapping[str, Sequence[Finding]]) -> str:
    """Write the findings on tables of others, those that have nothing to judge in one line."""
    blocks = []
    for name, findings in judged.items():
        idle = ", ".join(finding.name for finding in findings if not finding.is_judged)
        told = to_text([finding for finding in findings if finding.is_judged])
        last = f"\n\nnothing to judge there: {idle}" if idle else ""
        blocks.append(f"On tables of others: {name}\n\n{told}{last}")
    return "\n\n\n".join(blocks)


def to_json(
    findings: Sequence[Finding], published: Mapping[str, Sequence[Finding]] = MappingProxyType({})
) -> str:
    """Write findings for programs; `source` names the tables of others that one is judged on."""
    content = _objects(findings, None)
    content += [item for name, found in published.items() for item in _objects(found, name)]
    return json.dumps(content, indent=1, allow_nan=False, default=str)


def _objects(findings: Sequence[Finding], source: str | None) -> list[dict[str, Any]]:
    content = []
    for finding in findings:
        conditions = [
            {
                "statistic": condition.statistic,
                "threshold": condition.threshold,
                "unit": condition.unit,
                "verdict": condition.verdict,
                **_numbers(condition.estimate),
            }
            for condition in finding.conditions
        ]
        content.append(
            {
                "finding": finding.name,
                "source": source,
                "claim": finding.claim,
                "published": finding.published,
                "verdict": finding.verdict,
                "needs": finding.needs,
                "conditions": conditions,
                "figure": finding.figure,
                "detail": json.loads(finding.detail.to_json(orient="records")),
            }
        )
    return content
