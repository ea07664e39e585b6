import math

import numpy as np
import pytest

from calidrift_analyzer.assess import _detector
from calidrift_analyzer.assess._detector import detect_changes


def run_lengths(rng, runs, *, share, length, windows=1500, units=10):
    """Windows to the first alarm; a run without one counts as its whole length."""
    found = []
    for _ in range(runs):
        counts = rng.binomial(units, share, windows)
        alarms = detect_changes(
            counts, np.full(windows, units), tolerance=0.01, average_run_length=length
        ).alarms
        found.append(alarms[0] + 1 if alarms else windows)
    return np.array(found)


def test_levels_are_sums_over_all_starts():
    """Oracle: one product of likelihood ratios for each window at which a test could begin."""
    rng = np.random.default_rng(0)
    counts, units = rng.binomial(7, 0.03, 40), np.full(40, 7)
    rates = _detector._alternatives(0.01)
    levels = detect_changes(counts, units, tolerance=0.01, average_run_length=1e9).log_level
    for window in (0, 1, 17, 39):
        total = 0.0
        for rate in rates:
            ratio = (rate / 0.01) ** counts * ((1 - rate) / 0.99) ** (units - counts)
            total += sum(np.prod(ratio[start : window + 1]) for start in range(window + 1))
        assert math.exp(levels[window]) == pytest.approx(total / len(rates), rel=1e-9)


@pytest.mark.parametrize("length", [20.0, 100.0])
def test_runs_without_change_last_as_long_as_stated(length):
    lengths = run_lengths(np.random.default_rng(1), 200, share=0.01, length=length)
    error = lengths.std() / math.sqrt(len(lengths))
    assert lengths.mean() - 2 * error >= length


def test_the_promise_can_be_broken(monkeypatch):
    """Planted mutant: ratios against half the tolerance have a mean above 1 under the null."""
    real = _detector.math.log1p
    monkeypatch.setattr(
        _detector.math, "log1p", lambda value: real(value / 2) if value == -0.01 else real(value)
    )
    monkeypatch.setattr(
        _detector.np, "log", lambda value: np.emath.log(np.asarray(value) * 2.0), raising=True
    )
    lengths = run_lengths(np.random.default_rng(1), 100, share=0.01, length=100.0)
    assert lengths.mean() < 100.0


def test_it_alarms_again_and_again_and_starts_anew():
    calm, drift = [0] * 100, [2] * 6
    counts = calm + drift + calm + drift
    found = detect_changes(counts, [10] * len(counts), tolerance=0.01, average_run_length=1e4)
    assert len(found.alarms) >= 2
    assert all(100 <= alarm < 106 or 206 <= alarm < 212 for alarm in found.alarms)
    first = found.alarms[0]
    fresh = detect_changes(
        counts[first + 1 :],
        [10] * (len(counts) - first - 1),
        tolerance=0.01,
        average_run_length=1e4,
    )
    assert fresh.log_level == pytest.approx(found.log_level[first + 1 :])


def test_it_can_be_cut_into_windows_of_any_length_without_data():
    found = detect_changes([], [], tolerance=0.01, average_run_length=100)
    assert found.alarms == ()
    assert found.log_level.size == 0


@pytest.mark.parametrize(
    ("counts", "units", "tolerance", "length", "words"),
    [
        ([2], [1], 0.1, 10.0, "between 0 and units"),
        ([-1], [1], 0.1, 10.0, "between 0 and units"),
        ([1], [1], 1.0, 10.0, "tolerance is 1.0"),
        ([1], [1], 0.1, 0.5, "average_run_length is 0.5"),
    ],
)
def test_impossible_arguments_are_named(counts, units, tolerance, length, words):
    with pytest.raises(ValueError, match=words):
        detect_changes(counts, units, tolerance=tolerance, average_run_length=length)
