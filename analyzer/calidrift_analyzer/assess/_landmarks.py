"""Which looks hold spent evidence: they stay as they are when old looks are joined."""

import math

import numpy as np

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess._burn_in import is_provisional
from calidrift_analyzer.assess._evidence import log_evidence
from calidrift_analyzer.assess._measured_harm import harm_looks
from calidrift_analyzer.assess._named import named_looks, named_points
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._service_level import level_looks, streams
from calidrift_analyzer.records import ModelHistory
from calidrift_analyzer.store import Landmarks

__all__ = ["landmarks"]


def landmarks(
    history: ModelHistory,
    profile: CalibrationProfile | None,
    rules: AssessRules = AssessRules(),  # noqa: B008 - frozen, so one for all is safe
) -> Landmarks:
    """Name the looks that an assessment refers to, for `Store.retain`.

    Of each point the look at which its evidence is largest, the first that crosses the threshold,
    and the lowest before that, at which the drift is said to begin, and the same of points that
    provisional bounds name; of measured harm the largest and the first that breaches; of all
    traffic and each segment these and each alarm of the renewable kind. As the looks that
    stay are a part of those that were made, no other one can cross first or be larger, so alarms,
    breaches and largest evidence are the same numbers afterwards. Renewable alarms need not be:
    what they sum between these looks is joined, so they may be fewer and at other moments.

    Args:
        history: Looks of one model.
        profile: Its profile; without one there is no evidence.
        rules: What the model is assessed by; alarms stay put under these rules.

    Returns:
        The looks, and the moments at which they ended or drifts of alarmed points began.

    Cost: as the evidence of an assessment, 1 us per point and look.
    """
    tested = (
        {}
        if profile is None
        else {
            name: point.observed_bound
            for name, point in profile.points.items()
            if point.observed_bound is not None and name in history.points
        }
    )
    levels = streams(history, profile, rules)
    looks: set[int] = {*level_looks(levels, rules), *harm_looks(history, rules)}
    moments: set[int] = set()
    if is_provisional(profile):
        named = named_points(history, levels)
        looks.update(named_looks(named))
        moments.update(int(history.end_ns[one.begun]) for one in named.values() if one.begun >= 0)
        tested = {}  # their evidence is silent
    # As in an assessment every point of the profile counts, listed or not.
    expected = (
        0
        if profile is None
        else sum(point.observed_bound is not None for point in profile.points.values())
    )
    log_threshold = math.log(max(expected, 1) / rules.alpha)
    for name, bound in tested.items():
        column = history.points.index(name)
        evidence = log_evidence(
            np.cumsum(history.exceedances[:, column]),
            np.cumsum(history.units[:, column]),
            rank=bound.rank,
            reference_units=bound.units,
        )
        if not evidence.size:
            continue
        looks.add(int(evidence.argmax()))
        crossed = np.flatnonzero(evidence >= log_threshold)
        if crossed.size:
            first = int(crossed[0])
            lowest = int(evidence[: first + 1].argmin())
            looks |= {first, lowest}
            if evidence[lowest] < 0.0:
                moments.add(int(history.end_ns[lowest]))
    # Another archive gets rollups for windows: cut there, they are the same looks once more.
    moments.update(int(history.end_ns[look]) for look in looks)
    return Landmarks(tuple(sorted(looks)), tuple(sorted(moments)))
