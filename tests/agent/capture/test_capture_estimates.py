"""The inclusion of every capture is right: what is estimated with it is unbiased."""

from __future__ import annotations

import numpy as np

from calidrift_agent._capture import (
    CaptureOptions,
    CaptureRow,
    CaptureWriter,
    list_captures,
    read_capture,
)
from calidrift_agent._capture import _file as file_module
from calidrift_agent._capture._choice import ExtremesAndRest, UniformReservoir
from calidrift_agent._capture._reservoirs import Reservoirs
from calidrift_agent._vocabulary import CaptureKind

SIGMAS = 4.5
"""Standard errors within which a mean of simulations must lie."""


def is_unbiased(estimates: list[float], truth: float) -> bool:
    found = np.asarray(estimates)
    return bool(abs(found.mean() - truth) < SIGMAS * found.std(ddof=1) / np.sqrt(len(found)))


def total_by_reservoir(rng, advance=True) -> tuple[float, float]:
    """A stream of a swelling and a falling rate through periods; estimate and truth of a sum.

    The estimate is NaN where no row of the last periods is in the sample.
    """
    reservoir = UniformReservoir(12, rng)
    values: dict[str, float] = {}
    ages: dict[str, int] = {}
    everything: list[tuple[int, float]] = []
    for period, rows in enumerate([5, 60, 200, 20, 3, 90, 40]):
        reservoir.period = period
        if advance:
            for key in reservoir.expire(period - 2):
                del values[key]
        else:  # planted mutant: forgets that the rows outside of the sample expired too
            for key in [key for key in values if ages[key] < period - 2]:
                reservoir._kept.remove(key)
                del values[key]
        for _ in range(rows):
            value = float(period + 1)
            everything.append((period, value))
            place = reservoir.choose()
            if place is None:
                continue
            key = str(len(everything))
            gone = reservoir.put(place, key)
            if gone is not None:
                del values[gone]
            values[key], ages[key] = value, period
    last = max(period for period, _ in everything)
    truth = sum(value for period, value in everything if period >= last - 2)
    estimate = sum(values.values()) / reservoir.inclusion if values else np.nan
    return estimate, truth


def test_a_reservoir_whose_rows_expire_stays_unbiased():
    rng = np.random.default_rng(1)
    found = [total_by_reservoir(rng) for _ in range(600)]
    # Given its size, whatever it is, the sample is uniform.
    estimates = [estimate for estimate, _ in found if np.isfinite(estimate)]
    assert len(estimates) > 550
    assert is_unbiased(estimates, found[0][1])


def test_a_reservoir_that_only_forgets_its_own_rows_is_found_out():
    """Planted mutant."""
    rng = np.random.default_rng(2)
    found = [total_by_reservoir(rng, advance=False) for _ in range(300)]
    estimates = [estimate for estimate, _ in found if np.isfinite(estimate)]
    assert not is_unbiased(estimates, found[0][1])


def test_expired_rows_make_room_for_as_many_later_ones():
    rng = np.random.default_rng(3)
    sizes = []
    reservoir = UniformReservoir(20, rng)
    for period in range(12):
        reservoir.period = period
        reservoir.expire(period - 3)
        for row in range(100):
            place = reservoir.choose()
            if place is not None:
                reservoir.put(place, f"{period}-{row}")
        sizes.append(len(reservoir))
        assert len(set(reservoir._kept)) == len(reservoir) <= 20
    # The numbers of rows that leave and come are equal, so every gap has been filled.
    assert sizes == [20] * 12
    assert reservoir.seen == 400


def test_everything_may_expire():
    reservoir = UniformReservoir(3, np.random.default_rng(0))
    for row in range(5):
        place = reservoir.choose()
        if place is not None:
            reservoir.put(place, str(row))
    assert len(reservoir.expire(1)) == 3
    assert (len(reservoir), reservoir.seen, reservoir.inclusion) == (0, 0, 1.0)
    assert reservoir.expire(9) == []


