"""The cycle: every stage in its order, from what agents wrote to a version in service."""

from calidrift_analyzer.cycle._cycle import collect_and_assess, run_cycle
from calidrift_analyzer.cycle._outcome import CycleOptions, CycleOutcome
from calidrift_analyzer.cycle._pool import StoredPool, stored_pool
from calidrift_analyzer.cycle._workbench import (
    candidates_folder,
    load_candidates,
    load_report,
    save_candidates,
    save_report,
)

__all__ = [
    "CycleOptions",
    "CycleOutcome",
    "StoredPool",
    "candidates_folder",
    "collect_and_assess",
    "load_candidates",
    "load_report",
    "run_cycle",
    "save_candidates",
    "save_report",
    "stored_pool",
]
