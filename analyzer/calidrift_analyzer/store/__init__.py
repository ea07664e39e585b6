"""The store: windows, profiles, captures and decisions in one DuckDB file."""

from calidrift_analyzer.store._connection import StoreLostError
from calidrift_analyzer.store._outcomes import Outcomes
from calidrift_analyzer.store._retention import (
    FindLandmarks,
    Landmarks,
    Retention,
    RetentionReport,
)
from calidrift_analyzer.store._store import Store

__all__ = [
    "FindLandmarks",
    "Landmarks",
    "Outcomes",
    "Retention",
    "RetentionReport",
    "Store",
    "StoreLostError",
]
