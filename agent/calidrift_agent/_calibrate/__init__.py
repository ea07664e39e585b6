"""Calibration: measuring the reference that production is compared with."""

from calidrift_agent._calibrate._calibration import CalibrateOptions, calibrate

__all__ = ["CalibrateOptions", "calibrate"]
