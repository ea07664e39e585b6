"""Joining the ranges of one profile with the observations of another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from calidrift_agent._profile._records import Fingerprint, PointProfile
from calidrift_agent.errors import ProfileMismatchError

_SHOWN: Final = 5


def listing(names: list[str]) -> str:
    """Return names for a message: at most five and how many more there are.

    Example:
        >>> listing(["a", "b"])
        'a, b'
    """
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def combine_points(
    ranges: Mapping[str, PointProfile], observed: Mapping[str, PointProfile]
) -> dict[str, PointProfile]:
    """Return the points of `ranges`, each with what `observed` knows about the same tensor.

    A tensor is the same under its name or under one of its aliases. Points of `observed` that the
    quantized model does not quantize (layers left in float) have nothing to be clipped by and are
    left out.

    Raises:
        ProfileMismatchError: Both know a clip range and they differ, or no name is in common.
    """
    by_name = dict(observed)
    for point in observed.values():
        for alias in point.aliases:
            by_name.setdefault(alias, point)
    combined: dict[str, PointProfile] = {}
    conflicts: list[str] = []
    matched = 0
    for name, point in ranges.items():
        match = next((by_name[one] for one in (name, *point.aliases) if one in by_name), None)
        if match is None:
            combined[name] = point
            continue
        matched += 1
        if match.clip_bound is not None and match.clip_bound != point.clip_bound:
            conflicts.append(name)
        combined[name] = replace(
            point,
            observed_bound=match.observed_bound,
            sketch=match.sketch,
            rail_low_rate=_first(point.rail_low_rate, match.rail_low_rate),
            rail_high_rate=_first(point.rail_high_rate, match.rail_high_rate),
        )
    if conflicts:
        raise ProfileMismatchError(
            f"both profiles hold a clip range for {listing(conflicts)}, and they differ; merge "
            "observations with the ranges of one model only"
        )
    if not matched:
        raise ProfileMismatchError(
            f"the profiles have no point in common (ranges: {listing(list(ranges))}; "
            f"observations: {listing(list(observed))}); merge profiles of one network"
        )
    return combined


def combine_fingerprints(ranges: Fingerprint, observed: Fingerprint) -> Fingerprint:
    """Return the model of `ranges` with the data of `observed`.

    Weights and graph of the two differ by nature: one is the quantized model, the other usually
    the FP32 model that it was made from.

    Raises:
        ProfileMismatchError: The two know different preprocessing or data.
    """
    found: dict[str, str] = {}
    for field in ("data", "preprocessing"):
        one, two = getattr(ranges, field), getattr(observed, field)
        if one and two and one != two:
            raise ProfileMismatchError(
                f"the profiles were made with different {field} ({one} and {two}); calibrate "
                "again with the one that is served"
            )
        found[field] = one or two
    return replace(ranges, data=found["data"], preprocessing=found["preprocessing"])


def _first(one: float | None, two: float | None) -> float | None:
    return two if one is None else one
