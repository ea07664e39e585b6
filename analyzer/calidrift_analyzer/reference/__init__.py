"""References learned from production: random units become the observed bounds of a profile."""

from calidrift_analyzer.reference._learn import (
    REFERENCE_UNITS,
    Doubts,
    learn,
)

__all__ = ["REFERENCE_UNITS", "Doubts", "learn"]
