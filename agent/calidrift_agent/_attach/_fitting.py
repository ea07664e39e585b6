"""Whether a model and a profile may be brought together."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from calidrift_agent._observe import Gate
from calidrift_agent._points import Point, fingerprint_of
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ProfileMismatchError


def require_unwatched(model: Any, *attributes: str) -> None:
    """Refuse a model in which a gate stands already.

    A gate of a watch that was closed is taken out: the host had saved it as the model's own
    forward, and has put it back since.

    Args:
        model: What requests call.
        attributes: Where a gate may stand; by default `forward`.

    Raises:
        AttachError: It is watched.
    """
    own = getattr(model, "__dict__", {})
    places = attributes or ("forward",)
    for name in places:
        while isinstance(gate := own.get(name), Gate) and gate.observe is None:
            gate.detach()
            if own.get(name) is gate:  # it stood for another attribute, or for another object's
                break
    if any(isinstance(own.get(name), Gate) for name in places):
        raise AttachError(
            f"this {type(model).__name__} is watched already; close the other watch first"
        )


def require_instrument(
    profile: CalibrationProfile | None, instrument: Instrument = Instrument.RANGE
) -> None:
    """Refuse a profile that was not measured with the instrument of the watch.

    Raises:
        ProfileMismatchError: It was measured with another.
    """
    if profile is None:
        return
    if profile.instrument is not instrument and profile.units:
        raise ProfileMismatchError(
            f"the profile was measured with the {profile.instrument} instrument, but production is "
            f"measured with the {instrument} instrument; calibrate again"
        )


def require_fitting(
    profile: CalibrationProfile | None,
    model: nn.Module,
    points: Iterable[Point],
    instrument: Instrument = Instrument.RANGE,
) -> None:
    """Refuse a profile of another model or another instrument.

    Raises:
        ProfileMismatchError: It does not fit; the sentence names what differs.
    """
    require_instrument(profile, instrument)
    if profile is not None:
        profile.require_fits([point.name for point in points], fingerprint_of(model))


def profile_notes(profile: CalibrationProfile | None) -> tuple[str, ...]:
    """Return what a reader of the report must know about the reference."""
    if profile is None:
        return ("no profile was given: coverage and exceedance are not counted",)
    if profile.unobserved:
        return (
            f"{len(profile.unobserved)} of {len(profile.points)} points of the profile have no "
            "observed bound: coverage and exceedance are not counted there",
        )
    return ()
