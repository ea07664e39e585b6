"""What the sidecar counts about windows and captures that it pushes to an analyzer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from calidrift_agent._export import metric

_PUSHED: Final = "calidrift_agent_pushed_windows_total"
_FAILED: Final = "calidrift_agent_push_failures_total"
_LOST: Final = "calidrift_agent_push_lost_windows_total"
_SPOOL: Final = "calidrift_agent_push_spool_bytes"
_CAPTURES: Final = "calidrift_agent_pushed_captures_total"
_CAPTURE_BYTES: Final = "calidrift_agent_pushed_capture_bytes_total"
_AGE: Final = "calidrift_agent_push_age_seconds"


class PushFailure(StrEnum):
    """Why a push failed."""

    UNREACHABLE = "unreachable"
    """No connection, no TLS, no answer in time, or half an answer."""
    UNAVAILABLE = "unavailable"
    """The analyzer asked to be left alone (429, 503), or failed (other 5xx)."""
    UNAUTHORIZED = "unauthorized"
    """The token is not accepted."""
    MISDIRECTED = "misdirected"
    """What answers at this address is not the analyzer: a redirect, 404, or another format."""
    REFUSED = "refused"
    """The analyzer will never take this batch."""
    SPOOL = "spool"
    """The spool or the ledger could not be written."""


class OwnFigures(Protocol):
    """Something that the sidecar counts about itself."""

    def families(self) -> list[Family]:
        """The same for Prometheus."""


@final
@dataclass(slots=True)
class ShipFigures:
    """Windows and captures pushed so far. One thread counts, any number read.

    Attributes:
        pushed: Windows that were new to the analyzer.
        lost: Windows whose counts will never arrive.
        spool_bytes: Size of the spool on disk.
        captures: Captures that the analyzer asked for and took.
        capture_bytes: Their bytes.
        failures: Failed pushes by kind.
        succeeded_at: When the analyzer last took a push, on `clock`; None: not yet.
        clock: Seconds on a clock that is never set.
    """

    pushed: int = 0
    lost: int = 0
    spool_bytes: int = 0
    captures: int = 0
    capture_bytes: int = 0
    failures: dict[PushFailure, int] = field(default_factory=lambda: dict.fromkeys(PushFailure, 0))
    succeeded_at: float | None = None
    clock: Callable[[], float] = time.monotonic

    def families(self) -> list[Family]:
        """The same for Prometheus."""
        failed = CounterMetricFamily(_FAILED, metric(_FAILED).help, labels=metric(_FAILED).labels)
        for kind, count in self.failures.items():
            failed.add_metric([kind], count)
        found: list[Family] = [
            CounterMetricFamily(_PUSHED, metric(_PUSHED).help, self.pushed),
            failed,
            CounterMetricFamily(_LOST, metric(_LOST).help, self.lost),
            GaugeMetricFamily(_SPOOL, metric(_SPOOL).help, self.spool_bytes),
            CounterMetricFamily(_CAPTURES, metric(_CAPTURES).help, self.captures),
            CounterMetricFamily(_CAPTURE_BYTES, metric(_CAPTURE_BYTES).help, self.capture_bytes),
        ]
        if self.succeeded_at is not None:
            age = max(self.clock() - self.succeeded_at, 0.0)
            found.append(GaugeMetricFamily(_AGE, metric(_AGE).help, age))
        return found


@final
class FigureGroup:
    """Several figures as one.

    Args:
        parts: The figures; None is left out.
    """

    def __init__(self, parts: Iterable[OwnFigures | None]) -> None:
        self._parts = tuple(part for part in parts if part is not None)

    def families(self) -> list[Family]:
        """All families, in the order of the parts."""
        return [family for part in self._parts for family in part.families()]
