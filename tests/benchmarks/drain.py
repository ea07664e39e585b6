"""(iv) The drain after one sampled request, and how long it keeps other threads from running.

Gaps are what a second thread sees: it gives the interpreter lock up and takes it back in a loop,
with a switch interval of 10 µs, so that it waits no longer than the one call that is running. The
machine itself makes gaps of milliseconds, so the figure is the median over drains of the longest
gap in each, beside the same for a thread that spins in pure Python for the same time.
"""

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from networks import chain
from paired import median_interval
from sampled_pass import OPTIONS

from calidrift_agent import calibrate, watch

TARGET_MS = {40: 2.0, 200: 10.0}
TARGET_GAP_MS = 0.25
KINDS = {"kept whole, 4096 elements": (8, 8, 64), "sampled, 131072 elements": (8, 256, 64)}


class Gaps:
    """A thread that records how long it waits for the interpreter lock."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._longest = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        clock, sleep = time.perf_counter_ns, time.sleep
        while not self._stop.is_set():
            start = clock()
            sleep(0)
            gap = clock() - start
            if gap > self._longest:
                self._longest = gap

    def __enter__(self) -> "Gaps":
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def longest_during(self, call: Callable[[], object]) -> float:
        """Runs `call` and gives the longest gap meanwhile, in ms."""
        self._longest = 0
        call()
        return self._longest * 1e-6


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def measure(points: int, shape: tuple[int, ...], rounds: int) -> dict[str, object]:
    torch.manual_seed(0)
    model, x = chain(points, 64), torch.randn(shape)
    profile = calibrate(model, [x])
    with (
        torch.inference_mode(),
        watch(model, name="bench", profile=profile, sample_rate=1.0, options=OPTIONS) as one,
    ):
        assert one._active is not None
        tick = one._active.engine.tick
        model(x)
        tick()
        times, gaps, control = [], [], []
        for _ in range(rounds):
            model(x)
            start = time.perf_counter_ns()
            tick()
            times.append((time.perf_counter_ns() - start) * 1e-6)
        with Gaps() as seen:
            for _ in range(rounds):
                model(x)
                gaps.append(seen.longest_during(tick))
                control.append(seen.longest_during(lambda: spin(float(np.median(times)) * 1e-3)))
    low, high = median_interval(np.array(times))
    gap_low, gap_high = median_interval(np.array(gaps))
    return {
        "ms": float(np.median(times)),
        "low": low,
        "high": high,
        "gap_ms": float(np.median(gaps)),
        "gap": {"value": float(np.median(gaps)), "low": gap_low, "high": gap_high},
        "gap_p95_ms": float(np.quantile(gaps, 0.95)),
        "control_gap_ms": float(np.median(control)),
        "control_gap_p95_ms": float(np.quantile(control, 0.95)),
    }


def main(quick: bool) -> dict[str, object]:
    print("Drain after one sampled request, one thread")
    torch.set_num_threads(1)
    result: dict[str, object] = {}
    for kind, shape in KINDS.items():
        for points, target in TARGET_MS.items():
            row = measure(points, shape, 20 if quick else 200)
            met = "met" if row["high"] <= target else "missed" if row["low"] > target else "unclear"
            gap = "met" if row["gap_ms"] <= TARGET_GAP_MS else "missed"
            print(
                f"  {points:3d} points, {kind}: {row['ms']:.2f} [{row['low']:.2f}, "
                f"{row['high']:.2f}] ms (target <= {target:.0f}: {met}); longest gap "
                f"{row['gap_ms']:.3f} ms, p95 {row['gap_p95_ms']:.3f} (target <= {TARGET_GAP_MS}: "
                f"{gap}); pure Python {row['control_gap_ms']:.3f}, p95 "
                f"{row['control_gap_p95_ms']:.3f}"
            )
            result[f"{points} points, {kind}"] = row
    return result
