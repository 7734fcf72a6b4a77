"""The paper's findings, judged on what a sweep measured.

Each finding is one or several conditions: a number with a bootstrap interval that must lie above a
threshold. The definitions are in `definitions`, the same for every store; this module turns them
into verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from analysis.claims.bootstrap import Interval

if TYPE_CHECKING:
    from analysis.results import Results

Verdict = Literal["holds", "does not hold", "not enough data"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNKNOWN: Verdict = "not enough data"


@dataclass(frozen=True)
class Condition:
    """A number that must be above a threshold for a finding to hold.

    Attributes:
        statistic: what the number is, in words.
        estimate: with its interval; none where nothing of the kind was measured.
        threshold: that it must exceed.
        unit: of number and threshold.
    """

    statistic: str
    estimate: Interval | None
    threshold: float = 0.0
    unit: str = "points"

    @property
    def is_measured(self) -> bool:
        """Whether there were enough runs for an interval."""
        return self.estimate is not None and self.estimate.is_enough

    @property
    def verdict(self) -> Verdict:
        """Holds where the whole interval is above the threshold, fails where none of it is.

        An interval with the threshold in it is not enough data to tell, nor is one of too few
        runs: a verdict of either kind is one that other seeds should give too.
        """
        if self.estimate is None or not self.estimate.is_enough:
            return UNKNOWN
        if self.estimate.low > self.threshold:
            return HOLDS
        return FAILS if self.estimate.high <= self.threshold else UNKNOWN

    def __str__(self) -> str:
        found = "nothing measured" if self.estimate is None else self.estimate.text(self.unit)
        return f"{self.statistic}: {found} (wanted: above {self.threshold:g}{_suffix(self.unit)})"


@dataclass(frozen=True)
class Finding:
    """One claim of the paper beside what a sweep says of it.

    Attributes:
        name: R1 to R9, or Table 1.
        claim: of the paper.
        published: what the paper reports for it.
        conditions: all of which must hold.
        detail: the numbers behind, one row per configuration, model or setting.
        figure: that shows it.
        missing: trials that a sweep needs for this finding.
    """

    name: str
    claim: str
    published: str
    conditions: tuple[Condition, ...]
    detail: pd.DataFrame
    figure: str
    missing: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the conditions."""
        verdicts = [condition.verdict for condition in self.conditions]
        if FAILS in verdicts:
            return FAILS
        return HOLDS if verdicts and set(verdicts) == {HOLDS} else UNKNOWN

    @property
    def needs(self) -> str:
        """What would decide it; empty where it is decided."""
        if self.verdict != UNKNOWN:
            return ""
        if self.conditions and all(condition.is_measured for condition in self.conditions):
            return (
                "more seeds, or configurations that agree: what is wanted lies within an interval"
            )
        return self.missing


def judge(results: Results) -> list[Finding]:
    """Judge every finding, on test where checkpoints were tested and else on validation."""
    from analysis.claims.definitions import FINDINGS
    from analysis.claims.measures import Measures

    measures = Measures.of(results)
    return [define(measures) for define in FINDINGS]


def to_text(findings: Sequence[Finding]) -> str:
    """Write findings for a terminal, the verdict first."""
    blocks = []
    for finding in findings:
        lines = [f"{finding.name:8}{finding.verdict.upper():16}{finding.claim}"]
        lines += [f"{'':8}{condition}" for condition in finding.conditions]
        if finding.needs:
            lines.append(f"{'':8}needs {finding.needs}")
        lines.append(f"{'':8}paper: {finding.published}; see {finding.figure}")
        blocks.append("\n".join(lines))
    counts = {v: sum(f.verdict == v for f in findings) for v in (HOLDS, FAILS, UNKNOWN)}
    blocks.append(", ".join(f"{verdict}: {number}" for verdict, number in counts.items()))
    return "\n\n".join(blocks)


def to_json(findings: Sequence[Finding]) -> str:
    """Write findings for programs."""
    content = []
    for finding in findings:
        conditions = [
            {
                "statistic": condition.statistic,
                "threshold": condition.threshold,
                "unit": condition.unit,
                "verdict": condition.verdict,
                **(asdict(condition.estimate) if condition.estimate else {"value": None}),
            }
            for condition in finding.conditions
        ]
        content.append(
            {
                "finding": finding.name,
                "claim": finding.claim,
                "published": finding.published,
                "verdict": finding.verdict,
                "needs": finding.needs,
                "conditions": conditions,
                "figure": finding.figure,
                "detail": json.loads(finding.detail.to_json(orient="records")),
            }
        )
    return json.dumps(content, indent=1, allow_nan=False, default=str)


def _suffix(unit: str) -> str:
    return f" {unit}" if unit else ""
