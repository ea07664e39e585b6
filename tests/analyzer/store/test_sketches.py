"""One sketch, three ways: merged in SQL, merged in numpy, and made of the raw values again."""

from datetime import timedelta

import numpy as np
import pytest

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._state import Window
from calidrift_agent._vocabulary import ValueColumn
from calidrift_analyzer.store import Landmarks, Retention

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
KINDS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(1.5, size=size) * 100,
    "one side": lambda rng, size: np.maximum(rng.normal(size=size), 0.0),
    "tiny and huge": lambda rng, size: (
        rng.choice([-1, 1], size) * 2.0 ** rng.uniform(-30, 20, size)
    ),
    "not finite": lambda rng, size: rng.choice([1.0, -2.0, 0.0, np.nan, np.inf, -np.inf], size),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sql_numpy_and_raw_values_give_the_same_bits(store, traffic, kind):
    values = KINDS[kind](traffic.rng, 30_000).astype(np.float32)
    whole = MagnitudeSketch()
    whole.update(values)
    merged = MagnitudeSketch()
    metas = [traffic.meta(points=("a:input",)) for _ in range(3)]
    # Cut anywhere, spread over processes and windows in another order than that of the values.
    cuts = np.sort(traffic.rng.integers(0, values.size, 23))
    parts = np.split(values, cuts)
    numbers = {meta.process: 0 for meta in metas}
    for place in traffic.rng.permutation(len(parts)):
        meta = metas[place % 3]
        number = numbers[meta.process]
        numbers[meta.process] += 1
        part = MagnitudeSketch()
        part.update(parts[place])
        merged.merge(part)
        window = Window.empty(1, number=number, at_ns=NOW + number * 3_600 * SECOND)
        window.cells[0] = part.cells
        window.values[0, [ValueColumn.LOWEST, ValueColumn.HIGHEST]] = part.minimum, part.maximum
        store.ingest(meta, [window], batch=number + 1)
    np.testing.assert_array_equal(merged.cells, whole.cells)
    for days in (None, (0, 9, 9, 9), (0, 0, 9, 9), (0, 0, 0, 9), (0, 0, 0, 0)):
        if days is not None:
            names = ("windows", "minutes", "hours", "days")
            spans = {name: timedelta(days=n) for name, n in zip(names, days, strict=True)}
            store.retain(Retention(**spans), lambda *_: Landmarks(), now_ns=NOW * 2)
        found = store.totals("net", "").points[0].sketch()
        np.testing.assert_array_equal(found.cells, whole.cells)
        assert (found.minimum, found.maximum) == (whole.minimum, whole.maximum)
        if np.isfinite(values).all():
            assert found.quantile(0.999) == whole.quantile(0.999)
