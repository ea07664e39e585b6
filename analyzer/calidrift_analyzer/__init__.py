"""Calidrift analyzer: stores windows, assesses drift, selects, recalibrates, validates, promotes."""

__all__: list[str] = []
