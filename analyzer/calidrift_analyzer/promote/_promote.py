"""Putting a validated candidate into service, and taking it out again."""

from os import PathLike
from pathlib import Path
from typing import Any, Final

from calidrift_agent._profile import CalibrationProfile, utc_now
from calidrift_agent._registry import (
    FORMAT,
    MODEL_FILE,
    PROFILE_FILE,
    REPORT_FILE,
    Version,
    VersionLayout,
    list_versions,
    number_of,
    open_version,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote._files import copy_verified, locked
from calidrift_analyzer.promote._sealing import next_number, seal_version, write_file
from calidrift_analyzer.promote._steps import (
    StepCallback,
    current_version,
    ignore_step,
    json_bytes,
    promoted_version,
    remove_partial,
    switch_to,
)
from calidrift_analyzer.records import (
    Candidate,
    PromotedVersion,
    ValidationReport,
    record_document,
)

__all__ = ["promote", "require_accepted", "rollback", "write_version"]

_COPIED: Final = (MODEL_FILE, PROFILE_FILE)


def promote(
    candidate: Candidate,
    report: ValidationReport,
    registry: str | PathLike[str],
    model: str,
    *,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Put a candidate into service.

    The version is written beside the old ones and to the disk, verified as the serving side will
    verify it, and only then named by the pointer, in one rename. A process that is killed at any
    moment leaves the pointer on a complete version, the old one or the new one.

    Args:
        candidate: What validation measured.
        report: What it found; it must have passed and be about exactly these files.
        registry: The registry's folder.
        model: Name of the model.
        on_step: Told of every step.

    Returns:
        The version that serves from now on.

    Raises:
        RefusedError: The report did not pass, or is about another candidate. Nothing was changed.
        RegistryError: The registry cannot be written, or another promotion does not end. What
            served before still does.
    """
    step = on_step or ignore_step
    require_accepted(candidate, report, model)
    layout = VersionLayout(registry, model)
    try:
        step("lock")
        with locked(layout):
            version = write_version(layout, candidate, report, step)
            switch_to(layout, version, step)
            step("done")
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"the version cannot be written to {layout.root} ({error.strerror or error}); what "
            "served before still does: make room or correct the permissions, and promote again"
        ) from error
    return promoted_version(version)


def rollback(
    registry: str | PathLike[str],
    model: str,
    to: str | None = None,
    *,
    on_step: StepCallback | None = None,
) -> PromotedVersion:
    """Let an earlier version serve again: the same switch, in the other direction.

    Args:
        registry: The registry's folder.
        model: Name of the model.
        to: The version; where not given, the one that served before the current one was promoted,
            or, where the current one cannot say, the newest complete one before it.
        on_step: Told of every step.

    Returns:
        The version that serves from now on.

    Raises:
        RegistryError: There is no such version, or it is damaged. What serves does not change.
    """
    step = on_step or ignore_step
    layout = VersionLayout(registry, model)
    if not layout.root.is_dir():
        raise RegistryError(f"no version of {model} was promoted into {registry}")
    try:
        step("lock")
        with locked(layout):
            version = open_version(registry, model, to or _previous(layout, registry))
            if version.id == current_version(layout):
                raise RegistryError(f"version {version.id} of {model} serves already")
            switch_to(layout, version, step)
            step("done")
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        raise RegistryError(
            f"the pointer in {layout.root} cannot be written ({error.strerror or error}); what "
            "served before still does"
        ) from error
    return promoted_version(version)


def write_version(
    layout: VersionLayout, candidate: Candidate, report: ValidationReport, step: StepCallback
) -> Version:
    """Write a version beside the others, whole and verified; nothing names it yet.

    Whoever calls this holds the lock of the registry.
    """
    remove_partial(layout)
    before, number = current_version(layout), next_number(layout)
    return seal_version(
        layout,
        number,
        lambda partial: _write(partial, layout, number, candidate, report, before, step),
        step,
    )


def require_accepted(candidate: Candidate, report: ValidationReport, model: str) -> None:
    """Refuse what did not pass, and a report about something else.

    Raises:
        RefusedError: The sentence says which.
    """
    if report.model != model or candidate.model != model:
        raise RefusedError(
            f"the report is about {report.model} and the candidate of {candidate.model}, not "
            f"{model}; validate this model's candidates. Nothing was changed"
        )
    if dict(report.candidate.files) != dict(candidate.files) or report.candidate.id != candidate.id:
        raise RefusedError(
            f"the report is about {report.candidate.id} and not about these files of "
            f"{candidate.id}; validate again. Nothing was changed"
        )
    if not report.passed:
        raise RefusedError(
            f"{candidate.id} was refused, nothing was changed: {'; '.join(report.refusals)}"
        )


def _write(
    partial: Path,
    layout: VersionLayout,
    number: int,
    candidate: Candidate,
    report: ValidationReport,
    parent: str | None,
    step: StepCallback,
) -> dict[str, Any]:
    files: dict[str, dict[str, Any]] = {}
    for name in _COPIED:
        step(f"copy {name}")
        digest = candidate.files[name]
        size = copy_verified(candidate.path / name, partial / name, digest)
        files[name] = {"sha256": digest, "bytes": size}
    step(f"write {REPORT_FILE}")
    files[REPORT_FILE] = write_file(partial / REPORT_FILE, json_bytes(record_document(report)))
    profile = CalibrationProfile.load(partial / PROFILE_FILE)
    return _manifest(layout, number, candidate, profile, parent) | {"files": files}


def _manifest(
    layout: VersionLayout,
    number: int,
    candidate: Candidate,
    profile: CalibrationProfile,
    parent: str | None,
) -> dict[str, Any]:
    fingerprint = profile.fingerprint
    return {
        "format": FORMAT,
        "model": layout.model,
        "number": number,
        "created": utc_now(),
        "parent": parent,
        "candidate": {
            "id": candidate.id,
            "source": str(candidate.source),
            "estimator": str(candidate.estimator),
            "layers": list(candidate.layers),
        },
        "profile": profile.digest,
        "fingerprint": {
            "weights": fingerprint.weights,
            "graph": fingerprint.graph,
            "data": fingerprint.data,
            "preprocessing": fingerprint.preprocessing,
            "versions": dict(fingerprint.versions),
            "isa": fingerprint.isa,
        },
    }


def _previous(layout: VersionLayout, registry: str | PathLike[str]) -> str:
    current = current_version(layout)
    if current is not None:
        try:
            parent = open_version(registry, layout.model, current).parent
        except RegistryError:
            parent = None
        if parent is not None:
            return parent
    limit = None if current is None else number_of(current)
    complete = [
        one.id
        for one in list_versions(registry, layout.model)
        if one.problem is None and (limit is None or number_of(one.id) < limit)
    ]
    if not complete:
        raise RegistryError(
            f"{layout.model} has no version before {current or 'the current one'} in {registry}; "
            "there is nothing to go back to"
        )
    return complete[-1]
