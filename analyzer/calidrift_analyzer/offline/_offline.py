"""The parent's side: find the profile, start the child, judge what it measured."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import MODEL_FILE, VersionLayout, open_version, read_pointer
from calidrift_analyzer.assess import AssessRules, assess_stored
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, run_in_child
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.offline._estimates import outlooks_of
from calidrift_analyzer.offline._report import (
    OfflineOptions,
    OfflineReport,
    OutsideUnit,
    SegmentBy,
)
from calidrift_analyzer.offline._sources import DATABASE, PROFILE, Source
from calidrift_analyzer.records import ModelAssessment, Verdict, record_document
from calidrift_analyzer.store import Store

__all__ = ["assess_inputs"]

_JOB: Final = "calidrift_analyzer.offline._job:run"
_DRIFTED: Final = (Verdict.DRIFTED_HARMFUL, Verdict.DRIFTED_HARMLESS)
_GRAPH: Final = "the INT8 graph without its activation quantizers"
_ADVICE: Final = (
    "if traffic is like these inputs, add such rows to the calibration set, then run `calidrift "
    "recalibrate` (or `calidrift calibrate`, where nothing is quantized yet)"
)


@final
@dataclass(frozen=True, slots=True)
class _Reference:
    """What the inputs are compared with; without a path the calibration set is measured first."""

    path: Path | None
    graph: Path | None
    told: str


def assess_inputs(
    contract: ModelContract,
    sources: Sequence[Source],
    *,
    options: OfflineOptions | None = None,
    progress: Progress | None = None,
) -> OfflineReport:
    """Run recorded inputs through a model and judge them like traffic.

    The range instrument is used, as in production: the graph of the version in service with its
    activation quantizers left out, or the FP32 model. Each row is one unit; batches of 32 rows are
    the looks of the evidence. The database in which `assess` finds them is thrown away.

    Args:
        contract: The model.
        sources: What `find_sources` gave.
        options: The profile, segments, and whether to look ahead of a quantization.
        progress: Called for every batch.

    Returns:
        The judgement, the rows that left a bound, and with `before_quantization` what each
        estimator would do.

    Raises:
        ConfigurationError: There is no profile to compare with, or options contradict each other.
        ContractError: The user's code misbehaves, or the inputs are not the model's.
        ProfileMismatchError: The profile belongs to another model.
        RegistryError: The version in service is damaged.
        ChildError: The child process died.

    Cost: one forward per 32 rows (a quantized graph: two), and about 3 ns per observed element.
    """
    options = options or OfflineOptions()
    reference = _reference(contract, options)
    with tempfile.TemporaryDirectory(prefix="calidrift-") as name:
        folder = Path(name)
        request: dict[str, Any] = {
            "contract": record_document(contract),
            "sources": [record_document(one) for one in sources],
            "folder": name,
            "profile": None if reference.path is None else str(reference.path),
            "graph": None if reference.graph is None else str(reference.graph),
            "by_folder": options.segment_by is SegmentBy.FOLDER,
        }
        answer = run_in_child(_JOB, request, progress=progress)
        profile = CalibrationProfile.load(reference.path or folder / PROFILE)
        with Store.open(folder / DATABASE) as store:
            store.put_profile(profile)
            rules = AssessRules.of(contract)
            assessment = assess_stored(store, contract.name, profile=profile.digest, rules=rules)
            totals = store.totals(contract.name, profile.digest)
    estimators, points = (
        outlooks_of(profile, {point.name: point.sketch() for point in totals.points})
        if options.before_quantization
        else ((), ())
    )
    return OfflineReport(
        assessment=_advised(assessment),
        files=len(sources),
        selected=int(answer["selected"]),
        outside=tuple(OutsideUnit(*one) for one in answer["outside"]),
        profile_from=reference.told,
        ran="the FP32 model" if reference.graph is None else _GRAPH,
        estimators=estimators,
        points=points,
    )


def _advised(assessment: ModelAssessment) -> ModelAssessment:
    """Say what to do about recorded inputs; the store has no captures of them to select from."""
    points = tuple(
        replace(point, next_step=_ADVICE) if point.verdict in _DRIFTED else point
        for point in assessment.points
    )
    drifted = assessment.verdict in _DRIFTED
    step = _ADVICE if drifted else assessment.next_step
    return replace(assessment, points=points, next_step=step)


def _reference(contract: ModelContract, options: OfflineOptions) -> _Reference:
    if options.before_quantization:
        if options.profile is not None:
            raise ConfigurationError(
                "--before-quantization measures the calibration set itself, so --profile has no "
                "place beside it; leave one of them out"
            )
        return _Reference(None, None, f"the calibration set ({contract.calibration})")
    if options.profile is not None:
        # A candidate and a version have their graph beside the profile.
        return _given(options.profile.absolute(), str(options.profile))
    if read_pointer(VersionLayout(contract.registry, contract.name)) is not None:
        version = open_version(contract.registry, contract.name)
        told = f"version {version.id}, which is in service"
        return _Reference(version.profile_path, version.model_path, told)
    saved = contract.root / f"{contract.name}.profile.json"
    if saved.exists():
        return _given(saved, f"{saved.name}, which `calidrift calibrate` saved")
    raise ConfigurationError(
        f"{contract.name} has no version in service in {contract.registry} and no {saved.name} "
        "beside the configuration; run `calidrift calibrate`, name a profile (--profile FILE), or "
        "ask ahead of any quantization (--before-quantization)"
    )


def _given(path: Path, told: str) -> _Reference:
    profile = CalibrationProfile.load(path)
    graph = path.with_name(MODEL_FILE)
    clipped = any(point.clip_bound is not None for point in profile.points.values())
    return _Reference(path, graph if clipped and graph.exists() else None, told)
