"""A version on canaries: staged, compared with its peers, and then completed or withdrawn.

Whatever is decided is a step of the job before it is done, so that a process that is killed on the
way is followed by one that does the same.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import (
    PROFILE_FILE,
    VersionLayout,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.assess import (
    AssessRules,
    assess_stored,
    canary_units,
    next_canary_look,
)
from calidrift_analyzer.config import CanaryConfig, ModelContract
from calidrift_analyzer.deploy import enqueue
from calidrift_analyzer.errors import CalidriftError, RefusedError, StoreError
from calidrift_analyzer.jobs._orders import audit_row, frozen_by
from calidrift_analyzer.jobs._promotion import record_promotion, stage_once
from calidrift_analyzer.jobs._work import StageResult, StageWork
from calidrift_analyzer.promote import complete, publication, withdraw
from calidrift_analyzer.records import (
    CanaryComparison,
    CanaryLook,
    CanaryMeasure,
    CanaryTrial,
    DeployAction,
    JobEvent,
    JobState,
    JobStep,
    PromotedVersion,
    ValidationReport,
    alarm_in_force,
    read_record,
    record_document,
)
from calidrift_analyzer.store import Store

__all__ = ["TrialRecord", "begin_trial", "follow_trial", "promoted", "trial_of"]

_COMPLETE: Final = "complete"
_WITHDRAW: Final = "withdraw"
_WORDS: Final = {
    CanaryMeasure.UNITS_OUTSIDE: "units outside the observed bounds",
    CanaryMeasure.OTHER_CLASS: "units with another class than the reference",
    CanaryMeasure.AGENT_ERRORS: "errors of the agent",
}
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """What the steps of a job say about its canary.

    Attributes:
        trial: How it began.
        looks: The looks at it, the first one first.
        decision: What was decided; empty before.
        sentence: Why, in words.
        cancelled: Who wants the job to end, in words; empty while nobody does.
    """

    trial: CanaryTrial
    looks: tuple[CanaryLook, ...] = ()
    decision: str = ""
    sentence: str = ""
    cancelled: str = ""


def trial_of(steps: Sequence[JobStep]) -> TrialRecord | None:
    """Read what the steps of a job say about its canary; `None` where it had none.

    Raises:
        ContractError: A step is of another version of Calidrift.
    """
    found: TrialRecord | None = None
    for step in steps:
        if step.state is not JobState.CANARY:
            continue
        document = json.loads(step.document or "{}")
        source = f"job {step.job}"
        if step.event is JobEvent.ENTERED:
            found = TrialRecord(trial=read_record(CanaryTrial, document["trial"], source=source))
        elif found is None:
            continue
        elif step.event is JobEvent.CANCEL_REQUESTED:
            found = replace(found, cancelled=step.sentence)
        elif step.event is JobEvent.LOOKED:
            look = document.get("look")
            taken = () if look is None else (read_record(CanaryLook, look, source=source),)
            found = replace(
                found,
                looks=(*found.looks, *taken),
                decision=str(document.get("decision", "")),
                sentence=step.sentence,
            )
    return found


def begin_trial(work: StageWork, rules: CanaryConfig, report: ValidationReport) -> StageResult:
    """Let canaries serve the candidate of a job.

    Raises:
        RefusedError: It could not be told from what serves.
        RegistryError: The registry cannot be written.
    """
    contract = work.contract
    version, pointer = stage_once(work.database, contract, report, work.newest)
    serving = open_version(contract.registry, contract.name, pointer.version)
    trial = CanaryTrial(
        version=version.id,
        profile=version.profile,
        serving=serving.id,
        peers=str(serving.manifest.get("profile", "")),
        since_ns=time.time_ns(),
        units=rules.units,
        hours=rules.hours,
    )
    sentence = (
        f"version {version.id} ({report.candidate.id}) serves on canaries, until they and their "
        f"peers have shown {rules.units:,} units each, for at most {rules.hours:g} hours"
    )
    profile = CalibrationProfile.load(version.path / PROFILE_FILE)
    actor = work.job.approved_by or "service"

    def record(store: Store) -> None:
        # Agents will name this profile by its digest: the store must know it.
        store.put_profile(profile)
        subject = f"job {work.job.job}"
        store.jobs.note(audit_row(actor, "canary", contract.name, subject, sentence))

    return StageResult(
        state=JobState.CANARY,
        sentence=_published(contract, sentence),
        document={"trial": record_document(trial)},
        record=record,
    )


def follow_trial(work: StageWork) -> StageResult | None:
    """Look at a canary, and do what follows; `None` where nothing does yet.

    Raises:
        RegistryError: The registry cannot be used, and the time of the canary is over.
        StoreError: The database cannot be used.
    """
    found = work.database.run(lambda store: trial_of(store.jobs.steps(work.job.job)))
    assert found is not None  # the state is entered with one
    try:
        return _next(work, found)
    except RegistryError as error:
        if time.time_ns() >= found.trial.until_ns:
            raise
        # Perhaps a disk is full, or the pointer is being restored: another time it may go.
        _log.warning("the canary of %s waits: %s", work.contract.name, error)
        return None


def _next(work: StageWork, found: TrialRecord) -> StageResult | None:
    contract, trial = work.contract, found.trial
    pointer = read_pointer(VersionLayout(contract.registry, contract.name))
    if pointer is not None and pointer.version == trial.version:
        return _completed(work, found)
    if found.decision == _WITHDRAW:
        return _withdrawn(contract, trial, JobState.REFUSED, found.sentence)
    if found.cancelled:
        return _withdrawn(contract, trial, JobState.CANCELLED, found.cancelled)
    named = None if pointer is None or pointer.canary is None else pointer.canary.version
    if named != trial.version:
        sentence = (
            f"somebody promoted or rolled back meanwhile, which ended the canary {trial.version}: "
            f"{'nothing' if pointer is None else pointer.version} serves"
        )
        return StageResult(state=JobState.CANCELLED, sentence=sentence, document={})
    if found.decision == _COMPLETE:
        if work.database.run(lambda store: frozen_by(store, contract.name)) is not None:
            return None
        return _completed(work, found)
    return work.database.run(lambda store: _looked(store, contract, found))


def _looked(store: Store, contract: ModelContract, found: TrialRecord) -> StageResult | None:
    """Take the next look where it is due, and decide where that can be done."""
    trial = found.trial
    windows = store.canaries.windows(contract.name, trial)
    units, peers = canary_units(windows)
    problem = _alarm(store, contract, trial) if units else None
    if problem is not None:
        return _decided(_WITHDRAW, f"{trial.version} was withdrawn: {problem}")
    look = next_canary_look(windows, trial.units, len(found.looks))
    if look is None:
        if time.time_ns() < trial.until_ns:
            return None
        return _decided(_WITHDRAW, _overdue(trial, units, peers))
    told = f"{look.units:,} of {trial.units:,} units (peers {look.peers:,})"
    if look.worse:
        worse = "; ".join(_told(one) for one in look.worse)
        return _decided(_WITHDRAW, f"{trial.version} was withdrawn after {told}: {worse}", look)
    if look.last:
        sentence = f"no measure was worse on canaries than on their peers, after {told}"
        return _decided(_COMPLETE, sentence, look)
    sentence = f"look {look.look} of {look.looks}, after {told}: no measure is worse on canaries"
    return _decided("", sentence, look)


def _decided(decision: str, sentence: str, look: CanaryLook | None = None) -> StageResult:
    document: dict[str, Any] = {"decision": decision}
    if look is not None:
        document["look"] = record_document(look)
    return StageResult(
        state=JobState.CANARY, sentence=sentence, document=document, event=JobEvent.LOOKED
    )


def _alarm(store: Store, contract: ModelContract, trial: CanaryTrial) -> str | None:
    """Say what is wrong with the canary by itself; `None` where nothing is."""
    rules = AssessRules.of(contract)
    try:
        found = assess_stored(store, contract.name, profile=trial.profile, rules=rules)
    except StoreError:
        raise
    except CalidriftError as error:
        return str(error)
    alarm = alarm_in_force(store.annotations.annotate(found))
    # One of an earlier time, in which the same version served, is no reason.
    if alarm is None or alarm.end_ns < trial.since_ns:
        return None
    return f"its own traffic raised an alarm ({found.sentence})"


def _told(one: CanaryComparison) -> str:
    return (
        f"{_WORDS[one.measure]} are {one.canary_bad:,} of {one.canary_of:,} on canaries and "
        f"{one.peers_bad:,} of {one.peers_of:,} on their peers (p = {one.p:.2g})"
    )


def _overdue(trial: CanaryTrial, units: int, peers: int) -> str:
    missing = []
    if not units:
        missing.append(
            "no replica with FollowOptions(canary=True) or CALIDRIFT_CANARY=1 showed a unit of it"
        )
    elif units < trial.units:
        missing.append(f"canaries showed {units:,} of {trial.units:,} units")
    if units and peers < trial.units:
        missing.append(f"their peers showed {peers:,} of {trial.units:,} units")
    return (
        f"{trial.version} was withdrawn after {trial.hours:g} hours: {' and '.join(missing)}; mark "
        "a replica, look at its calidrift_agent_version_attempts_total, or lower units"
    )


def _withdrawn(
    contract: ModelContract, trial: CanaryTrial, state: JobState, sentence: str
) -> StageResult:
    withdraw(contract.registry, contract.name, trial.version)
    return StageResult(state=state, sentence=_published(contract, sentence), document={})


def _completed(work: StageWork, found: TrialRecord) -> StageResult:
    contract = work.contract
    try:
        version = complete(contract.registry, contract.name, found.trial.version)
    except RefusedError as error:  # somebody was quicker
        return StageResult(state=JobState.CANCELLED, sentence=str(error), document={})
    sentence = f"version {version.id} serves from now on"
    if found.decision == _COMPLETE:
        sentence = f"{sentence}: {found.sentence}"
    return promoted(contract, version, sentence)


def promoted(contract: ModelContract, version: PromotedVersion, sentence: str) -> StageResult:
    """Publish a version that serves now, and give what to keep of it."""
    # Nothing may end the job between the two: a store that is away is told, and tried again.
    told = publication(contract.registry, contract.name, contract.registry_url)

    def record(store: Store) -> None:
        enqueue(store, contract, version.id, DeployAction.PROMOTE, version.parent)
        record_promotion(store, version)

    document: Mapping[str, Any] = {
        "version": version.id,
        "profile": version.profile,
        "publication": told,
    }
    return StageResult(
        state=JobState.PROMOTED,
        sentence=sentence if told is None else f"{sentence}; {told}",
        document=document,
        record=record,
    )


def _published(contract: ModelContract, sentence: str) -> str:
    told = publication(contract.registry, contract.name, contract.registry_url)
    return sentence if told is None else f"{sentence}; {told}"
