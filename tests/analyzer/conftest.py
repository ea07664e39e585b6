"""Hand-made windows and profiles: what agents write, without an agent."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from calidrift_agent._profile import (
    CalibrationProfile,
    ClipBound,
    Fingerprint,
    ObservedBound,
    PointProfile,
)
from calidrift_agent._sketch import CELLS, MagnitudeSketch
from calidrift_agent._state import PointMeta, SegmentCount, StateMeta, Window
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    VALUE_COLUMNS,
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
    ValueColumn,
    WindowFlag,
)

SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND


@dataclass
class Traffic:
    """Makes windows and profiles; every number comes from one seeded generator."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def meta(self, points=("a:input", "b:input"), **changes) -> StateMeta:
        fields = {
            "process": f"{int(self.rng.integers(2**62)):032x}",
            "boot": "b" * 32,
            "pid": 4242,
            "started_ns": EPOCH,
            "model": "net",
            "profile": "",
            "instrument": Instrument.RANGE,
            "strategy": Strategy.INSTEAD,
            "agent_version": "0.1.0",
            "window_seconds": 10.0,
            "points": tuple(PointMeta(name, 1.0, -1.0, 1.0, ("alias",)) for name in points),
        }
        return StateMeta(**{**fields, **changes})

    def random_window(self, number, points=2, flags=WindowFlag.NONE) -> Window:
        rng = self.rng
        counts = rng.integers(0, 50, (points, COUNT_COLUMNS))
        counts[:, CountColumn.UNITS] = rng.integers(50, 99, points)
        cells = rng.integers(0, 2**40, (points, CELLS)) * (rng.random((points, CELLS)) < 0.05)
        values = rng.random((points, VALUE_COLUMNS))
        values[:, ValueColumn.LOWEST] *= -1
        return Window(
            number=number,
            start_ns=EPOCH + number * 10 * SECOND + 123,
            end_ns=EPOCH + (number + 1) * 10 * SECOND + 123,
            flags=flags,
            sampling_ratio=float(rng.random()),
            requests=rng.integers(1, 1000, REQUEST_COLUMNS),
            segments=(SegmentCount("day", 3, 2), SegmentCount("night", 5, 5)),
            counts=counts,
            values=values,
            cells=cells,
        )

    def unit_window(self, number, values, bounds, *, start_ns=EPOCH, seen=None) -> Window:
        """A window of observed units.

        Args:
            number: Number of the window.
            values: Per point an array `(units, elements)`.
            bounds: Observed bound per point; `None` without one.
        """
        window = Window.empty(len(values), number=number, at_ns=start_ns + number * SECOND)
        units = len(values[0])
        inside = np.ones(units, bool)
        for row, (tensor, bound) in enumerate(zip(values, bounds, strict=True)):
            peaks = np.abs(tensor).max(axis=1)
            above = peaks > bound if bound is not None else np.zeros(units, bool)
            inside &= ~above
            sketch = MagnitudeSketch()
            sketch.update(tensor.astype(np.float32).ravel())
            window.cells[row] = sketch.cells
            window.counts[row, CountColumn.UNITS] = units
            window.counts[row, CountColumn.ROWS] = units
            window.counts[row, CountColumn.EXCEEDANCES] = above.sum()
            window.counts[row, CountColumn.ELEMENTS] = tensor.size
            window.values[row, ValueColumn.LOWEST] = sketch.minimum
            window.values[row, ValueColumn.HIGHEST] = sketch.maximum
            over = np.maximum(np.abs(tensor) - (bound or np.inf), 0.0)
            window.values[row, ValueColumn.CLIPPED_ENERGY] = (over**2).sum()
            window.values[row, ValueColumn.ENERGY] = (tensor**2).sum()
        window.requests[RequestColumn.SEEN] = units if seen is None else seen
        window.requests[RequestColumn.SAMPLED] = units
        window.requests[RequestColumn.OBSERVED] = units
        window.requests[RequestColumn.UNITS] = units
        window.requests[RequestColumn.UNITS_COVERED] = inside.sum()
        return Window(
            number=number,
            start_ns=window.start_ns,
            end_ns=window.start_ns + SECOND,
            flags=WindowFlag.NONE,
            sampling_ratio=1.0,
            requests=window.requests,
            segments=(),
            counts=window.counts,
            values=window.values,
            cells=window.cells,
        )

    def profile(self, values, *, rank=1, clip=True, sketches=True, **changes):
        """A profile calibrated on `{point: (units, elements)}`, ranges by absmax."""
        points = {}
        for name, tensor in values.items():
            sketch = MagnitudeSketch()
            sketch.update(tensor.astype(np.float32).ravel())
            bound = ObservedBound.from_absmax(np.abs(tensor).max(axis=1), rank=rank)
            top = float(np.abs(tensor).max())
            points[name] = PointProfile(
                name=name,
                clip_bound=ClipBound.of_quantizer(2 * top / 255, 128, 0, 255, "uint8")
                if clip
                else None,
                observed_bound=bound,
                sketch=sketch if sketches else None,
            )
        fields = {
            "points": points,
            "units": len(next(iter(values.values()))),
            "instrument": Instrument.RANGE,
            "fingerprint": Fingerprint(),
            "created": "2030-01-01T00:00:00+00:00",
        }
        return CalibrationProfile(**{**fields, **changes})


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()
