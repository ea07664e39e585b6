"""The alarms at the very limit of what they tolerate, where false alarms are likeliest.

Streams without drift stay below the tolerated shares. Here the null is just true: units leave the
ranges with a chance of exactly the tolerance, answers differ with exactly the tolerated chance.
"""

import math
from typing import Any

import numpy as np
from ours import RULES, UNCOUNTED, alarms_of, profile_of
from streams import SHARES, Stream, segments

from calidrift_analyzer.assess import interval
from calidrift_analyzer.assess._detector import detect_changes

__all__ = ["run_lengths", "tolerated"]

UNITS = 1_000_000
"""Of a reference that promises much less than the tolerance, so that this one is in force."""
Figures = dict[str, Any]


def tolerated(streams: int, requests: int) -> list[Figures]:
    """Share of streams that ever alarm while exactly what is tolerated happens."""
    rng = np.random.default_rng(4)
    profile = profile_of(1, UNITS)
    counted = {"service levels": 0, "harm": 0}
    for _ in range(streams):
        found = alarms_of(_stream(rng, requests), profile).first
        levels = (found["all traffic"], found["segments"], found[UNCOUNTED])
        counted["service levels"] += any(one is not None for one in levels)
        counted["harm"] += found["harm"] is not None
    return [{"kind": kind, **share_of(count, streams)} for kind, count in counted.items()]


def share_of(count: int, streams: int) -> Figures:
    """A share of streams, with its one-sided upper 95 % bound."""
    found = interval(count, streams, 0.90)
    return {
        "streams": streams,
        "alarmed": count,
        "share": count / streams,
        "upper_bound": found.high if found else None,
    }


def run_lengths(runs: int, stated: float, windows: int) -> Figures:
    """Windows to a false alarm of the renewable alarm, at a share of exactly the tolerance."""
    rng = np.random.default_rng(3)
    lengths = []
    for _ in range(runs):
        counts = rng.binomial(10, RULES.tolerance, windows)
        found = detect_changes(
            counts, np.full(windows, 10), tolerance=RULES.tolerance, average_run_length=stated
        )
        lengths.append(found.alarms[0] + 1 if found.alarms else windows)
    mean, error = float(np.mean(lengths)), float(np.std(lengths) / math.sqrt(runs))
    return {"stated": stated, "measured": mean, "low": mean - 1.96 * error, "cut_off": windows}


def _stream(rng: np.random.Generator, requests: int) -> Stream:
    """One point whose maxima leave the bound of 1 with a chance of exactly the tolerance."""
    reference = np.ones((1, 1), np.float32)
    maxima = 2 * (rng.random((requests, 1)) < RULES.tolerance).astype(np.float32)
    return Stream(
        reference,
        reference,
        np.round(np.asarray(SHARES) * UNITS).astype(np.int64),
        maxima,
        maxima,
        np.ones(requests, np.bool_),
        segments(rng, requests),
        np.ones(requests, np.bool_),
        rng.random(requests) < RULES.harm_tolerance,
        requests,
    )
