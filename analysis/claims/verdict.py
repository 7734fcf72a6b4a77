"""Verdicts: what a finding is, and when it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from analysis.claims.bootstrap import Interval

Verdict = Literal["holds", "does not hold", "not enough data"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNKNOWN: Verdict = "not enough data"


@dataclass(frozen=True)
class Condition:
    """A number that must be above a threshold for a finding to hold.

    Attributes:
        statistic: what the number is, in words.
        estimate: the number with its interval; none where nothing of the kind was measured.
        threshold: value that the whole interval must exceed.
        unit: unit of number and threshold.
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

        An interval that holds the threshold decides nothing, nor does one of too few runs: other
        seeds should give the same verdict.
        """
        if self.estimate is None or not self.estimate.is_enough:
            return UNKNOWN
        if self.estimate.low > self.threshold:
            return HOLDS
        return FAILS if self.estimate.high <= self.threshold else UNKNOWN

    def __str__(self) -> str:
        found = "nothing measured" if self.estimate is None else self.estimate.text(self.unit)
        suffix = f" {self.unit}" if self.unit else ""
        return f"{self.statistic}: {found} (wanted: above {self.threshold:g}{suffix})"


@dataclass(frozen=True)
class Finding:
    """One claim beside what a sweep says of it.

    Attributes:
        name: R1 to R9, or Table 1, claims of the paper; C and a number, one beyond it.
        claim: what is claimed, in a sentence.
        published: what the paper reports for it; nothing for one beyond it.
        figure: name of the figure that shows it, if there is one.
        missing: trials that a sweep needs for this finding.
        conditions: conditions all of which must hold.
        detail: the numbers behind, one row per configuration, model or setting.
    """

    name: str
    claim: str
    published: str = ""
    figure: str = ""
    missing: str = ""
    conditions: tuple[Condition, ...] = ()
    detail: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the conditions."""
        verdicts = [condition.verdict for condition in self.conditions]
        if FAILS in verdicts:
            return FAILS
        return HOLDS if verdicts and set(verdicts) == {HOLDS} else UNKNOWN

    @property
    def is_judged(self) -> bool:
        """Whether anything was measured that it is about."""
        return any(condition.estimate is not None for condition in self.conditions)

    @property
    def reference(self) -> str:
        """What the paper reports and which figure shows it, in words; empty for a control."""
        shown = [
            f"paper: {self.published}" if self.published else "",
            f"see {self.figure}" if self.figure else "",
        ]
        return "; ".join(filter(None, shown))

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