def total_by_extremes(rng, sure=False) -> tuple[float, float]:
    """Sum of the second maximum over uncovered rows, some of which expire; estimate and truth."""
    values = np.exp(np.random.default_rng(7).normal(size=(300, 3))).astype(np.float32)
    store = ExtremesAndRest(3, 2, rng)
    for row, maxima in enumerate(values):
        if row == 150:  # what came first expires
            store.remove(*(str(old) for old in range(60)))
        store.admit(str(row), maxima)
        while len(store) > 40:
            store.evict()
    here = [key for key in store._held if int(key) >= 60]
    inclusion = dict.fromkeys(here, 1.0) if sure else {key: store.inclusion(key) for key in here}
    truth = float(values[60:, 1].sum())
    return sum(float(values[int(key), 1]) / inclusion[key] for key in here), truth


def test_extremes_and_the_random_rest_are_unbiased():
    rng = np.random.default_rng(4)
    found = [total_by_extremes(rng) for _ in range(150)]
    assert is_unbiased([estimate for estimate, _ in found], found[0][1])


def test_an_inclusion_of_one_for_the_rest_is_found_out():
    """Planted mutant: what the index said before."""
    rng = np.random.default_rng(5)
    found = [total_by_extremes(rng, sure=True) for _ in range(50)]
    assert not is_unbiased([estimate for estimate, _ in found], found[0][1])


def test_chances_name_the_rows_that_are_here_by_chance():
    store = ExtremesAndRest(1, 1, np.random.default_rng(0))
    for row in range(6):
        store.admit(str(row), np.array([float(row == 0)], np.float32))
    assert set(store.chances().values()) == {1.0}
    store.evict()
    chances = store.chances()
    assert "0" not in chances
    assert len(set(chances.values())) == 1
    assert 0.0 < next(iter(chances.values())) < 1.0
    assert store.inclusion("0") == 1.0


def test_each_of_the_first_segments_has_a_reservoir():
    reservoirs = Reservoirs(4, 2, np.random.default_rng(0))
    first = reservoirs.of("night")
    assert reservoirs.of("night") is first
    assert reservoirs.of("") is not first
    third = reservoirs.of("day")
    assert reservoirs.of("noon") is third
    assert third not in (first, reservoirs.of(""))
    assert reservoirs.rooms == 12


def estimate_segments(folder, seed: int, sizes: dict[str, int]) -> dict[str, float]:
    options = CaptureOptions(seed=seed, reservoir=6, max_count=48, segments=2, max_per_hour=10_000)
    writer = CaptureWriter(folder, "net", "", ("fc:input",), options)
    order = [segment for segment, rows in sizes.items() for _ in range(rows)]
    np.random.default_rng(9).shuffle(order)
    for number, segment in enumerate(order):
        row = CaptureRow(
            inputs={"x": np.zeros(1, np.float32)},
            maxima=np.array([0.0], np.float32),
            uncovered=False,
            time_ns=number,
            segment=segment,
            inclusion=0.5,
        )
        assert writer.offer(row) is None
    writer.flush()
    found = dict.fromkeys(sizes, 0.0)
    for path in list_captures(folder):
        capture = read_capture(path)
        assert capture.kind is CaptureKind.UNIFORM
        # Early rows are heavier than late ones: a choice that prefers some of them shows.
        found[capture.segment] += capture.time_ns / capture.inclusion
    return found


def test_estimates_per_segment_from_files_are_unbiased(tmp_path, monkeypatch):
    monkeypatch.setattr(file_module.os, "fsync", lambda descriptor: None)
    sizes = {"night": 30, "": 3, "a": 10, "b": 25}
    order = [segment for segment, rows in sizes.items() for _ in range(rows)]
    np.random.default_rng(9).shuffle(order)
    # Each row stands for two, for it was observed with probability 1/2.
    truth = {
        name: 2.0 * sum(at for at, segment in enumerate(order) if segment == name) for name in sizes
    }
    found = [estimate_segments(tmp_path / str(seed), seed, sizes) for seed in range(24)]
    for name in ("night", "a", "b"):
        assert is_unbiased([one[name] for one in found], truth[name]), name
