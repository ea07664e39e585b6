"""Learning a reference from production: collect, assess, learn, put into service."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import Version, open_version
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import ProfileError, RegistryError
from calidrift_analyzer.assess import AssessRules, assess_stored, judged
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, ModelContract
from calidrift_analyzer.errors import ConfigurationError, NoDataError, RefusedError
from calidrift_analyzer.promote import promote_profile, publication
from calidrift_analyzer.records import (
    ModelAssessment,
    ObservedModel,
    ObservedUnits,
    VersionRow,
)
from calidrift_analyzer.reference import Doubts, learn
from calidrift_analyzer.store import COMMAND_PATIENCE, Store

__all__ = ["LearnOptions", "LearnedReference", "learn_reference", "observed_profile"]

LEARNED: Final = "learned"
"""What the record of a version says that was made by learning a reference."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOptions:
    """How a reference is learned.

    Attributes:
        units: Random units to learn from; what the configuration says where not given.
        profile: Start of the digest of the profile under which the units were observed; the one
            that the model is judged by where not given.
        output: Write the profile to this file and leave the registry alone.
        force: Learn although an alarm was raised or could not be, points are suspected, or there
            is a random reference.
    """

    units: int | None = None
    profile: str | None = None
    output: Path | None = None
    force: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedReference:
    """What came of it.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile with the learned reference.
        learned_from: Digest of the profile under which the units were observed.
        units: Units of the reference.
        began: Start of the first window with such a unit, ISO 8601.
        ended: End of the last one.
        bounds: Points with an observed bound.
        unobserved: Points without one: no finite unit ran through them.
        version: The version that serves with it; `None` where it was written to a file.
        path: Where the profile lies.
        changed: Whether anything was written; False where it was learned before.
        publication: What came of publishing the version; `None` where there is no URL for it.
    """

    model: str
    profile: str
    learned_from: str
    units: int
    began: str
    ended: str
    bounds: int
    unobserved: tuple[str, ...]
    version: str | None
    path: Path
    changed: bool
    publication: str | None = None


def learn_reference(
    config: AnalyzerConfig, model: str, options: LearnOptions | None = None
) -> LearnedReference:
    """Make the first random units of production the reference that later ones are held against.

    Collects first. The profile goes into the registry as a version with the model that serves, so
    that serving processes load it as any promoted version, or into a file. Repeating it changes
    nothing, and a process that is killed leaves the old version or the new one.

    Args:
        config: The configuration.
        model: Name of the model, as given to `watch`; it need not be declared where the profile
            goes to a file.
        options: How; the defaults where not given.

    Returns:
        What was learned.

    Raises:
        NoDataError: Nothing was recorded about the model, or under that profile.
        RefusedError: Too few units, drifting traffic, several profiles, two instruments, or a
            random reference already. Nothing was changed.
        ConfigurationError: The registry is not known.
        RegistryError: The registry cannot be used.
        ProfileError: The file cannot be written.
        StoreError: The database cannot be used.
    """
    options = options or LearnOptions()
    contract = config.models.get(model)
    if contract is None and options.output is None:
        raise ConfigurationError(
            f"model {model!r} is not declared in {config.source or 'calidrift.toml'}, so its "
            "registry is not known; add a table [models.NAME], or write the profile to a file: "
            "--output FILE"
        )
    found = _learned(config, contract, model, options)
    if contract is None or found.version is None or not found.changed:
        return found
    told = publication(contract.registry, model, contract.registry_url)
    return replace(found, publication=told)


def _learned(
    config: AnalyzerConfig, contract: ModelContract | None, model: str, options: LearnOptions
) -> LearnedReference:
    rules = AssessRules() if contract is None else AssessRules.of(contract)
    with Store.open(config.database, patience=COMMAND_PATIENCE) as store:
        collect(config.state_dirs, store)
        chosen, profile = observed_profile(store, model, options.profile, contract)
        version = None if options.force else _known(contract, profile, options)
        if version is not None:
            return _served(store, version, changed=False)
        units = store.references.first_units(
            model, chosen.profile, chosen.instrument, options.units or rules.reference_units
        )
        assessment = assess_stored(store, model, profile=chosen.profile, rules=rules)
        others = () if options.profile else _others(store, units)
        doubts = Doubts(_alarms(assessment), others, _suspicions(assessment))
        learned = learn(units, profile, doubts, force=options.force)
        if units.segments is not None:
            store.references.put_segments(learned.digest, units.segments)
        store.put_profile(learned)  # agents will name it by its digest
        if options.output is not None:
            changed = _save(learned, options.output)
            return _result(model, learned, None, options.output, changed=changed)
        assert contract is not None  # else it was refused above
        promoted = promote_profile(learned, contract.registry, model)
        version = open_version(contract.registry, model, promoted.id)
        return _served(store, version, changed=promoted.profile == learned.digest)


