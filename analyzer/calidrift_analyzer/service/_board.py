"""The newest assessments and counters, for views and metrics; in memory, for every thread."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from calidrift_analyzer.records import JobState, ModelAssessment, TaskRow

__all__ = ["Board", "Figures"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `/metrics` shows beside the assessments, as it was read from the store last.

    Attributes:
        last_window_ns: End of the newest window by model, UTC nanoseconds.
        outcomes: Finished recalibrations by model and outcome.
        open_jobs: Jobs that are not finished by model and state.
        tasks: Tasks of the schedule.
        store_bytes: Size of the database file.
    """

    last_window_ns: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[tuple[str, JobState], int] = field(default_factory=dict)
    open_jobs: Mapping[tuple[str, JobState], int] = field(default_factory=dict)
    tasks: tuple[TaskRow, ...] = ()
    store_bytes: int | None = None


@final
class Board:
    """Where tasks put what they found out, and others read it without asking the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, tuple[int, ModelAssessment]] = {}
        self._figures = Figures()
        self._rows: Counter[str] = Counter()

    def put(self, assessment: ModelAssessment) -> None:
        """Take over the newest assessment of a model."""
        with self._lock:
            self._latest[assessment.model] = (time.time_ns(), assessment)

    def latest(self) -> Mapping[str, tuple[int, ModelAssessment]]:
        """Give the newest assessments by model, each with its moment (UTC nanoseconds)."""
        with self._lock:
            return MappingProxyType(dict(self._latest))

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

    def rows(self) -> Mapping[str, int]:
        """Give the rows of windows that were written since the start, by model."""
        with self._lock:
            return MappingProxyType(dict(self._rows))
