"""The store: windows, profiles, captures and decisions in one DuckDB file."""

from calidrift_analyzer.store._annotations import Annotations
from calidrift_analyzer.store._canary import Canaries
from calidrift_analyzer.store._checking import CheckReport
from calidrift_analyzer.store._connection import StoreLostError
from calidrift_analyzer.store._deployments import Deployments
from calidrift_analyzer.store._jobs import JobBook, NewJob, Step
from calidrift_analyzer.store._merging import MergeReport
from calidrift_analyzer.store._outcomes import Outcomes
from calidrift_analyzer.store._patience import COMMAND_PATIENCE, while_busy
from calidrift_analyzer.store._references import References
from calidrift_analyzer.store._retention import (
    FindLandmarks,
    Landmarks,
    Retention,
    RetentionReport,
)
from calidrift_analyzer.store._store import Store
from calidrift_analyzer.store._upkeep import Upkeep
from calidrift_analyzer.store._views import (
    Heard,
    Kept,
    RemoteCapture,
    SeriesColumns,
    SeriesSpan,
    Views,
)

__all__ = [
    "COMMAND_PATIENCE",
    "Annotations",
    "Canaries",
    "CheckReport",
    "Deployments",
    "FindLandmarks",
    "Heard",
    "JobBook",
    "Kept",
    "Landmarks",
    "MergeReport",
    "NewJob",
    "Outcomes",
    "References",
    "RemoteCapture",
    "Retention",
    "RetentionReport",
    "SeriesColumns",
    "SeriesSpan",
    "Step",
    "Store",
    "StoreLostError",
    "Upkeep",
    "Views",
    "while_busy",
]
