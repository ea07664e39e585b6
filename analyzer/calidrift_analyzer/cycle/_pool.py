"""Captured requests of the store as the pool that a selection chooses from."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import final

import numpy as np

from calidrift_agent._capture import Capture, read_capture
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import CandidatePool, CaptureEntry, ModelTotals
from calidrift_analyzer.store import Store

__all__ = ["StoredPool", "stored_pool"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class StoredPool:
    """A pool, and where its requests are.

    Attributes:
        pool: What `select` takes.
        paths: File of each request by its id.
        skipped: What could not be used, in words.
    """

    pool: CandidatePool
    paths: Mapping[str, Path]
    skipped: tuple[str, ...]


def stored_pool(store: Store, model: str, profile: str) -> StoredPool:
    """Read the captured requests of a model that were compared with a profile.

    A request that is in both stores of the agent counts once: as its own twin it would vouch for
    itself against the outlier guard.

    Args:
        store: The store, after a collect run.
        model: Name of the model.
        profile: Digest of the profile that the service uses.

    Returns:
        The pool; the order is that of time.

    Raises:
        NoDataError: There is no captured request, or the profile was never collected.

    Cost: about 0.2 ms per captured request.
    """
    reference = store.profile(profile)
    if reference is None:
        raise NoDataError(
            f"profile {profile[:12] or '(none)'} of model {model!r} has not been collected, so "
            "nothing can be called uncovered; give the service a profile: watch(..., profile=...)"
        )
    captures, skipped = _captures(store, model, profile)
    if not captures:
        raise NoDataError(
            f"there are no captured requests of model {model!r} to select from; serve traffic "
            "under `watch(..., capture=...)` and collect again"
            + (f" ({len(skipped)} could not be read, the first: {skipped[0]})" if skipped else "")
        )
    totals = store.totals(model, profile)
    return StoredPool(
        _pool(list(captures.values()), reference, totals),
        MappingProxyType({capture.id: path for path, capture in captures.items()}),
        tuple(skipped),
    )


def _captures(store: Store, model: str, profile: str) -> tuple[dict[Path, Capture], list[str]]:
    """Read the files, uncovered ones first, each request once."""
    entries = [entry for entry in store.captures(model) if entry.profile == profile]
    entries.sort(key=lambda entry: entry.kind is CaptureKind.UNIFORM)
    read: list[tuple[CaptureEntry, Capture]] = []
    skipped: list[str] = []
    for entry in entries:
        try:
            read.append((entry, read_capture(entry.path)))
        except CaptureError as error:
            skipped.append(str(error))
    # The list that most files agree on: one odd file must not shut out all the others.
    listed = Counter(capture.points for _, capture in read).most_common(1)
    found: dict[Path, Capture] = {}
    seen: set[tuple[str, int, int]] = set()
    for entry, capture in read:
        if capture.points != listed[0][0]:
            skipped.append(f"capture {entry.path} lists other points than most")
            continue
        request = (entry.process, capture.time_ns, capture.row)
        if request not in seen:
            seen.add(request)
            found[Path(entry.path)] = capture
    return dict(sorted(found.items(), key=lambda item: (item[1].time_ns, item[1].id))), skipped


def _pool(
    captures: list[Capture], reference: CalibrationProfile, totals: ModelTotals
) -> CandidatePool:
    points = captures[0].points
    bounds = []
    for name in points:
        known = reference.find(name)
        bound = None if known is None else known.observed_bound
        bounds.append(np.nan if bound is None else bound.value)
    sketches = {point.name: point.sketch() for point in totals.points}
    return CandidatePool(
        ids=tuple(capture.id for capture in captures),
        points=points,
        maxima=np.stack([capture.maxima for capture in captures]),
        bounds=np.asarray(bounds),
        sketches=tuple(sketches.get(name) or MagnitudeSketch() for name in points),
        segments=tuple(capture.segment or None for capture in captures),
        inclusion=np.asarray([capture.inclusion for capture in captures]),
        uniform=np.asarray([capture.kind is CaptureKind.UNIFORM for capture in captures]),
    )
