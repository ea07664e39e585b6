"""Collect: windows, profiles and the capture listing, from state directories into the store."""

from calidrift_analyzer.collect._collect import collect
from calidrift_analyzer.collect._report import CollectReport, Skipped

__all__ = ["CollectReport", "Skipped", "collect"]
