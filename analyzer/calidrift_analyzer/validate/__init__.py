"""Candidates against FP32: figures with their intervals, and the gate."""

from calidrift_analyzer.validate._validate import validate

__all__ = ["validate"]
