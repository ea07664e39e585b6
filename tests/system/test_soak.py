"""The soak in its short form; by hand: `python tests/benchmarks/soak.py --minutes 30`."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SECONDS = float(os.environ.get("CALIDRIFT_SOAK_SECONDS", "27"))


@pytest.fixture(scope="module")
def soak():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("soak")
    sys.path.remove(str(BENCHMARKS))
    for name in ("soak", "serving"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * SECONDS)
def test_nothing_grows_and_nothing_is_lost(soak, tmp_path):
    course, load, total = soak.soak(SECONDS, tmp_path)

    assert soak.complaints(course, load, total) == []
    # It was a soak: workers died of both kinds, files were swept, and there was load.
    assert len(course.killed) >= 2
    assert len(course.ended) >= 2
    assert course.merged >= 4
    assert sum(load.total().values()) > 20 * SECONDS


def memory(slope, noise=0.0, steps=0):
    """Samples of 30 s, two a second, of a process that grows by `slope` bytes a second."""
    rng = np.random.default_rng(0)
    moments = np.arange(0.0, 30.0, 0.5)
    sizes = 2e8 + slope * moments + noise * rng.standard_normal(60) + steps * (moments > 25)
    return list(zip(moments, sizes.astype(int), strict=True))


def test_growth_is_the_slope_and_not_a_step(soak):
    allowed = soak.allowed_growth(30.0)
    assert abs(soak.growth(memory(0.0, noise=3e5))) < soak.GROWTH_BYTES
    assert abs(soak.growth(memory(0.0, noise=1e5, steps=5_000_000))) < soak.GROWTH_BYTES
    leak = 20_000 * 50  # 20 KB a request
    assert soak.growth(memory(leak, noise=3e5)) == pytest.approx(leak * 19, rel=0.2)
    assert soak.growth(memory(leak, noise=3e5)) > allowed
    assert soak.growth(memory(0.0)[:2]) == float("inf")
    assert soak.allowed_growth(1800.0) < 1.01 * soak.GROWTH_BYTES < allowed


@pytest.fixture
def good(soak):
    """A course without fault, and what goes with it."""
    serving = importlib.import_module("serving")
    course = soak.Course()
    course.memory[7] = memory(0.0)
    course.descriptors[7] = [9] * 60
    course.scrapes = [{"text": float(number)} for number in range(10)]
    course.files = [10, 14, 12, 0]
    course.finals = {("text", 7): serving.Counted(3, 9.0, False)}
    load = type("Load", (), {"answered": {("text", 7): [1.0] * 3}, "unanswered": {"text": 0}})
    return course, load, {"text": 3}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda course, total: None, None),
        (lambda course, total: course.scrapes.append({"text": 8.0}), "went down"),
        (lambda course, total: course.memory.update({7: memory(1e6)}), "grew by"),
        (lambda course, total: course.descriptors[7].extend([10] * 9), "open files"),
        (lambda course, total: course.files.append(2), "are left"),
        (lambda course, total: course.files.insert(0, 40), "40 state files at once"),
        (lambda course, total: total.update(text=2), "the sum of all says 2"),
        (lambda course, total: course.finals.clear(), "counted 0"),
    ],
)
def test_each_fault_is_found(soak, good, spoil, complaint):
    course, load, total = good
    spoil(course, total)
    found = soak.complaints(course, load, total)
    if complaint is None:
        assert found == []
    else:
        assert any(complaint in sentence for sentence in found)
