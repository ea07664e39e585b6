"""What to change, as sentences."""

from collections.abc import Iterator, Mapping
from typing import Final

from calidrift_agent._doctor._examine import Examination
from calidrift_agent._export import MAX_POINTS
from calidrift_agent._vocabulary import Strategy
from calidrift_agent._watch import Reference, units_for

NAMED: Final = 5
"""Names that a sentence lists."""
_RARE: Final = 0.001
_LONG: Final = 7 * 86_400.0


def advise(found: Examination) -> tuple[str, ...]:
    """Say what to change, most important first; empty where nothing has to be."""
    return (*_of_sight(found), *_of_reference(found), *_of_cost(found))


def _of_sight(found: Examination) -> Iterator[str]:
    report = found.report
    if not report.observed_calls:
        yield (
            "Nothing was observed: the errors, drops and notes say why. Do not rely on a watch of "
            "this model before this is solved."
        )
    if found.errors:
        yield (
            f"The agent failed ({counted(found.errors)}). Set CALIDRIFT_STRICT=1 and repeat to see "
            "the error, and report it."
        )
    if found.dropped:
        yield (
            f"Something was dropped ({counted(found.dropped)}): these calls or inputs cannot be "
            "observed as they are."
        )
    if found.training:
        yield (
            "The model is in training mode, which serves other figures than evaluation: call "
            "eval() in the factory, as the service does."
        )
    if report.strategy is Strategy.EDGES:
        yield (
            "Only inputs and outputs of this model can be seen. Give watch(reference=) an FP32 "
            "module to see the ranges inside and the harm that is done."
        )
    if report.observed_calls and report.never_fired:
        yield (
            f"{len(report.never_fired)} of {len(report.points)} points never fired "
            f"({named(report.never_fired)}): give example inputs that reach them; if no request "
            "does, they are dead."
        )


def _of_reference(found: Examination) -> Iterator[str]:
    report, share = found.report, found.prescription.exceedance
    if report.reference is Reference.NONE:
        yield (
            "There is no calibration profile with observed bounds, so neither coverage nor drift "
            "can be told: run calibrate on random inputs of the service and give the result with "
            "--profile and to watch(profile=)."
        )
        return
    limit = report.detectable_exceedance
    if limit is None or limit > share:
        needed = units_for(share, len(report.references))
        floor = "Nothing" if limit is None else f"Nothing below {limit:.1%}"
        yield (
            f"{floor} can ever be told from bad luck with the reference units of this profile: "
            f"calibrate on {needed:,} random units or more to detect {share:.1%}."
        )
    elif (seconds := found.detection_seconds) is not None and seconds > _LONG:
        yield (
            f"An exceedance of {share:.1%} takes {seconds / 86_400:.0f} days to detect: raise "
            "WatchOptions.budget, or calibrate on more units."
        )
    if found.prescription.traffic is None:
        yield "Give --traffic to see how long detection takes."


def _of_cost(found: Examination) -> Iterator[str]:
    report, budget, ratio = found.report, found.prescription.budget, found.ratio
    if report.observed_calls and ratio is None:
        yield "The cost could not be measured: run more requests (--requests)."
    if ratio is not None and ratio < _RARE:
        yield (
            f"A budget of {budget:.0%} observes only one request in {1 / ratio:,.0f}: raise "
            "WatchOptions.budget if the service has time to spare."
        )
    if len(report.points) > MAX_POINTS:
        yield (
            f"A scrape shows {MAX_POINTS} of the {len(report.points)} points, the worst ones; "
            "render them in `calidrift sidecar`, which has --max-points."
        )


def named(names: tuple[str, ...]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def counted(times: Mapping[str, int]) -> str:
    """Words with their counts."""
    return ", ".join(f"{word}: {number}" for word, number in times.items())
