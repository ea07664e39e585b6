"""The outlier guard: what no other request comes near is for a person, not for calibration."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from calidrift_analyzer.records import CandidatePool, Suspicion, SuspicionReason

__all__ = ["suspicions"]

_NEAR: Final = 2.0**-0.5
"""Half an octave."""


def suspicions(pool: CandidatePool, corroboration: int) -> tuple[Suspicion, ...]:
    """Requests that must not be picked: not finite, or alone with a maximum that they would set.

    A request is corroborated at a point that it exceeds the bound of when at least `corroboration`
    other finite requests reach its maximum less half an octave. One that is not, at any point,
    is a suspicious single outlier: a corrupt input, or an attack on the calibration.

    Args:
        pool: The candidates.
        corroboration: Other requests needed; 0 switches the guard off for finite maxima.

    Returns:
        In the order of ids.
    """
    finite = np.isfinite(pool.maxima).all(axis=1)
    found = [_not_finite(pool, row) for row in np.flatnonzero(~finite).tolist()]
    rows = np.flatnonzero(finite)
    maxima = pool.maxima[rows].astype(np.float64)
    lacking = _uncorroborated(maxima, pool.bounds, corroboration)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(lacking, maxima / pool.bounds, -np.inf)
    for place in np.flatnonzero(lacking.any(axis=1)).tolist():
        column = int(np.argmax(excess[place]))
        row = int(rows[place])
        found.append(
            Suspicion(
                pool.ids[row],
                SuspicionReason.ALONE,
                pool.points[column],
                float(maxima[place, column]),
            )
        )
    return tuple(sorted(found, key=lambda suspicion: suspicion.id))


def _not_finite(pool: CandidatePool, row: int) -> Suspicion:
    column = int(np.flatnonzero(~np.isfinite(pool.maxima[row]))[0])
    return Suspicion(pool.ids[row], SuspicionReason.NOT_FINITE, pool.points[column], None)


def _uncorroborated(
    maxima: NDArray[np.float64], bounds: NDArray[np.float64], corroboration: int
) -> NDArray[np.bool_]:
    """(N, P): the request exceeds the bound there and too few others come near its maximum."""
    others = np.empty(maxima.shape, dtype=np.int64)
    for column in range(maxima.shape[1]):
        values = maxima[:, column]
        below = np.searchsorted(np.sort(values), values * _NEAR, side="left")
        others[:, column] = len(values) - below - 1
    return np.asarray((maxima > bounds) & (others < corroboration), dtype=np.bool_)
