"""Streams of requests as a watch sees them: one largest magnitude per request and point.

A request has `VALUES` values at each point, of which the largest is drawn directly, by the inverse
of its distribution function; beside it, one of the values at random stands for what a monitor of
value distributions samples. What counts as drift, and whether it harms, is known by construction.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

VALUES = 4096
POINTS = 50
REFERENCE = 512

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stream:
    """One reference set and the traffic after it.

    Attributes:
        reference: Largest magnitude of n random units, (n, L).
        reference_values: One value of each of them, (n, L).
        maxima: The same of production requests, (T, L).
        values: One value of each of them, (T, L).
        units: Requests that are units of inference, (T,) bool.
        segment: Requests of the segment that drifts, (T,) bool.
        start: Request at which the drift begins; T where there is none.
    """

    reference: Floats
    reference_values: Floats
    maxima: Floats
    values: Floats
    units: NDArray[np.bool_]
    segment: NDArray[np.bool_]
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
    everything = np.ones(requests, np.bool_)
    nothing = np.zeros(requests, np.bool_)
    values = maxima  # a family without drift has no second view of it
    return Stream(
        maxima[:REFERENCE],
        values[:REFERENCE],
        maxima[REFERENCE:],
        values[REFERENCE:],
        everything,
        nothing,
        requests,
    )


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
    return Stream(
        reference, reference, maxima, maxima, units, np.zeros(requests, np.bool_), requests
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
        segment: Share of the requests that drift.
    """

    name: str
    harmful: bool | None
    change: Callable[[int], NDArray[np.float64]]
    share: float = 1.0
    zeros: float = 0.0
    segment: float = 1.0


def constant(factor: float) -> Callable[[int], NDArray[np.float64]]:
    return lambda rows: np.full(rows, factor)


DRIFTS = (
    Drift("1e-3 of values x 20", True, constant(20.0), share=1e-3),
    Drift("scale + 5 %", False, constant(1.05)),
    Drift("scale x 1.5", None, constant(1.5)),
    Drift("20 % of values to zero", False, constant(1.0), zeros=0.2),
    Drift("one segment of 2 %, x 3", True, constant(3.0), segment=0.02),
    Drift("slow ramp to x 2", True, lambda rows: np.linspace(1.0, 2.0, rows)),
)


def drifting(
    rng: np.random.Generator, drift: Drift, before: int, after: int
) -> tuple[Stream, Iterator[Floats]]:
    """Traffic that changes after `before` requests, and raw values to fill two sketches with.

    The iterator yields many values of the reference, then many of the traffic after the change.
    """
    chosen = np.zeros(before + after, np.bool_)
    chosen[before:] = rng.random(after) < drift.segment
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
        largest(rng, REFERENCE),
        one_value(rng, REFERENCE),
        maxima,
        values,
        np.ones(before + after, np.bool_),
        chosen,
        before,
    )
    return stream, raw_values(rng, drift, factor[before:])


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
