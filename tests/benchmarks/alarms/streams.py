"""Streams of requests as a watch sees them: one largest magnitude per request and point.

A request has `VALUES` values at each point, of which the largest is drawn directly, by the inverse
of its distribution function; beside it, one of the values at random stands for what a monitor of
value distributions samples. Requests come from four segments, the smallest of them 2 % of the
traffic; one in four is compared with FP32, and says whether the answers differ. What counts as
drift, whether it harms, and how many answers differ then is known by construction.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

VALUES = 4096
POINTS = 50
REFERENCE = 512
LARGE = 8_192
"""Units of a reference of which enough are of the smallest segment."""
SHARES = (0.68, 0.2, 0.1, 0.02)
DRIFTING = 3
"""Of the segments, the one that a drift of one segment is about."""
COMPARED = 0.25
DIFFERING = 0.02
"""Share of the answers that differ from FP32 while all is well; 5 % are tolerated by default."""
HARMED = 0.2
"""The same where a drift does its full harm."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stream:
    """One reference set and the traffic after it.

    Attributes:
        reference: Largest magnitude of n random units, (n, L).
        reference_values: One value of each of them, (n, L).
        reference_segments: How many of them are of each segment, (S,) int64.
        maxima: The same of production requests, (T, L).
        values: One value of each of them, (T, L).
        units: Requests that are units of inference, (T,) bool.
        segments: Segment of each request, (T,) int64.
        compared: Units that were compared with FP32, (T,) bool.
        differing: Requests whose answer differs from that of FP32, (T,) bool.
        start: Request at which the drift begins; T where there is none.
    """

    reference: Floats
    reference_values: Floats
    reference_segments: NDArray[np.int64]
    maxima: Floats
    values: Floats
    units: NDArray[np.bool_]
    segments: NDArray[np.int64]
    compared: NDArray[np.bool_]
    differing: NDArray[np.bool_]
    start: int


@dataclass(frozen=True)
class Family:
    """Streams of one kind.

    Attributes:
        name: What they are called.
        promised: Whether Calidrift's alarm promises anything here (exchangeable units).
        make: Makes a stream of so many requests.
    """

    name: str
    promised: bool
    make: Callable[[np.random.Generator, int], Stream]


def largest(rng: np.random.Generator, rows: int, count: float | Floats = VALUES) -> Floats:
    """Largest of `count` half-normal magnitudes, (rows, L)."""
    uniform = rng.random((rows, POINTS), dtype=np.float32)
    # 1 - u^(1/m) without loss of digits: the upper tail is what matters here.
    upper = -np.expm1(np.log(np.maximum(uniform, 1e-30)) / count)
    return np.asarray(-special.ndtri(upper / 2), np.float32)


def one_value(rng: np.random.Generator, rows: int) -> Floats:
    """One half-normal magnitude of each request, (rows, L)."""
    return np.abs(rng.standard_normal((rows, POINTS), dtype=np.float32))


def calm(
    rng: np.random.Generator, requests: int, draw: Callable[[np.random.Generator, int], Floats]
) -> Stream:
    """Reference and production from one and the same source."""
    maxima = draw(rng, REFERENCE + requests)
    values = maxima  # a family without drift has no second view of it
    return Stream(
        maxima[:REFERENCE],
        values[:REFERENCE],
        rng.multinomial(REFERENCE, SHARES),
        maxima[REFERENCE:],
        values[REFERENCE:],
        np.ones(requests, np.bool_),
        segments(rng, requests),
        rng.random(requests) < COMPARED,
        rng.random(requests) < DIFFERING,
        requests,
    )


def segments(rng: np.random.Generator, requests: int) -> NDArray[np.int64]:
    """Segment of each request, by its share of the traffic."""
    return np.searchsorted(np.cumsum(SHARES[:-1]), rng.random(requests), side="right")


def light(rng: np.random.Generator, rows: int) -> Floats:
    return np.abs(rng.standard_normal((rows, POINTS), dtype=np.float32))


def heavy(rng: np.random.Generator, rows: int) -> Floats:
    """Pareto with exponent 1.5: no variance."""
    return np.maximum(rng.random((rows, POINTS), dtype=np.float32), 1e-30) ** np.float32(-2 / 3)


def dependent(rng: np.random.Generator, rows: int) -> Floats:
    """All points of a request share one factor, as layers of one network do."""
    factor = np.exp(rng.standard_normal((rows, 1), dtype=np.float32))
    return factor * light(rng, rows)


def tied(rng: np.random.Generator, rows: int) -> Floats:
    """Behind a ReLU and on a coarse grid: zeros, and many equal maxima."""
    return np.floor(np.maximum(rng.standard_normal((rows, POINTS), dtype=np.float32), 0) * 8) / 8


