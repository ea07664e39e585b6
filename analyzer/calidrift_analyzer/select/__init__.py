"""Selection: the fewest captured requests that close the gap in the calibration set."""

from calidrift_analyzer.select._select import select

__all__ = ["select"]
