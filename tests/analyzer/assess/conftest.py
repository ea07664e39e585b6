"""A bench: calibrated model, traffic in windows, a real store between them."""

import pytest

from calidrift_analyzer.assess import AssessRules, assess
from calidrift_analyzer.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "x.duckdb") as store:
        yield store


class Bench:
    """Calibrates a model, sends it traffic in windows, assesses it through the real store."""

    def __init__(self, store, traffic):
        self.store, self.traffic = store, traffic
        self.profile = None
        self.number = 0

    def calibrate(self, tensors, **options):
        self.profile = self.traffic.profile(tensors, **options)
        self.meta = self.traffic.meta(points=tuple(tensors), profile=self.profile.digest)

    def send(self, *tensors, units_per_window=10, seen_per_unit=1):
        bounds = [
            point.observed_bound.value if point.observed_bound else None
            for point in self.profile.points.values()
        ]
        windows = []
        for start in range(0, len(tensors[0]), units_per_window):
            part = [tensor[start : start + units_per_window] for tensor in tensors]
            windows.append(
                self.traffic.unit_window(
                    self.number, part, bounds, seen=seen_per_unit * len(part[0])
                )
            )
            self.number += 1
        self.store.ingest(self.meta, windows, batch=self.store.next_batch())

    def normal(self, units, scale=1.0, elements=64):
        return self.traffic.rng.normal(size=(units, elements)) * scale

    def assess(self, **options):
        digest = self.profile.digest
        return assess(
            self.store.totals("net", digest),
            self.store.history("net", digest),
            self.profile,
            AssessRules(**options),
        )


@pytest.fixture
def bench(store, traffic):
    return Bench(store, traffic)
