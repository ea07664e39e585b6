"""Candidates of a recalibration: the same weights with other activation ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records._windows import ModelTotals

__all__ = ["Candidate", "Production", "Source"]


class Source(StrEnum):
    """Where the ranges of a candidate come from."""

    SKETCH = "sketch"
    """From production sketches alone: no request was ever kept."""
    SAMPLES = "samples"
    """From the calibration set and selected captured requests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One quantized model that recalibration wrote.

    Attributes:
        id: `<source>-<estimator>`.
        model: Name of the model.
        source: Where its ranges come from.
        estimator: How they were estimated.
        path: Its folder, with `model.pt2` (an exported q/dq graph) and `profile.json`.
        units: Reference units behind its observed bounds.
        layers: Layers planned in INT8, one entry per call.
        worst_point: Point with the lowest predicted SQNR; empty where none can be predicted.
        worst_sqnr_db: That SQNR in dB.
        files: sha256 of each file by name.
    """

    id: str
    model: str
    source: Source
    estimator: Estimator
    path: Path
    units: int
    layers: tuple[str, ...]
    worst_point: str
    worst_sqnr_db: float | None
    files: Mapping[str, str]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Production:
    """What production showed, as far as ranges need it.

    Attributes:
        sketches: Merged sketch of each point, measured with the range instrument.
        units: Units of inference behind them.
    """

    sketches: Mapping[str, MagnitudeSketch]
    units: int

    @classmethod
    def of_totals(cls, totals: ModelTotals) -> "Production":
        """Take the sketches of what the store recorded.

        Raises:
            ConfigurationError: They were measured on the clip instrument: behind the first clipped
                layer its values are already distorted, and ranges made from them would stay wrong.
        """
        if totals.instrument not in (None, Instrument.RANGE):
            raise ConfigurationError(
                f"the sketches of {totals.model} were measured with the instrument "
                f"{totals.instrument}, but ranges need those of the instrument {Instrument.RANGE}"
            )
        units = max((point.units for point in totals.points), default=0)
        return cls({point.name: point.sketch() for point in totals.points}, units)
