"""From the first n random units of production to the reference that later ones are held against.

The bounds of a promoted profile come from a calibration set with samples that were *selected*; a
profile that was read from a graph, an ONNX file or a TensorRT cache has none. In both cases the
first n random units under the profile become the reference: the bound of a point is their largest
absmax (rank 1; units that are not finite count as larger). They are exchangeable with the units
after them while nothing changes, which is all that `assess/_evidence.py` asks for, and where the
first ones end depends on their number alone, never on a value.

Windows carry the largest absmax of their units and not each of them, so n is rounded up to whole
windows: the bound is of n' >= n units, exactly, and n' is what the profile says. Ranks above 1
would need the other order statistics of every window.

Worked numbers: 512 units and 50 points can tell an exceedance of 2.5 % from bad luck, 2,048 one of
0.7 % (`assess/README.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, final

from calidrift_agent._profile import (
    CalibrationProfile,
    ObservedBound,
    PointProfile,
    ReferenceOrigin,
)
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_agent.errors import ProfileMismatchError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.records import ObservedUnits, PointUnits

__all__ = ["REFERENCE_UNITS", "Doubts", "learn"]

REFERENCE_UNITS: Final = 512
"""Units of a reference unless the configuration says otherwise."""


@final
@dataclass(frozen=True, slots=True)
class Doubts:
    """What speaks against taking this traffic as the reference; empty where nothing does.

    Attributes:
        alarms: One clause for each alarm that was raised while the units were observed.
        suspicions: One clause for each reason why calm cannot be relied on: suspected points, or
            no alarm that could have been raised.
        others: Digests of other profiles under which traffic ran at the same time.
    """

    alarms: Sequence[str] = ()
    others: Sequence[str] = ()
    suspicions: Sequence[str] = ()


def learn(
    observed: ObservedUnits,
    profile: CalibrationProfile,
    doubts: Doubts = Doubts(),
    *,
    force: bool = False,
) -> CalibrationProfile:
    """Make the profile whose reference is the first random units of production.

    Ranges, names and fingerprints stay; observed bounds and sketches are those of the units. The
    same units give the same profile, byte for byte.

    Args:
        observed: The first units under the profile.
        profile: The profile under which they were observed.
        doubts: What speaks against it.
        force: Learn although an alarm was raised or could not be, points are suspected, or there
            is a random reference.

    Returns:
        The profile; points that no unit ran through have no observed bound.

    Raises:
        RefusedError: There are too few units, the traffic is in doubt, or there is a reference of
            random units already. Nothing was changed.
        ProfileMismatchError: The units were observed under another profile, or with another
            instrument.

    Cost: nothing that grows with the traffic.
    """
    _require_match(observed, profile)
    _require_enough(observed)
    if doubts.others:
        named = ", ".join(one[:12] or "(none)" for one in doubts.others)
        raise RefusedError(
            f"traffic of {observed.model} ran under several profiles when these units were "
            f"observed ({profile.digest[:12]}, and {named}), so part of it is missing here; wait "
            "until one version serves alone, or name the profile: --profile. Nothing was changed"
        )
    if not force:
        _require_calm(observed, profile, doubts)
    found = {one.name: one for one in observed.points}
    points = {name: _learned(point, _of(point, found)) for name, point in profile.points.items()}
    return replace(
        profile,
        points=points,
        units=observed.units,
        created=_moment(observed.last_ns),
        fingerprint=replace(profile.fingerprint, data=""),
        reference=ReferenceOrigin(
            source=ReferenceSource.PRODUCTION,
            learned_from=profile.digest,
            began=_moment(observed.first_ns),
            ended=_moment(observed.last_ns),
        ),
    )


def _require_match(observed: ObservedUnits, profile: CalibrationProfile) -> None:
    if observed.profile != profile.digest:
        raise ProfileMismatchError(
            f"the units of {observed.model} were observed under profile {observed.profile[:12]}, "
            f"not under {profile.digest[:12]}; give the profile that the service used"
        )
    if observed.instrument is not profile.instrument:
        raise ProfileMismatchError(
            f"the profile of {observed.model} belongs to the {profile.instrument} instrument, the "
            f"units were observed with the {observed.instrument} instrument; their figures cannot "
            "be put together: watch with the instrument of the profile"
        )


def _require_enough(observed: ObservedUnits) -> None:
    if not observed.measured and observed.instrument is Instrument.CLIP:
        raise RefusedError(
            f"{observed.model} is observed with the clip instrument, which counts what is clipped "
            "and measures no magnitude of a unit; watch it with its FP32 model as reference "
            "(watch(..., reference=...)). Nothing was changed"
        )
    if not observed.measured:
        raise RefusedError(
            f"no random unit of {observed.model} was measured yet, {observed.wanted:,} are needed; "
            "check that requests are sampled and that the service runs this version of calidrift: "
            "earlier ones do not measure units. Nothing was changed"
        )
    if observed.missing:
        raise RefusedError(
            f"{observed.units:,} of {observed.wanted:,} random units of {observed.model} were "
            f"observed under profile {observed.profile[:12]}, {observed.missing:,} more are "
            f"needed{observed.time_left}; try again then, or ask for fewer: --units. Nothing was "
            "changed"
        )


def _require_calm(observed: ObservedUnits, profile: CalibrationProfile, doubts: Doubts) -> None:
    if doubts.alarms:
        raise RefusedError(
            f"traffic of {observed.model} has drifted since profile {profile.digest[:12]} serves "
            f"({'; '.join(doubts.alarms)}), and must not become the reference unseen: repair the "
            "model (`calidrift select`, then `calidrift recalibrate`), or say --force where this "
            "traffic is what is to be expected from now on. Nothing was changed"
        )
    if doubts.suspicions:
        raise RefusedError(
            f"traffic of {observed.model} is in doubt since profile {profile.digest[:12]} serves "
            f"({'; '.join(doubts.suspicions)}), and must not become the reference unseen: look at "
            "it with `calidrift status` and `calidrift coverage`, and say --force where this "
            "traffic is what is to be expected from now on. Nothing was changed"
        )
    random = profile.reference.is_random and len(profile.unobserved) < len(profile.points)
    if random:
        raise RefusedError(
            f"profile {profile.digest[:12]} of {observed.model} has a reference of "
            f"{profile.units:,} random units already ({profile.reference.source}); a new one would "
            "let the alarm forget what it has seen: say --force to learn it all the same. Nothing "
            "was changed"
        )


def _of(point: PointProfile, found: dict[str, PointUnits]) -> PointUnits | None:
    return next((found[name] for name in (point.name, *point.aliases) if name in found), None)


def _learned(point: PointProfile, units: PointUnits | None) -> PointProfile:
    """A point with the bound and the sketch of the units that ran through it."""
    if units is None:
        return replace(point, observed_bound=None, sketch=None)
    bound = None
    if units.highest is not None:
        bound = ObservedBound(
            value=units.highest,
            rank=1 + units.not_finite,
            units=units.units,
            top=(units.highest,),
        )
    return replace(point, observed_bound=bound, sketch=units.sketch)


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).isoformat(timespec="seconds")
