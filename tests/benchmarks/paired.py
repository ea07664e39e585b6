"""Paired ratios: variants interleaved in one run, with a bootstrap interval and an A/A control.

Absolute times on a shared machine mean nothing; the ratio of two neighbours in time does. Every
round runs each variant once between two runs of the baseline and takes `variant ÷ mean(before,
after)`, so that a slow drift of the machine's speed cancels.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of paired ratios with its 95 % bootstrap interval."""

    name: str
    median: float
    low: float
    high: float
    rounds: int
    baseline_ms: float

    def verdict(self, target: float) -> str:
        """Says 'met', 'missed', or 'inconclusive' when the interval straddles the target."""
        if self.high <= target:
            return "met"
        if self.low > target:
            return "missed"
        return "inconclusive"

    def show(self, target: float | None = None) -> str:
        """Gives one line: ratio [low, high] and, with a target, the verdict."""
        text = f"{self.name}: {self.median:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.rounds})"
        return text if target is None else f"{text}, target <= {target}: {self.verdict(target)}"


def median_interval(
    samples: np.ndarray, *, seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """Gives the 95 % percentile-bootstrap interval of the median of `samples`."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(samples), size=(draws, len(samples)))
    low, high = np.quantile(np.median(samples[picks], axis=1), (0.025, 0.975))
    return float(low), float(high)


def clock(call: Callable[[], object]) -> float:
    """Runs `call` once and gives its wall time in seconds."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) * 1e-9


@dataclass(frozen=True, slots=True)
class Variant:
    """Something to measure: `call` is timed, `before` and `after` are not."""

    call: Callable[[], object]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None

    def run(self) -> float:
        """Gives the wall time of one call in seconds."""
        self.before()
        took = clock(self.call)
        self.after()
        return took


def paired(
    baseline: Callable[[], object],
    variants: Mapping[str, Variant],
    *,
    rounds: int,
    warmup: int = 3,
) -> dict[str, Ratio]:
    """Measures every variant against `baseline` in interleaved, shuffled rounds.

    Variants must run on the very objects of the baseline (attach before, detach after): two copies
    of one network differ by where their weights happen to lie in memory (0.26 ms a call on a chain
    of 1,000 small layers, far more than a watch costs). An A/A control (the baseline against
    itself) is always among the results under 'A/A': where its interval does not contain 1, the
    machine was too noisy to trust the others.
    """
    calls = {"A/A": Variant(baseline), **variants}
    for variant in calls.values():
        for _ in range(warmup):
            variant.run()
    order = np.random.default_rng(0)
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    plain: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for index in order.permutation(len(names)):
                before = clock(baseline)
                took = calls[names[index]].run()
                behind = clock(baseline)
                plain.append((before + behind) / 2)
                found[names[index]].append(took / plain[-1])
    finally:
        gc.enable()
    base = float(np.median(plain)) * 1e3
    result = {}
    for name, values in found.items():
        samples = np.asarray(values)
        low, high = median_interval(samples)
        result[name] = Ratio(name, float(np.median(samples)), low, high, rounds, base)
    return result
