"""What happens in each state of a job. The heavy parts run in child processes."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

from calidrift_analyzer.assess import AssessRules, assess_stored
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.cycle import stored_pool
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.jobs._canary import begin_trial, follow_trial, promoted
from calidrift_analyzer.jobs._promotion import (
    promote_once,
    serving_candidate,
    wants_trial,
)
from calidrift_analyzer.jobs._work import StageResult, StageWork
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.recalibrate import recalibrate
from calidrift_analyzer.records import (
    Candidate,
    JobKind,
    JobState,
    ModelAssessment,
    Production,
    Selection,
    ValidationReport,
    ValidationRow,
    read_record,
    record_document,
)
from calidrift_analyzer.select import select
from calidrift_analyzer.store import Store
from calidrift_analyzer.validate import validate

__all__ = ["RealStages", "job_folder"]


def job_folder(contract: ModelContract, job: int) -> Path:
    """Give the folder of a job's candidates, apart from those of commands and other jobs."""
    return contract.registry / contract.name / "jobs" / f"{job}"


@final
class RealStages:
    """The stages of Calidrift.

    Args:
        estimators: How ranges are estimated, from each source.
    """

    def __init__(self, estimators: Sequence[Estimator] = tuple(Estimator)) -> None:
        self._estimators = tuple(estimators)

    def run(self, work: StageWork) -> StageResult | None:
        """Do the work of the state that the job is in."""
        match work.job.state:
            case JobState.SELECTING:
                return _select(work)
            case JobState.RECALIBRATING:
                return _recalibrate(work, self._estimators)
            case JobState.VALIDATING:
                return _validate(work)
            case JobState.AWAITING_APPROVAL:
                return _promote(work)
            case JobState.CANARY:
                return follow_trial(work)
            case state:
                raise ValueError(f"there is no work in the state {state}")


def _select(work: StageWork) -> StageResult:
    """Choose captured requests; without captures the calibration set stands alone."""
    work.progress("selecting", 0, 1)
    contract = work.contract
    assessment = work.database.run(lambda store: _assessed(store, contract))
    try:
        stored = work.database.run(
            lambda store: stored_pool(store, contract.name, assessment.profile)
        )
    except NoDataError as error:
        samples: list[str] = []
        selection: Selection | None = None
        sentence = f"nothing was selected: {error}"
    else:
        selection = select(
            stored.pool,
            contract.select_budget,
            random_share=contract.random_share,
            seed=contract.seed,
        )
        samples = [str(stored.paths[one]) for one in selection.ids]
        sentence = f"{len(samples)} of {len(stored.pool.ids)} captured requests were selected"
    work.progress("selecting", 1, 1)
    muted = _muted(assessment)
    if muted:
        more = f" and {len(muted) - 1} more" if len(muted) > 1 else ""
        sentence += f"; while {muted[0]}{more}"
    return StageResult(
        state=JobState.RECALIBRATING,
        sentence=sentence,
        document={
            "profile": assessment.profile,
            "verdict": assessment.verdict.value,
            "muted": muted,
            "markers": [marker.text for marker in assessment.markers],
            "samples": samples,
            "selection": None if selection is None else _selection_document(selection),
        },
    )


def _selection_document(selection: Selection) -> dict[str, Any]:
    # The mapping of the record is a read-only view, which pydantic cannot write.
    return record_document(replace(selection, by_segment=dict(selection.by_segment)))


def _assessed(store: Store, contract: ModelContract) -> ModelAssessment:
    """Judge as `status` does, with what people muted and marked beside it."""
    found = assess_stored(store, contract.name, contract=contract, rules=AssessRules.of(contract))
    return store.annotations.annotate(found)


def _muted(assessment: ModelAssessment) -> list[str]:
    """What is muted, in words: who ordered the job all the same should see it."""
    mutes = (assessment.muted, *(point.muted for point in assessment.points))
    told = dict.fromkeys(one for one in mutes if one is not None)
    return [f"{one.what} is {one.sentence}" for one in told]


def _recalibrate(work: StageWork, estimators: Sequence[Estimator]) -> StageResult:
    contract, profile = work.contract, str(work.document["profile"])
    totals = work.database.run(lambda store: store.totals(contract.name, profile))
    folder = job_folder(contract, work.job.job)
    # What a killed try left is made anew; samples that the agent has replaced since are left out.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    samples = [path for one in work.document["samples"] if (path := Path(one)).exists()]
    production = Production.of_totals(totals) if totals.observed else None
    left_out = ""
    make = partial(
        recalibrate,
        contract,
        folder,
        samples=samples,
        estimators=estimators,
        progress=work.progress,
    )
    try:
        candidates = make(production=production)
    except NoDataError as error:
        if production is None:
            raise
        # A point of the quantized graph that production does not observe: samples still do.
        left_out = f"; none from production sketches: {error}"
        candidates = make()
    return StageResult(
        state=JobState.VALIDATING,
        sentence=f"{len(candidates)} candidates, from {len(samples)} selected requests{left_out}",
        document={"candidates": [record_document(one) for one in candidates]},
    )


def _validate(work: StageWork) -> StageResult:
    contract = work.contract
    again = work.job.kind is JobKind.REVALIDATION
    if again:
        candidates: tuple[Candidate, ...] = (serving_candidate(contract),)
    else:
        source = f"job {work.job.job}"
        candidates = tuple(
            read_record(Candidate, one, source=source) for one in work.document["candidates"]
        )
    report = validate(contract, candidates, progress=work.progress)
    document = record_document(report)
    row = ValidationRow(
        model=contract.name,
        candidate=report.candidate.id,
        created_ns=time.time_ns(),
        accepted=report.passed,
        document=json.dumps(document),
    )
    name = report.candidate.id
    if not report.passed:
        what = "what serves no longer passes" if again else f"candidate {name} was refused"
        sentence = f"{what}, nothing was changed: {'; '.join(report.refusals)}"
        state = JobState.REFUSED
    elif again:
        state, sentence = JobState.CONFIRMED, f"what serves ({name}) passes every gate as before"
    else:
        state = JobState.AWAITING_APPROVAL
        sentence = f"candidate {name} passed every gate and waits for an approval"
    return StageResult(
        state=state,
        sentence=sentence,
        document={"report": document},
        record=lambda store: store.outcomes.record_validation(row),
    )


def _promote(work: StageWork) -> StageResult:
    work.progress("promoting", 0, 1)
    source = f"job {work.job.job}"
    report = read_record(ValidationReport, work.document["report"], source=source)
    contract = work.contract
    if contract.canary is not None and wants_trial(contract, report.candidate, work.newest):
        return begin_trial(work, contract.canary, report)
    version = promote_once(work.database, contract, report, work.newest)
    return promoted(
        contract, version, f"version {version.id} ({report.candidate.id}) serves from now on"
    )