def observed_profile(
    store: Store,
    model: str,
    digest: str | None = None,
    contract: ModelContract | None = None,
) -> tuple[ObservedModel, CalibrationProfile]:
    """Choose the profile under which units were observed.

    Args:
        store: The store, after a collect run.
        model: Name of the model.
        digest: Start of its digest; the one that the model is judged by where not given.
        contract: The model as it is configured.

    Raises:
        NoDataError: Nothing was recorded about the model, or under that profile.
        RefusedError: There is no profile to put a reference into, or two instruments were used.
    """
    found = store.observed(model)
    if not found:
        known = ", ".join(sorted({one.model for one in store.observed()})) or "none"
        raise NoDataError(
            f"nothing was recorded about model {model!r} (recorded: {known}); check the name given "
            "to watch(..., name=...) and that its state_dir is listed under state_dirs"
        )
    matching = [one for one in found if digest is None or one.profile.startswith(digest)]
    if not matching:
        listed = ", ".join(one.profile[:12] or "(none)" for one in found)
        raise NoDataError(
            f"no unit of {model} was observed under a profile {digest!r}; observed are: {listed}"
        )
    chosen = (judged(store, model, contract) if digest is None else None) or matching[0]
    instruments = sorted({one.instrument for one in found if one.profile == chosen.profile})
    if len(instruments) > 1:
        raise RefusedError(
            f"{model} was observed with two instruments ({' and '.join(instruments)}) under "
            f"profile {chosen.profile[:12] or '(none)'}; their figures are never put together: let "
            "all processes observe it in the same way. Nothing was changed"
        )
    profile = store.profile(chosen.profile) if chosen.profile else None
    if profile is None:
        why = (
            f"profile {chosen.profile[:12]} was not collected: check that profiles/"
            f"{chosen.profile}.json in the state_dir of the service is there and readable"
            if chosen.profile
            else "the service has no profile: give watch(..., profile=...) at least the ranges of "
            "the model, e.g. CalibrationProfile.from_pt2e(graph)"
        )
        raise RefusedError(
            f"there is no profile of {model} that a reference could join; {why}. Nothing was "
            "changed"
        )
    return chosen, profile


def _known(
    contract: ModelContract | None, profile: CalibrationProfile, options: LearnOptions
) -> Version | None:
    """The version that serves, if its reference is the one that would be learned."""
    if options.output is not None or contract is None:
        return None
    try:
        version = open_version(contract.registry, contract.name)
        serving = CalibrationProfile.load(version.profile_path)
    except (RegistryError, ProfileError):
        return None
    learned = serving.reference.source is ReferenceSource.PRODUCTION
    same = profile.digest in (serving.digest, serving.reference.learned_from)
    return version if learned and same else None


def _save(learned: CalibrationProfile, path: Path) -> bool:
    """Write the profile, unless it stands there already."""
    try:
        if CalibrationProfile.load(path).digest == learned.digest:
            return False
    except ProfileError:
        pass  # there is none, or another file: `save` replaces it, or says why it cannot
    learned.save(path)
    return True


def _others(store: Store, units: ObservedUnits) -> tuple[str, ...]:
    """Profiles under which traffic still ran when the units were complete."""
    return tuple(
        one.profile
        for one in store.observed(units.model)
        if one.profile != units.profile and one.last_ns > units.last_ns > 0
    )


def _alarms(assessment: ModelAssessment) -> Sequence[str]:
    """Every alarm in a clause."""
    found = [
        f"{one.breach.outside:,} of {one.breach.units:,} units"
        f"{'' if one.segment is None else f' of segment {one.segment}'} left the ranges, "
        f"{100 * one.tolerance:.3g} % are tolerated"
        for one in assessment.service_levels
        if one.breach is not None
    ]
    points = sum(point.alarm is not None for point in assessment.points)
    if points:
        found.append(f"{points} of {len(assessment.points)} points alarmed")
    return found


def _suspicions(assessment: ModelAssessment) -> Sequence[str]:
    """Why calm cannot be relied on: what is suspected without an alarm, or that none can speak."""
    found = []
    suspected = [point for point in assessment.points if point.suspected]
    if suspected:
        named = f"{len(suspected)} of {len(assessment.points)} points are suspected"
        found.append(f"{named}, worst {suspected[0].name}: {suspected[0].sentence}")
    bounded = any(point.observed_bound is not None for point in assessment.points)
    levels = assessment.service_levels
    if bounded and not any(one.segment is None and one.tolerance < 1.0 for one in levels):
        found.append("no tolerance is in force, so no alarm could tell drift")
    return found


def _served(store: Store, version: Version, *, changed: bool) -> LearnedReference:
    """What serves now; the move of the pointer is kept, once, whoever made it."""
    profile = CalibrationProfile.load(version.profile_path)
    moves = store.outcomes.versions(version.model)
    if not moves or moves[0].version != version.id:
        store.outcomes.record_version(
            VersionRow(
                model=version.model,
                version=version.id,
                action=LEARNED,
                created_ns=time.time_ns(),
                profile=profile.digest,
                document=json.dumps(dict(version.manifest)),
            )
        )
    return _result(version.model, profile, version.id, version.profile_path, changed=changed)


def _result(
    model: str, profile: CalibrationProfile, version: str | None, path: Path, *, changed: bool
) -> LearnedReference:
    return LearnedReference(
        model=model,
        profile=profile.digest,
        learned_from=profile.reference.learned_from,
        units=profile.units,
        began=profile.reference.began,
        ended=profile.reference.ended,
        bounds=len(profile.points) - len(profile.unobserved),
        unobserved=profile.unobserved,
        version=version,
        path=path,
        changed=changed,
    )
