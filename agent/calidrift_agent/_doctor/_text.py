"""An examination as text for people, and as a document for machines."""

from collections.abc import Iterator
from typing import Any, Final

from calidrift_agent._doctor._advice import advise, counted
from calidrift_agent._doctor._examine import Examination

_WIDTH: Final = 22
_SECONDS: Final = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_BYTES: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def as_text(found: Examination) -> str:
    """Lines for people; figures that are not known are said not to be, never 0."""
    lines = [f"{name:<{_WIDTH}} {value}" for name, value in _rows(found)]
    report = found.report
    fired = set(report.observed)
    lines += ["", f"Points ({len(report.points)}):"]
    lines += [f"  {name}{'' if name in fired else '  (never fired)'}" for name in report.points]
    lines += ["", f"Not observed ({len(report.skipped)}):"]
    skipped = [f"  {name or 'the model'}: {reason}" for name, reason in report.skipped.items()]
    lines += skipped or ["  nothing"]
    if report.notes:
        lines += ["", "Notes:", *(f"  {note}" for note in report.notes)]
    lines += ["", "What to change:"]
    lines += [f"  {number}. {one}" for number, one in enumerate(advise(found), start=1)] or [
        "  nothing"
    ]
    return "\n".join(lines) + "\n"


def as_document(found: Examination) -> dict[str, Any]:
    """The same as one JSON object."""
    report, cost, asked = found.report, found.report.cost, found.prescription
    return {
        "strategy": report.strategy,
        "instrument": report.instrument,
        "reference": report.reference,
        "points": report.points,
        "observed": report.observed,
        "skipped": report.skipped,
        "requests": asked.requests,
        "observed_requests": report.observed_calls,
        "own_seconds": None if cost is None else cost.own_seconds,
        "forward_seconds": None if cost is None else cost.forward_seconds,
        "budget": asked.budget,
        "sampling_ratio": found.ratio,
        "state_bytes": None if cost is None else cost.state_bytes,
        "copy_bytes": None if cost is None else cost.copy_bytes,
        "weight_bytes": None if cost is None else cost.weight_bytes,
        "file_bytes": None if cost is None else cost.file_bytes,
        "series": None if cost is None else cost.series,
        "detection": {
            "exceedance": asked.exceedance,
            "smallest": report.detectable_exceedance,
            "observed_requests": found.detection_requests,
            "requests_per_second": asked.traffic,
            "seconds": found.detection_seconds,
        },
        "errors": found.errors,
        "dropped": found.dropped,
        "notes": report.notes,
        "advice": advise(found),
    }


def _rows(found: Examination) -> Iterator[tuple[str, str]]:
    report, cost, asked = found.report, found.report.cost, found.prescription
    yield "strategy", f"{report.strategy} (instrument: {report.instrument})"
    yield "observed", f"{report.observed_calls} of {asked.requests} requests"
    if found.errors:
        yield "errors", counted(found.errors)
    if found.dropped:
        yield "dropped", counted(found.dropped)
    if cost is None:
        return
    if cost.own_seconds is None or cost.forward_seconds is None or found.ratio is None:
        yield "overhead", "not measured"
    else:
        yield (
            "overhead",
            f"{cost.own_seconds * 1e3:.3g} ms per observed request, "
            f"{cost.own_seconds / cost.forward_seconds:.2g} times its forward "
            f"({cost.forward_seconds * 1e3:.3g} ms)",
        )
        yield f"a budget of {asked.budget:.0%} buys", f"a sampling ratio of {found.ratio:.3g}"
    memory = f"{size(cost.state_bytes)} for what is counted, {size(cost.copy_bytes)} for copies"
    if cost.weight_bytes:
        memory += f", {size(cost.weight_bytes)} for dequantized weights"
    yield "memory per process", memory
    yield "disk per process", "none" if cost.file_bytes is None else size(cost.file_bytes)
    yield "Prometheus", f"at most {cost.series:,} series per process"
    yield f"detecting {asked.exceedance:.0%}", _detection(found)


def _detection(found: Examination) -> str:
    report, asked = found.report, found.prescription
    if not report.references:
        return "never: there is no reference"
    needed = found.detection_requests
    if needed is None:
        limit = report.detectable_exceedance
        floor = "nothing can be" if limit is None else f"the smallest that can be is {limit:.2%}"
        return f"never with this reference: {floor}"
    text = f"after {needed:,} observed requests"
    seconds = found.detection_seconds
    if seconds is None:
        return text
    return f"{text}, {duration(seconds)} at {asked.traffic:g} requests/s"


def duration(seconds: float) -> str:
    """A time in the largest unit of which there is at least one.

    Example:
        >>> duration(90.0), duration(0.2)
        ('1.5 minutes', '0.2 seconds')
    """
    factor, unit = next((one for one in _SECONDS if seconds >= one[0]), _SECONDS[-1])
    return f"{seconds / factor:.3g} {unit}"


def size(count: int) -> str:
    """Bytes in the largest unit of which there is at least one.

    Example:
        >>> size(3 * 2**20), size(17)
        ('3 MiB', '17 bytes')
    """
    factor, unit = next((one for one in _BYTES if count >= one[0]), (1, "bytes"))
    return f"{count / factor:.3g} {unit}" if factor > 1 else f"{count} bytes"
