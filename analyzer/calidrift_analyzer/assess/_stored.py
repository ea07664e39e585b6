"""Assess what the store holds: the way every command and cycle goes."""

from collections import defaultdict

from calidrift_analyzer.assess._assess import assess
from calidrift_analyzer.assess._judged import judged
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import ModelAssessment, PointTotals
from calidrift_analyzer.store import Store

__all__ = ["assess_stored"]


def assess_stored(
    store: Store,
    model: str,
    *,
    profile: str | None = None,
    contract: ModelContract | None = None,
    rules: AssessRules = AssessRules(),  # noqa: B008 - frozen, so one for all is safe
) -> ModelAssessment:
    """Assess one model from the store.

    Points that have alarmed are judged on the traffic since their drift began: otherwise calm
    traffic before it would dilute the harm.

    Args:
        store: The store, after a collect run.
        model: Name of the model.
        profile: Digest of the profile; default: the one that `judged` gives.
        contract: The model as it is configured; without it no version is known to serve.
        rules: False alarm probability, what counts as harm, and the service level.

    Returns:
        The assessment. It is not recorded; `store.outcomes.record_assessment` does that.

    Raises:
        NoDataError: Nothing was ever recorded about this model.
        ProfileMismatchError: The collected profile does not fit the windows.
    """
    if profile is None:
        found = judged(store, model, contract)
        if found is None:
            known = sorted({one.model for one in store.observed()})
            listed = f"recorded are: {', '.join(known)}" if known else "no model has windows yet"
            raise NoDataError(
                f"nothing was recorded about model {model!r} ({listed}); check the name given to "
                "watch(..., name=...) and that its state_dir is listed under state_dirs"
            )
        profile = found.profile
    totals = store.totals(model, profile)
    history = store.history(model, profile)
    reference = store.profile(profile)
    first = assess(totals, history, reference, rules)
    begins: defaultdict[int, list[str]] = defaultdict(list)
    for point in first.points:
        if point.alarm is not None:
            begins[point.alarm.since_ns].append(point.name)
    recent: dict[str, PointTotals] = {}
    for since_ns, names in begins.items():
        later = store.totals(model, profile, since_ns=since_ns)
        recent |= {point.name: point for point in later.points if point.name in names}
    return assess(totals, history, reference, rules, recent) if recent else first
