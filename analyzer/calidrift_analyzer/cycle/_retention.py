"""Retention as the configuration says: what stays fine for how long, and what must stay apart."""

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess import AssessRules, landmarks
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.records import ModelHistory
from calidrift_analyzer.store import FindLandmarks, Landmarks, Retention

__all__ = ["landmarks_of", "retention_of"]


def retention_of(config: AnalyzerConfig) -> Retention:
    """Give what the configuration says about retention."""
    windows, minutes, hours, days = config.retention.spans
    return Retention(
        windows=windows,
        minutes=minutes,
        hours=hours,
        days=days,
        max_bytes=config.retention.max_database_bytes,
    )


def landmarks_of(config: AnalyzerConfig) -> FindLandmarks:
    """Give what finds the looks that alarms refer to, by the rules of each declared model."""

    def find(history: ModelHistory, profile: CalibrationProfile | None) -> Landmarks:
        declared = config.models.get(history.model)
        rules = AssessRules() if declared is None else AssessRules.of(declared)
        return landmarks(history, profile, rules)

    return find
