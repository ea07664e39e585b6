"""The cycle: every stage in its order, from what agents wrote to a version in service."""

from calidrift_analyzer.cycle._cycle import collect_and_assess, run_cycle
from calidrift_analyzer.cycle._outcome import CycleOptions, CycleOutcome
from calidrift_analyzer.cycle._pool import StoredPool, stored_pool
from calidrift_analyzer.cycle._reference import (
    LearnedReference,
    LearnOptions,
    learn_reference,
    observed_profile,
)
from calidrift_analyzer.cycle._retention import landmarks_of, retention_of
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
    "LearnOptions",
    "LearnedReference",
    "StoredPool",
    "candidates_folder",
    "collect_and_assess",
    "landmarks_of",
    "learn_reference",
    "load_candidates",
    "load_report",
    "observed_profile",
    "retention_of",
    "run_cycle",
    "save_candidates",
    "save_report",
    "stored_pool",
]
