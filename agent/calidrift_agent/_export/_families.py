"""From a window to Prometheus families, under the names of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from calidrift_agent._export._catalogue import CATALOGUE, metric
from calidrift_agent._export._metric import Emitter, MetricType
from calidrift_agent._state import ReferenceFigures, StateMeta, Window, state_of
from calidrift_agent._vocabulary import (
    RATIO_BOUNDS,
    RATIO_COLUMNS,
    AgentState,
    CountColumn,
    DropReason,
    RequestColumn,
    Stage,
    ValueColumn,
)

_NS_PER_SECOND: Final = 1e9
_RAILS: Final = (("low", CountColumn.CLIP_LOW), ("high", CountColumn.CLIP_HIGH))
_KINDS: Final = (("nan", CountColumn.NAN), ("inf", CountColumn.INF))
_LE: Final = (*map(str, RATIO_BOUNDS), "+Inf")
SCRAPE_ERRORS: Final = "calidrift_agent_scrape_errors_total"

Labels: TypeAlias = tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class LivingFigures:
    """What only living processes can say, of a sum that dead ones are part of.

    Attributes:
        points_expected: Points that they attached to.
        points_observed: Points that have fired in one of them.
        states: How many of them are in each state; 0 everywhere: there is no living one.
        points: Names of the points that one of them has; empty: not known.
    """

    points_expected: int
    points_observed: int
    states: Mapping[AgentState, int]
    points: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, slots=True, eq=False)
class ExportSnapshot:
    """What one watch has to report at one moment.

    Attributes:
        meta: Identity, and the points in row order.
        total: Sum of everything since the watch began (`WindowBuffer.total()`).
        recent_absmax: float64 (P,), largest magnitude of the last two minutes, -inf where none
            (`WindowBuffer.recent_absmax`).
        state_age_seconds: Time since the state file was written; None without one.
        living: What living processes say where `total` is of several processes; None where it is
            of one, this one.
    """

    meta: StateMeta
    total: Window
    recent_absmax: NDArray[np.float64]
    state_age_seconds: float | None = None
    living: LivingFigures | None = None


@final
class FamilyTable:
    """Families by catalogue name, made when the first sample arrives: no data, no sample."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def number(self, name: str, labels: Labels, value: float) -> None:
        """Add a sample of a gauge or counter."""
        family, named = self._family(name, labels)
        family.add_sample(name, named, value)

    def histogram(self, name: str, labels: Labels, buckets: Iterable[int], total: float) -> None:
        """Add a histogram from the counts of its buckets (not yet summed up)."""
        family, named = self._family(name, labels)
        count = 0
        for le, bucket in zip(_LE, buckets, strict=True):
            count += bucket
            family.add_sample(f"{name}_bucket", {**named, "le": le}, count)
        family.add_sample(f"{name}_count", named, count)
        family.add_sample(f"{name}_sum", named, total)

    def absorb(self, other: FamilyTable) -> None:
        """Take over all samples of another table."""
        for name, family in other._families.items():
            if name in self._families:
                self._families[name].samples.extend(family.samples)
            else:
                self._families[name] = family

    def families(self) -> list[Family]:
        """All families that have samples, in the order of the catalogue."""
        return [self._families[entry.name] for entry in CATALOGUE if entry.name in self._families]

    def _family(self, name: str, labels: Labels) -> tuple[Family, dict[str, str]]:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = empty_family(name)
        return family, dict(zip(metric(name).labels, labels, strict=True))


def empty_family(name: str) -> Family:
    """A family of the catalogue without samples."""
    entry = metric(name)
    if entry.type is MetricType.COUNTER:
        return CounterMetricFamily(entry.name, entry.help, labels=entry.labels)
    if entry.type is MetricType.HISTOGRAM:
        return HistogramMetricFamily(entry.name, entry.help, labels=entry.labels)
    return GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)


def agent_families() -> Iterator[Family]:
    """Empty families of everything that an agent may report, for `describe()`."""
    return (empty_family(entry.name) for entry in CATALOGUE if entry.emitter is Emitter.AGENT)


def add_snapshot(table: FamilyTable, snapshot: ExportSnapshot, rows: Sequence[int]) -> None:
    """Add all samples of one watch; only the points of `rows` appear one by one."""
    _add_model(table, snapshot, len(snapshot.meta.points) - len(rows))
    _add_reference(table, snapshot)
    for row in rows:
        _add_point(table, snapshot, row)


