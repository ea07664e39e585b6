"""Tells how a version does on canaries; runs on the owner's thread."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from calidrift_analyzer.assess import canary_units
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.jobs import trial_of
from calidrift_analyzer.records import CanaryLook, JobRow, JobState, JobStep
from calidrift_analyzer.service._canary_view import CanaryMeasureView, CanaryView
from calidrift_analyzer.service._views import JobView, ProgressView, moment
from calidrift_analyzer.store import Store

__all__ = ["view_canary", "with_canary"]

_LOOKS: Final = 3


def view_canary(store: Store, row: JobRow, steps: Sequence[JobStep]) -> CanaryView | None:
    """Tell about the canary of a job; `None` where it has none."""
    try:
        found = trial_of(steps)
    except ContractError:
        return None  # of another version of Calidrift
    if found is None:
        return None
    trial, last = found.trial, found.looks[-1] if found.looks else None
    units, peers = (0, 0) if last is None else (last.units, last.peers)
    if row.state is JobState.CANARY:
        units, peers = canary_units(store.canaries.windows(row.model, trial))
    return CanaryView(
        version=trial.version,
        serving=trial.serving,
        since=moment(trial.since_ns),
        until=moment(trial.until_ns),
        units=units,
        peers=peers,
        wanted=trial.units,
        look=0 if last is None else last.look,
        looks=_LOOKS if last is None else last.looks,
        measures=() if last is None else _measures(last),
    )


def with_canary(job: JobView, canary: CanaryView | None) -> JobView:
    """Give a job with the progress of its canary, while there is one."""
    if canary is None or job.state is not JobState.CANARY:
        return job
    progress = ProgressView(
        what=f"units on canaries (peers {canary.peers:,})",
        done=min(canary.units, canary.wanted),
        total=canary.wanted,
        since=canary.since,
    )
    return replace(job, progress=progress)


def _measures(look: CanaryLook) -> tuple[CanaryMeasureView, ...]:
    return tuple(
        CanaryMeasureView(
            measure=one.measure,
            canary_bad=one.canary_bad,
            canary_of=one.canary_of,
            peers_bad=one.peers_bad,
            peers_of=one.peers_of,
            p=one.p,
            worse=one in look.worse,
        )
        for one in look.comparisons
    )
