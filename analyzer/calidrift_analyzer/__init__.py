"""Calidrift analyzer: stores windows, assesses drift, selects, recalibrates, promotes."""

__all__: list[str] = []
