"""What the stages decided: assessments with their alarms, validations, moves of the version."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from calidrift_analyzer.records import (
    AlarmRow,
    AssessmentRow,
    JobState,
    ModelAssessment,
    ValidationRow,
    VersionRow,
)
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["Outcomes"]


@final
class Outcomes:
    """The tables of decisions; reached as `Store.outcomes`. All lists are newest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def record_assessment(self, assessment: ModelAssessment, document: str) -> None:
        """Keep an assessment, and latch the first alarm of each point, in one transaction.

        Args:
            assessment: What was assessed.
            document: Its JSON document.
        """
        row: dict[str, Any] = {
            "model": assessment.model,
            "profile": assessment.profile,
            "created": time.time_ns(),
            "verdict": assessment.verdict.value,
            "document": document,
        }
        with self._connection.transaction():
            self._connection.rows(query("assessment_add"), row)
            for point in assessment.points:
                if point.alarm is None:
                    continue
                self._connection.rows(
                    query("alarm_add"),
                    {
                        "model": assessment.model,
                        "profile": assessment.profile,
                        "point": point.name,
                        "ended": point.alarm.end_ns,
                        "units": point.alarm.units,
                        "observed": point.alarm.observed,
                        "served": point.alarm.served,
                        "log10_evidence": point.log10_evidence,
                        "log10_threshold": assessment.log10_threshold,
                    },
                )

    def assessments(self, model: str) -> tuple[AssessmentRow, ...]:
        """List the recorded assessments of a model."""
        rows = self._connection.rows(query("assessments"), {"model": model})
        return tuple(
            AssessmentRow(
                model=row[0], profile=row[1], created_ns=row[2], verdict=row[3], document=row[4]
            )
            for row in rows
        )

    def alarms(self, model: str, profile: str) -> tuple[AlarmRow, ...]:
        """List the alarms of a model under a profile, the earliest first."""
        rows = self._connection.rows(query("alarms"), {"model": model, "profile": profile})
        names = (
            "model",
            "profile",
            "point",
            "end_ns",
            "units",
            "observed",
            "served",
            "log10_evidence",
            "log10_threshold",
        )
        return tuple(AlarmRow(**dict(zip(names, row, strict=True))) for row in rows)

    def record_validation(self, row: ValidationRow) -> None:
        """Keep one decision of the gate."""
        self._connection.rows(query("validation_add"), asdict(row))

    def validations(self, model: str) -> tuple[ValidationRow, ...]:
        """List the decisions of the gate about a model."""
        rows = self._connection.rows(query("validations"), {"model": model})
        return tuple(
            ValidationRow(
                model=row[0], candidate=row[1], created_ns=row[2], accepted=row[3], document=row[4]
            )
            for row in rows
        )

    def record_version(self, row: VersionRow) -> None:
        """Keep one move of the version pointer."""
        self._connection.rows(query("version_add"), asdict(row))

    def versions(self, model: str) -> tuple[VersionRow, ...]:
        """List the moves of the version pointer of a model."""
        rows = self._connection.rows(query("versions"), {"model": model})
        return tuple(
            VersionRow(
                model=row[0],
                version=row[1],
                action=row[2],
                created_ns=row[3],
                profile=row[4],
                document=row[5],
            )
            for row in rows
        )

    def revalidations(self) -> Mapping[str, tuple[JobState, int]]:
        """Tell how the last re-validation of each model ended, and when (UTC nanoseconds).

        One that was cancelled does not count: it found nothing out.
        """
        rows = self._connection.rows(query("job_revalidated"))
        return {str(model): (JobState(state), int(ended)) for model, state, ended in rows}
