"""The captured requests that a job selected: what they are, never what is in them."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture import read_capture
from calidrift_agent.errors import CaptureError
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service._views import moment
from calidrift_analyzer.store import Store

__all__ = ["Sample", "SampleFile", "describe", "view_samples"]

_MOST_SAMPLES: Final = 50


@final
@dataclass(frozen=True, slots=True)
class SampleFile:
    """One selected request: its id, why it was picked, and the file that a job read it from."""

    id: str
    picked_by: str | None
    path: Path


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One selected request as people see it.

    Attributes:
        id: Its name.
        picked_by: Why it was picked.
        captured: When it ran; `None` where it cannot be read any more.
        segment: Its segment; `None` without one.
        inputs: Name, type and shape of each input.
        unread: Why nothing can be told of it.
    """

    id: str
    picked_by: str | None
    captured: datetime | None = None
    segment: str | None = None
    inputs: tuple[tuple[str, str, str], ...] = ()
    unread: str | None = None


def view_samples(store: Store, job: int) -> tuple[SampleFile, ...]:
    """List the first selected requests of a job, in the order of picking; on the owner's thread."""
    for step in store.jobs.steps(job):
        if step.state is not JobState.RECALIBRATING or len(step.document) <= 2:
            continue
        document = json.loads(step.document)
        paths = document.get("samples") or ()
        selection = document.get("selection") or {}
        ids = selection.get("ids") or [Path(one).name.partition(".")[0] for one in paths]
        why = selection.get("picked_by") or [None] * len(paths)
        rows = zip(ids, why, paths, strict=False)
        return tuple(SampleFile(id, word, Path(path)) for id, word, path in rows)[:_MOST_SAMPLES]
    return ()


def describe(files: tuple[SampleFile, ...]) -> tuple[Sample, ...]:
    """Tell about requests from the heads of their files; reads them, so not on the event loop."""
    return tuple(_describe(one) for one in files)


def _describe(file: SampleFile) -> Sample:
    if not file.path.exists():
        return Sample(
            id=file.id, picked_by=file.picked_by, unread="its file has been replaced since"
        )
    try:
        capture = read_capture(file.path)
    except (CaptureError, OSError):
        return Sample(
            id=file.id, picked_by=file.picked_by, unread="its file cannot be read by the service"
        )
    return Sample(
        id=file.id,
        picked_by=file.picked_by,
        captured=moment(capture.time_ns),
        segment=capture.segment or None,
        inputs=tuple(
            (
                name,
                "bfloat16" if name in capture.bfloat16 else str(array.dtype),
                "\N{MULTIPLICATION SIGN}".join(str(size) for size in array.shape) or "scalar",
            )
            for name, array in capture.inputs.items()
        ),
    )