def _add_model(table: FamilyTable, snapshot: ExportSnapshot, omitted: int) -> None:
    meta, total = snapshot.meta, snapshot.total
    model = (meta.model,)
    requests: Sequence[int] = total.requests.tolist()
    seconds = (
        ("calidrift_agent_overhead_seconds_total", RequestColumn.OVERHEAD_NS),
        ("calidrift_agent_forward_seconds_total", RequestColumn.FORWARD_NS),
    )
    for name, column in seconds:
        table.number(name, model, requests[column] / _NS_PER_SECOND)
    counted = (
        ("calidrift_observed_requests_total", RequestColumn.OBSERVED),
        ("calidrift_agent_seen_requests_total", RequestColumn.SEEN),
        ("calidrift_agent_sampled_requests_total", RequestColumn.SAMPLED),
    )
    for name, column in counted:
        table.number(name, model, requests[column])
    for place, stage in enumerate(Stage, RequestColumn.ERROR_FIRST):
        table.number("calidrift_agent_errors_total", (*model, stage), requests[place])
    for place, reason in enumerate(DropReason, RequestColumn.DROP_FIRST):
        table.number("calidrift_agent_dropped_total", (*model, reason), requests[place])
    table.number("calidrift_agent_points_omitted", model, omitted)
    _add_living(table, snapshot)


def _add_living(table: FamilyTable, snapshot: ExportSnapshot) -> None:
    """What is so now, and of nobody where there is no living process."""
    meta, total = snapshot.meta, snapshot.total
    model = (meta.model,)
    living = snapshot.living
    if living is None:
        observed = int(np.count_nonzero(total.counts[:, CountColumn.ROWS]))
        living = LivingFigures(len(meta.points), observed, {state_of(total.flags): 1})
    if not sum(living.states.values()):
        return
    gauges = (
        ("calidrift_agent_sampling_ratio", total.sampling_ratio),
        ("calidrift_agent_points_expected", living.points_expected),
        ("calidrift_agent_points_observed", living.points_observed),
    )
    for gauge, value in gauges:
        table.number(gauge, model, value)
    for state in AgentState:
        table.number("calidrift_agent_state", (*model, state), living.states.get(state, 0))
    if snapshot.state_age_seconds is not None:
        age = max(snapshot.state_age_seconds, 0.0)
        table.number("calidrift_agent_state_age_seconds", model, age)
    build = (*model, meta.agent_version, meta.instrument, meta.strategy)
    table.number("calidrift_agent_build_info", build, 1)


def _add_reference(table: FamilyTable, snapshot: ExportSnapshot) -> None:
    found = ReferenceFigures.of(snapshot.total.requests)
    if found is None:
        return
    model = (snapshot.meta.model,)
    table.number("calidrift_reference_compared_total", model, found.compared)
    table.number("calidrift_reference_sqnr_db", model, found.sqnr_db)
    table.number("calidrift_reference_cosine", model, found.cosine)
    if found.agreement is not None:
        table.number("calidrift_reference_agreement_ratio", model, found.agreement)


def _add_point(table: FamilyTable, snapshot: ExportSnapshot, row: int) -> None:
    point = snapshot.meta.points[row]
    labels = (snapshot.meta.model, point.name)
    counts: Sequence[int] = snapshot.total.counts[row].tolist()
    if point.observed_bound is not None:
        table.number("calidrift_observed_bound", labels, point.observed_bound)
    clipped = point.clip_lo is not None and point.clip_hi is not None
    if point.clip_lo is not None and point.clip_hi is not None:
        bound = max(abs(point.clip_lo), abs(point.clip_hi))
        table.number("calidrift_clip_bound", labels, bound)
    if not counts[CountColumn.ROWS]:
        return  # never fired: its silence must not look like zeros
    absmax = float(snapshot.recent_absmax[row])
    if absmax >= 0.0:
        table.number("calidrift_activation_absmax", labels, absmax)
    table.number("calidrift_observed_elements_total", labels, counts[CountColumn.ELEMENTS])
    for kind, column in _KINDS:
        table.number("calidrift_nonfinite_elements_total", (*labels, kind), counts[column])
    if clipped:
        for rail, column in _RAILS:
            table.number("calidrift_saturated_elements_total", (*labels, rail), counts[column])
    if point.observed_bound is not None:
        table.number("calidrift_exceedances_total", labels, counts[CountColumn.EXCEEDANCES])
        table.histogram(
            "calidrift_activation_range_ratio",
            labels,
            counts[RATIO_COLUMNS],
            float(snapshot.total.values[row, ValueColumn.RATIO_SUM]),
        )