def bursts(rng: np.random.Generator, requests: int, *, keyed: bool) -> Stream:
    """Sessions of five requests that look alike; one unit each where their key is known."""
    sessions = -(-requests // 5)
    reference = light(rng, REFERENCE)
    own = light(rng, sessions)
    maxima = np.repeat(own, 5, axis=0)[:requests]
    units = np.arange(requests) % 5 == 0 if keyed else np.ones(requests, np.bool_)
    compared = np.repeat(rng.random(sessions) < COMPARED, 5)[:requests]
    return Stream(
        reference,
        reference,
        rng.multinomial(REFERENCE, SHARES),
        maxima,
        maxima,
        units,
        np.repeat(segments(rng, sessions), 5)[:requests],
        compared & units,
        np.repeat(rng.random(sessions) < DIFFERING, 5)[:requests],
        requests,
    )


CALM = (
    Family("light tails", True, lambda rng, n: calm(rng, n, light)),
    Family("heavy tails", True, lambda rng, n: calm(rng, n, heavy)),
    Family("dependent points", True, lambda rng, n: calm(rng, n, dependent)),
    Family("ties", True, lambda rng, n: calm(rng, n, tied)),
    Family("bursts, session key given", True, lambda rng, n: bursts(rng, n, keyed=True)),
    Family("bursts, no key", False, lambda rng, n: bursts(rng, n, keyed=False)),
)


@dataclass(frozen=True)
class Drift:
    """One change of traffic.

    Attributes:
        name: What it is called.
        harmful: Whether it harms a quantizer with the reference's ranges; None where it depends.
        change: Factor for each request after the start, shape (rows,), 1 for none.
        share: Share of a request's values that the factor multiplies.
        zeros: Share of the values that become zero.
        one_segment: Whether only the smallest segment drifts.
        reference: Units of the reference.
        patience: How many times as many requests as usual come after the change.
    """

    name: str
    harmful: bool | None
    change: Callable[[int], NDArray[np.float64]]
    share: float = 1.0
    zeros: float = 0.0
    one_segment: bool = False
    reference: int = REFERENCE
    patience: int = 1


def constant(factor: float) -> Callable[[int], NDArray[np.float64]]:
    return lambda rows: np.full(rows, factor)


DRIFTS = (
    Drift("1e-3 of values x 20", True, constant(20.0), share=1e-3),
    Drift("scale + 5 %", False, constant(1.05)),
    Drift("scale x 1.5", None, constant(1.5)),
    Drift("20 % of values to zero", False, constant(1.0), zeros=0.2),
    Drift("one segment of 2 %, x 3", True, constant(3.0), one_segment=True),
    Drift(
        "the same, n = 8,192", True, constant(3.0), one_segment=True, reference=LARGE, patience=5
    ),
    Drift("slow ramp to x 2", True, lambda rows: np.linspace(1.0, 2.0, rows)),
)


def drifting(
    rng: np.random.Generator, drift: Drift, before: int, after: int
) -> tuple[Stream, Iterator[Floats]]:
    """Traffic that changes after `before` requests, and raw values to fill two sketches with.

    The iterator yields many values of the reference, then many of the traffic after the change.
    """
    after *= drift.patience
    of_segment = segments(rng, before + after)
    chosen = np.arange(before + after) >= before
    if drift.one_segment:
        chosen &= of_segment == DRIFTING
    factor = np.ones(before + after)
    factor[before:] = drift.change(after)
    factor[~chosen] = 1.0
    maxima, values = largest(rng, before + after), one_value(rng, before + after)
    scaled = factor[:, None].astype(np.float32)
    if drift.share < 1.0:
        hit = rng.poisson(drift.share * VALUES, maxima.shape)
        loud = largest(rng, before + after, np.maximum(hit, 1)) * scaled
        maxima = np.where((hit > 0) & chosen[:, None], np.maximum(maxima, loud), maxima)
        values = np.where(rng.random(values.shape) < drift.share, values * scaled, values)
    else:
        maxima, values = maxima * scaled, values * scaled
    if drift.zeros:
        silent = (rng.random(values.shape) < drift.zeros) & chosen[:, None]
        values = np.where(silent, np.float32(0), values)
        fewer = largest(rng, before + after, VALUES * (1 - drift.zeros))
        maxima = np.where(chosen[:, None], fewer, maxima)
    stream = Stream(
        largest(rng, drift.reference),
        one_value(rng, drift.reference),
        rng.multinomial(drift.reference, SHARES),
        maxima,
        values,
        np.ones(before + after, np.bool_),
        of_segment,
        rng.random(before + after) < COMPARED,
        rng.random(before + after) < differing(drift, factor, chosen),
        before,
    )
    return stream, raw_values(rng, drift, factor[before:])


def differing(
    drift: Drift, factor: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Chance that an answer differs from FP32's: by the harm that the drift has done by then."""
    if not drift.harmful:
        return np.full(factor.size, DIFFERING)
    done = (factor - 1.0) / (factor.max() - 1.0)
    return np.where(chosen, DIFFERING + (HARMED - DIFFERING) * done, DIFFERING)


def raw_values(
    rng: np.random.Generator, drift: Drift, factor: NDArray[np.float64]
) -> Iterator[Floats]:
    size = 1 << 20
    yield rng.standard_normal(size, dtype=np.float32)
    values = rng.standard_normal(size, dtype=np.float32)
    hit = rng.random(size) < drift.share
    values[hit] *= rng.choice(factor, int(hit.sum())).astype(np.float32)
    values[rng.random(size) < drift.zeros] = 0.0
    yield values
