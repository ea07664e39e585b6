"""The points of one watch as the taps and the drain need them: row numbers and bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import CalibrationProfile, ClipBound, PointProfile
from calidrift_agent._state import PointMeta
from calidrift_agent._vocabulary import Instrument


@final
@dataclass(frozen=True, slots=True, eq=False)
class PointTable:
    """Points in the row order of every window, with their bounds.

    Attributes:
        metas: Name, bounds and aliases of each point, as written to the state file.
        observed: float64 (P,), NaN where a point has no observed bound.
        clips: Clip bound of each point, or None.
        limits: `(low, high)` of each point: a finite value outside of it is clipped. Half a step
            outside the clip range, because values up to there round to the outermost code without
            more error than any other value has; infinite where there is no clip bound.
        rail_rates: float64 (P, 2): share of the calibration's values on the lowest and on the
            highest code; NaN where that is not known.
        served: What a pass over the served model measures at these points. With the clip
            instrument these are clip counts only: ranges need a reference model.
    """

    metas: tuple[PointMeta, ...]
    observed: NDArray[np.float64]
    clips: tuple[ClipBound | None, ...]
    limits: tuple[tuple[float, float], ...]
    rail_rates: NDArray[np.float64]
    served: Instrument = Instrument.RANGE

    @classmethod
    def of(
        cls,
        names: Sequence[tuple[str, tuple[str, ...]]],
        profile: CalibrationProfile | None = None,
        clips: Sequence[ClipBound | None] | None = None,
        served: Instrument = Instrument.RANGE,
    ) -> "PointTable":
        """Build the table.

        Args:
            names: Name and aliases of each point.
            profile: Where the bounds come from; found by name, else by alias.
            clips: Clip bounds read from the served graph itself; they win over the profile's.
            served: What a pass over the served model measures.
        """
        found = [_entry(profile, name, aliases) for name, aliases in names]
        chosen = tuple(
            own or (entry.clip_bound if entry is not None else None)
            for own, entry in zip(clips or [None] * len(found), found, strict=True)
        )
        bounds = [
            entry.observed_bound.value
            if entry is not None and entry.observed_bound is not None
            else None
            for entry in found
        ]
        metas = tuple(
            PointMeta(
                name=name,
                observed_bound=bound,
                clip_lo=None if clip is None else clip.lo,
                clip_hi=None if clip is None else clip.hi,
                aliases=aliases,
            )
            for (name, aliases), bound, clip in zip(names, bounds, chosen, strict=True)
        )
        observed = np.array([math.nan if one is None else one for one in bounds], np.float64)
        limits = tuple(_limits(clip) for clip in chosen)
        return cls(metas, observed, chosen, limits, _rail_rates(found), served)

    @property
    def edges(self) -> NDArray[np.float64]:
        """float64 (P, 4): limits and clip range of each point, as the native tap reads them.

        A point without a clip range has an upper limit below its lower one.
        """
        rows = [
            (1.0, -1.0, 0.0, 0.0) if clip is None else (*limits, clip.lo, clip.hi)
            for clip, limits in zip(self.clips, self.limits, strict=True)
        ]
        return np.array(rows, np.float64).reshape(-1, 4)

    @property
    def has_reference(self) -> bool:
        """Whether any point has an observed bound."""
        return bool(np.isfinite(self.observed).any())

    @property
    def has_clips(self) -> bool:
        """Whether any point has a clip bound."""
        return any(clip is not None for clip in self.clips)

    def __len__(self) -> int:
        return len(self.metas)


def _entry(
    profile: CalibrationProfile | None, name: str, aliases: tuple[str, ...]
) -> PointProfile | None:
    if profile is None:
        return None
    found = (profile.find(one) for one in (name, *aliases))
    return next((entry for entry in found if entry is not None), None)


def _rail_rates(entries: Sequence[PointProfile | None]) -> NDArray[np.float64]:
    rates = [
        (None, None) if entry is None else (entry.rail_low_rate, entry.rail_high_rate)
        for entry in entries
    ]
    return np.array(rates, np.float64).reshape(-1, 2)


def _limits(clip: ClipBound | None) -> tuple[float, float]:
    if clip is None:
        return -math.inf, math.inf
    return clip.lo - clip.scale / 2, clip.hi + clip.scale / 2
