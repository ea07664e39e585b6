"""Measures the calibration set of a model contract; the model runs in a child process."""

from calidrift_analyzer.calibrate._calibrate import Calibrated, calibrate_model

__all__ = ["Calibrated", "calibrate_model"]
