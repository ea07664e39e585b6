"""Alerts and recorded series: what is asked, when it is bad, and what a person is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import final

__all__ = ["Alert", "Comparison", "Recording", "Severity", "anchor"]


@final
class Severity(StrEnum):
    """How soon somebody should look (label `severity`)."""

    CRITICAL = "critical"
    """Now: nobody watches, or answers get worse."""
    WARNING = "warning"
    """During working hours."""


@final
class Comparison(StrEnum):
    """When a value is bad."""

    ABOVE = ">"
    BELOW = "<"


@final
@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus works out ahead of time.

    Attributes:
        name: `labels:metric:operations`, as Prometheus wants it.
        expr: What is recorded.
    """

    name: str
    expr: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert, for Prometheus and for Grafana.

    The value is kept apart from its limit: Prometheus wants one expression that is empty while all
    is well, Grafana a value and a threshold.

    Attributes:
        name: `Calidrift...`, one word; also the heading of its section in the runbook.
        value: PromQL; its labels become those of the alert.
        recording: The recorded series that is the value, where there is one.
        comparison: When the value is bad.
        limit: From where on.
        hold: How long it must be bad, in Prometheus' words (`10m`).
        severity: How soon somebody should look.
        repairs: Whether a recalibration may be the answer (label `action`).
        summary: One line; `{{ $labels.model }}` and `{{ $value }}` are filled in.
        description: What it means and what to do first, for somebody who was asleep.
    """

    name: str
    value: str
    comparison: Comparison
    limit: float
    hold: str
    severity: Severity
    summary: str
    description: str
    recording: Recording | None = None
    repairs: bool = False

    @property
    def uid(self) -> str:
        """Its name in Grafana; never changed."""
        return anchor(self.name)

    @property
    def expr(self) -> str:
        """The expression that is empty while all is well, with recorded series."""
        value = self.recording.name if self.recording else f"({self.value})"
        return f"{value} {self.comparison} {self.limit:g}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels beside those of the value."""
        action = {"action": "recalibrate"} if self.repairs else {}
        return {"severity": self.severity.value, "component": "calidrift", **action}

    def annotations(self, runbook_url: str) -> dict[str, str]:
        """Give what people read.

        Args:
            runbook_url: Where the runbook is.
        """
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{runbook_url}#{anchor(self.name)}",
        }


def anchor(name: str) -> str:
    """Give the anchor of a heading of one word.

    >>> anchor("CalidriftCoverageLow")
    'calidriftcoveragelow'
    """
    return name.lower()
