"""The long figures of `status`: bounds, limits of the test, tails, and distances that explain."""

from collections.abc import Iterator
from typing import Final

from calidrift_agent._state import ReferenceFigures
from calidrift_analyzer.cli._assessed import interval_text
from calidrift_analyzer.cli._output import Output, count, decibels, moment, number, share
from calidrift_analyzer.records import Interval, ModelAssessment, PointAssessment, ReturnLevel

__all__ = [
    "WIDE_HEADINGS",
    "detectable_line",
    "duration",
    "limit_lines",
    "show_explanations",
    "wide_row",
]

WIDE_HEADINGS: Final = ("evidence", "95 % interval", "SQNR dB", "clipped (measured)")
_TOLD: Final = 3


def wide_row(point: PointAssessment) -> tuple[object, ...]:
    """Give the further cells of a point, under `WIDE_HEADINGS`."""
    return (
        None if point.log10_evidence is None else f"10^{point.log10_evidence:.1f}",
        _bounds(point.exceedance),
        decibels(point.sqnr_production_db),
        share(point.clipped_energy),
    )


def _bounds(found: Interval | None) -> str | None:
    return None if found is None else interval_text(found.low, found.high)


def show_explanations(output: Output, assessment: ModelAssessment) -> None:
    """Write how each point moved: figures that decide first, then those that only explain."""
    rows = [
        (
            point.name,
            _octaves(point.over_range_octaves),
            _octaves(point.tail_shift_octaves),
            _octaves(point.far_tail_shift_octaves),
            _level(point.return_level, point.observed_bound),
            number(found.w1_octaves, 2) if found else None,
            number(found.js_bits, 2) if found else None,
            number(found.psi, 2) if found else None,
            number(found.ks, 2) if found else None,
        )
        for point in assessment.points
        if (found := point.explanatory) is not None or point.over_range_octaves is not None
    ]
    if rows:
        output.table(
            "how they moved since calibration, octaves (maxima are of sampled requests; "
            "* advisory, ** explanation: no alarm is made of them)",
            (
                "point",
                "over-range",
                "tail p99.9",
                "tail p99.99",
                "1 in 10^6 ÷ bound *",
                "W1 **",
                "JS bits **",
                "PSI **",
                "KS **",
            ),
            rows,
        )


def _octaves(value: float | None) -> str | None:
    """Write octaves with their sign.

    >>> _octaves(-0.001), _octaves(1.26), _octaves(None)
    ('0.0', '+1.3', None)
    """
    if value is None:
        return None
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}"


def _level(found: ReturnLevel | None, bound: float | None) -> str | None:
    """Write a level and its interval, relative to the observed bound."""
    if found is None or not bound:
        return None
    low, high = found.low / bound, found.high / bound
    return f"{found.level / bound:.2g} ({low:.2g} to {high:.2g})"


def limit_lines(assessment: ModelAssessment) -> Iterator[str]:
    """Write coverage with its bounds, the comparison with FP32, and what the alarm promises."""
    if assessment.request_coverage is not None:
        yield (
            f"request coverage {share(assessment.request_coverage.estimate)} "
            f"(lower 95 % bound {share(assessment.request_coverage_low)})"
        )
    if assessment.reference is not None:
        yield _beside_reference(assessment.reference)
    if assessment.alarm is not None:
        alarm = assessment.alarm
        yield (
            f"first alarm at {moment(alarm.end_ns)}, after {alarm.observed:,} observed units "
            f"of {alarm.served:,} served requests"
        )
    if any(point.log10_evidence is not None for point in assessment.points):
        yield (
            f"alarm where evidence reaches 10^{assessment.log10_threshold:.1f} (at most "
            f"{share(assessment.alpha)} false alarms over the whole life, all points together)"
        )
    if assessment.standing_out and assessment.alarm is None:
        named = ", ".join(assessment.standing_out[:_TOLD])
        yield f"look first at {named}: they stand out now (a list for looking, no alarm)"


def detectable_line(assessment: ModelAssessment) -> str | None:
    """Write what the alarm can see at all, and how soon."""
    if assessment.detectable_exceedance is None:
        return None
    line = f"smallest exceedance that can ever alarm: {share(assessment.detectable_exceedance)}"
    if assessment.units_to_detect is not None:
        line += f"; twice that alarms after about {assessment.units_to_detect:,} units"
    if assessment.seconds_to_detect is not None:
        line += f" ({duration(assessment.seconds_to_detect)} at this traffic)"
    return line


def _beside_reference(found: ReferenceFigures) -> str:
    line = f"beside the FP32 reference: output SQNR {decibels(found.sqnr_db)} dB, "
    line += f"cosine {found.cosine:.4f}"
    if found.agreement is not None:
        line += f", the same top-1 in {share(found.agreement)}"
    return f"{line} ({count(found.compared, 'unit')} compared)"


def duration(seconds: float) -> str:
    """Write a span of time.

    >>> duration(42), duration(600), duration(7200), duration(200_000)
    ('42 s', '10 min', '2 h', '2.3 days')
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
