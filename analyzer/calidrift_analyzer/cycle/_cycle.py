"""The whole way of one model: collect, assess, select, recalibrate, validate, promote."""

import json
import time
from dataclasses import replace
from pathlib import Path

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import PROFILE_FILE
from calidrift_analyzer.assess import AssessRules, assess, assess_stored
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import AnalyzerConfig, ModelContract
from calidrift_analyzer.contract import Progress
from calidrift_analyzer.cycle._outcome import CycleOptions, CycleOutcome
from calidrift_analyzer.cycle._pool import stored_pool
from calidrift_analyzer.cycle._workbench import candidates_folder, save_candidates, save_report
from calidrift_analyzer.deploy import Courier, FileDatabase, enqueue
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.promote import promote, publication
from calidrift_analyzer.recalibrate import recalibrate
from calidrift_analyzer.records import (
    DeployAction,
    ModelAssessment,
    Production,
    PromotedVersion,
    Selection,
    ValidationReport,
    ValidationRow,
    Verdict,
    VersionRow,
    needs_action,
    record_document,
)
from calidrift_analyzer.select import select
from calidrift_analyzer.store import COMMAND_PATIENCE, Store
from calidrift_analyzer.validate import validate

__all__ = ["collect_and_assess", "run_cycle"]


def run_cycle(
    config: AnalyzerConfig,
    model: str | None = None,
    *,
    options: CycleOptions | None = None,
    progress: Progress | None = None,
) -> CycleOutcome:
    """Bring one model from what its agents wrote to a repaired version in service.

    Nothing is recalibrated while the verdict is not harmful drift, or every point with harmful
    drift is muted, unless forced. A refused candidate changes nothing: what served before still
    does.

    The database is held only while it is read or written, never during the minutes in which a
    child process recalibrates and validates.

    Args:
        config: The configuration.
        model: Name of the model; may be left out where exactly one is declared.
        options: How; the defaults where not given.
        progress: Told of every step.

    Returns:
        What was done. Look at `refused` and `version`.

    Raises:
        ConfigurationError: No such model is declared.
        NoDataError: Nothing was recorded about it.
        ContractError: The user's code is missing or misbehaves.
        ToolchainError: INT8 kernels cannot be compiled here.
        ChildError: A child process died.
        StoreError: The database cannot be used.
        RegistryError: The registry cannot be written.

    Cost: for a small CNN about 10 s of recalibration and 20 s of validation.
    """
    options = options or CycleOptions()
    contract = config.model(model)
    tell = progress or _silent
    with Store.open(config.database, patience=COMMAND_PATIENCE) as store:
        tell("collecting", 0, 1)
        outcome = collect_and_assess(store, config, contract)
        if not options.force and not needs_action(outcome.assessment):
            return outcome
        tell("selecting", 0, 1)
        selection, samples = _select(store, contract, outcome.assessment)
        production = _production(store, outcome.assessment)
    candidates = recalibrate(
        contract,
        candidates_folder(contract),
        production=production,
        samples=samples,
        estimators=options.estimators,
        progress=progress,
    )
    save_candidates(contract, candidates)
    report = validate(contract, candidates, progress=progress)
    save_report(contract, report)
    version = _decide(config, contract, report, options)
    return replace(
        outcome,
        selection=selection,
        candidates=candidates,
        report=report,
        version=version,
        sentence=_sentence(report, version) + _published(contract, version),
    )


def collect_and_assess(
    store: Store, config: AnalyzerConfig, contract: ModelContract
) -> CycleOutcome:
    """Do the first two stages: read what agents wrote, judge it, and keep the judgement.

    Args:
        store: The store.
        config: Where agents write.
        contract: The model.

    Returns:
        The outcome of a cycle that ends here.
    """
    collected = collect(config.state_dirs, store)
    rules = AssessRules.of(contract)
    if store.observed(contract.name):
        assessment = assess_stored(store, contract.name, contract=contract, rules=rules)
        assessment = store.annotations.annotate(assessment)
        document = json.dumps(record_document(assessment))
        store.outcomes.record_assessment(assessment, document)
    else:
        totals, history = store.totals(contract.name, ""), store.history(contract.name, "")
        assessment = assess(totals, history, None, rules)
    return CycleOutcome(collected=collected, assessment=assessment, sentence=_found(assessment))


def _select(
    store: Store, contract: ModelContract, assessment: ModelAssessment
) -> tuple[Selection | None, tuple[Path, ...]]:
    """Select captured requests; without captures the calibration set stands alone."""
    try:
        stored = stored_pool(store, contract.name, assessment.profile)
    except NoDataError:
        return None, ()
    selection = select(
        stored.pool,
        contract.select_budget,
        random_share=contract.random_share,
        seed=contract.seed,
    )
    return selection, tuple(stored.paths[chosen] for chosen in selection.ids)


def _production(store: Store, assessment: ModelAssessment) -> Production | None:
    if not assessment.units:
        return None
    return Production.of_totals(store.totals(assessment.model, assessment.profile))


def _decide(
    config: AnalyzerConfig,
    contract: ModelContract,
    report: ValidationReport,
    options: CycleOptions,
) -> PromotedVersion | None:
    """Keep the decision of the gate, and promote what it accepts."""
    with Store.open(config.database, patience=COMMAND_PATIENCE) as store:
        store.outcomes.record_validation(
            ValidationRow(
                model=contract.name,
                candidate=report.candidate.id,
                created_ns=time.time_ns(),
                accepted=report.passed,
                document=json.dumps(record_document(report)),
            )
        )
        if not (report.passed and options.promote):
            return None
        version = promote(report.candidate, report, contract.registry, contract.name)
        row = VersionRow(
            model=contract.name,
            version=version.id,
            action="promoted",
            created_ns=time.time_ns(),
            profile=version.profile,
            document=version.manifest,
        )
        store.jobs.changing(
            lambda: _record(store, contract, version, row),
            done=lambda: True if row in store.outcomes.versions(row.model) else None,
        )
    if contract.deploy is not None:
        Courier(FileDatabase(config.database), contract).deliver()
    return version


def _record(
    store: Store, contract: ModelContract, version: PromotedVersion, row: VersionRow
) -> bool:
    """Keep a promotion together with what is to be told of it."""
    enqueue(store, contract, version.id, DeployAction.PROMOTE, version.parent)
    # Agents will name this profile by its digest: the store must know it.
    store.put_profile(CalibrationProfile.load(version.path / PROFILE_FILE))
    store.outcomes.record_version(row)
    return True


def _found(assessment: ModelAssessment) -> str:
    """Say what was found, and where a mute keeps it from being repaired."""
    if assessment.verdict is not Verdict.DRIFTED_HARMFUL or needs_action(assessment):
        return assessment.sentence
    return (
        f"{assessment.sentence}; every point that drifted with harm is muted, so nothing is "
        "repaired until a mute ends"
    )


def _sentence(report: ValidationReport, version: PromotedVersion | None) -> str:
    if version is not None:
        return f"version {version.id} ({report.candidate.id}) serves from now on"
    if report.passed:
        return f"candidate {report.candidate.id} passed every gate and waits for a promotion"
    return f"candidate {report.candidate.id} was refused and nothing was changed: " + "; ".join(
        report.refusals
    )


def _published(contract: ModelContract, version: PromotedVersion | None) -> str:
    """Publish what was promoted, where there is a URL; a failure is told and undoes nothing."""
    if version is None:
        return ""
    told = publication(contract.registry, contract.name, contract.registry_url)
    return "" if told is None else f"; {told}"


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""
