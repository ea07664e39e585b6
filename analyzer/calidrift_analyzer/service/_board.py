"""The newest assessments and counters, for views and metrics; in memory, for every thread."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, final

from calidrift_analyzer.records import DeployState, JobState, ModelAssessment, TaskRow

__all__ = ["Board", "Figures"]

_RECENT_NS: Final = 3_600 * 10**9
_LEAST_NS: Final = 60 * 10**9
"""Less time between two assessments says too little about how many units come."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `/metrics` shows beside the assessments, as it was read from the store last.

    Attributes:
        last_window_ns: End of the newest window by model, UTC nanoseconds.
        outcomes: Finished recalibrations by model and outcome.
        revalidations: Outcome of the last re-validation by model, and when it ended (UTC
            nanoseconds).
        open_jobs: Jobs that are not finished by model and state.
        deployments: Moves that were told, or never will be, by model and outcome.
        tasks: Tasks of the schedule.
        store_bytes: Size of the database file.
    """

    last_window_ns: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[tuple[str, JobState], int] = field(default_factory=dict)
    revalidations: Mapping[str, tuple[JobState, int]] = field(default_factory=dict)
    open_jobs: Mapping[tuple[str, JobState], int] = field(default_factory=dict)
    deployments: Mapping[tuple[str, DeployState], int] = field(default_factory=dict)
    tasks: tuple[TaskRow, ...] = ()
    store_bytes: int | None = None


@final
@dataclass(frozen=True, slots=True)
class _Count:
    """What had come by the end of the newest window of an assessment."""

    profile: str
    units: int
    last_ns: int

    def goes_on(self, now: "_Count") -> bool:
        """Whether this can be subtracted from a later count."""
        same = self.profile == now.profile
        return same and now.units >= self.units and now.last_ns >= self.last_ns


@final
class Board:
    """Where tasks put what they found out, and others read it without asking the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, tuple[int, ModelAssessment]] = {}
        self._figures = Figures()
        self._rows: Counter[str] = Counter()
        self._dated_back: Counter[str] = Counter()
        self._counts: dict[str, deque[_Count]] = {}

    def put(self, assessment: ModelAssessment) -> None:
        """Take over the newest assessment of a model."""
        with self._lock:
            self._latest[assessment.model] = (time.time_ns(), assessment)
            now = _Count(assessment.profile, assessment.units, assessment.last_ns)
            recent = self._counts.setdefault(assessment.model, deque())
            if recent and not recent[-1].goes_on(now):
                recent.clear()
            if recent and recent[-1].last_ns == now.last_ns:
                recent.pop()
            recent.append(now)
            while len(recent) > 2 and recent[1].last_ns <= now.last_ns - _RECENT_NS:
                recent.popleft()

    def latest(self) -> Mapping[str, tuple[int, ModelAssessment]]:
        """Give the newest assessments by model, each with its moment (UTC nanoseconds)."""
        with self._lock:
            return MappingProxyType(dict(self._latest))

    def seconds_to_detect(self, model: str) -> float | None:
        """Time until the alarm at twice the detectable exceedance, at the traffic of now.

        Counted from the units that came within the last hour; until a minute of them is known,
        as the assessment says: from all that was recorded. `None` where nothing comes.
        """
        with self._lock:
            if model not in self._latest:
                return None
            latest, first = self._latest[model][1], self._counts[model][0]
        span_ns = latest.last_ns - first.last_ns
        if span_ns < _LEAST_NS:
            return latest.seconds_to_detect
        came = latest.units - first.units
        if latest.units_to_detect is None or not came:
            return None
        return latest.units_to_detect * span_ns / 1e9 / came

    def show(self, figures: Figures) -> None:
        """Take over figures."""
        with self._lock:
            self._figures = figures

    def figures(self) -> Figures:
        """Give the figures that were taken over last."""
        with self._lock:
            return self._figures

    def count_rows(self, model: str, rows: int) -> None:
        """Count rows of windows that were written."""
        if rows > 0:
            with self._lock:
                self._rows[model] += rows

    def count_dated_back(self, model: str, windows: int) -> None:
        """Count windows that ended ahead of this clock, and were dated back."""
        if windows > 0:
            with self._lock:
                self._dated_back[model] += windows

    def dated_back(self) -> Mapping[str, int]:
        """Give the windows that were dated back since the start, by model."""
        with self._lock:
            return MappingProxyType(dict(self._dated_back))

    def rows(self) -> Mapping[str, int]:
        """Give the rows of windows that were written since the start, by model."""
        with self._lock:
            return MappingProxyType(dict(self._rows))
