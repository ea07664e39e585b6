"""What the counters of a window say about the comparison with a reference model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._vocabulary import RequestColumn

_BILLION: Final = 1e9
_FLOOR: Final = 0.5
"""Noise of a unit in 1e-9 that rounds to nothing: what is smaller cannot be told from none."""


@final
@dataclass(frozen=True, slots=True)
class ReferenceFigures:
    """Served outputs beside those of the reference model, as means over the compared units.

    Attributes:
        compared: Units.
        sqnr_db: -10 log10 of the mean of min(1, noise energy ÷ signal energy): 0 dB where the
            outputs have nothing in common, 93 dB where they cannot be told apart. The mean is of
            the bounded ratio, not of decibels: one answer that is all noise among ninety-nine
            perfect ones gives 20 dB.
        cosine: Mean cosine of the angle between both outputs, -1 to 1.
        agreement: Share of units with the same most likely class; None where no output has
            classes.
    """

    compared: int
    sqnr_db: float
    cosine: float
    agreement: float | None

    @classmethod
    def of(cls, requests: NDArray[np.int64]) -> ReferenceFigures | None:
        """Read the figures from request counters; None where nothing was compared.

        Args:
            requests: Shape (REQUEST_COLUMNS,), of a window or a sum of windows.

        Example:
            >>> from calidrift_agent._vocabulary import REQUEST_COLUMNS
            >>> requests = np.zeros(REQUEST_COLUMNS, np.int64)
            >>> requests[RequestColumn.COMPARED] = 100
            >>> requests[RequestColumn.NOISE_PPB] = 1_000_000_000
            >>> round(ReferenceFigures.of(requests).sqnr_db, 6)
            20.0
        """
        compared = int(requests[RequestColumn.COMPARED])
        if not compared:
            return None
        noise = max(float(requests[RequestColumn.NOISE_PPB]), _FLOOR * compared)
        distance = float(requests[RequestColumn.DISTANCE_PPB])
        ranked = int(requests[RequestColumn.RANKED])
        return cls(
            compared=compared,
            sqnr_db=-10.0 * math.log10(noise / compared / _BILLION),
            cosine=1.0 - 2.0 * distance / compared / _BILLION,
            agreement=int(requests[RequestColumn.AGREED]) / ranked if ranked else None,
        )
