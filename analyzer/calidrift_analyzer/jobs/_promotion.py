"""Promoting the candidate of a job exactly once, whenever the service was killed on the way."""

import json
from dataclasses import replace
from datetime import datetime

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import (
    PROFILE_FILE,
    Pointer,
    VersionLayout,
    number_of,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.jobs._actions import version_row
from calidrift_analyzer.jobs._database import Database
from calidrift_analyzer.promote import promote, rollback, stage
from calidrift_analyzer.records import (
    Candidate,
    PromotedVersion,
    ValidationReport,
    read_record,
)
from calidrift_analyzer.store import Store

__all__ = [
    "promote_once",
    "record_promotion",
    "serving_candidate",
    "stage_once",
    "wants_trial",
]


def promote_once(
    database: Database, contract: ModelContract, report: ValidationReport, newest: int
) -> PromotedVersion:
    """Put a candidate into service, or finish what an earlier try began.

    A try that was killed leaves nothing, a published version without the pointer, or a version that
    serves but was not recorded. The second is recognised by its files: a version above `newest` of
    exactly this candidate is the one of the earlier try. It is switched to, not written again; and
    where a person has rolled it back since, it is left alone.

    Args:
        database: Tells whether somebody rolled the version back since.
        contract: The model.
        report: What was measured; it must have passed.
        newest: The highest number of a version when the candidate was approved.

    Raises:
        RefusedError: The report did not pass.
        RegistryError: The registry cannot be written, or the candidate has changed.
    """
    found = _published(contract, report.candidate, newest)
    if found is None:
        return promote(report.candidate, report, contract.registry, contract.name)
    pointer = read_pointer(VersionLayout(contract.registry, contract.name))
    if pointer is not None and pointer.version == found.id:
        return found
    if _rolled_back_since(database, contract, found):
        return found
    return rollback(contract.registry, contract.name, found.id)


def wants_trial(contract: ModelContract, candidate: Candidate, newest: int) -> bool:
    """Whether canaries can be tried: something else than this candidate serves.

    Raises:
        RegistryError: The pointer is damaged.
    """
    pointer = read_pointer(VersionLayout(contract.registry, contract.name))
    if pointer is None:
        return False
    found = _published(contract, candidate, newest)
    return found is None or found.id != pointer.version


def stage_once(
    database: Database, contract: ModelContract, report: ValidationReport, newest: int
) -> tuple[PromotedVersion, Pointer]:
    """Let canaries serve a candidate, or finish what an earlier try began.

    As in `promote_once`, a version above `newest` of exactly this candidate is the one of an
    earlier try. It is named and not written again, unless somebody has promoted or rolled back
    since, which has ended it.

    Args:
        database: Tells whether somebody rolled back since.
        contract: The model.
        report: What was measured; it must have passed.
        newest: The highest number of a version when the candidate was approved.

    Returns:
        The version, and what the pointer named afterwards.

    Raises:
        RefusedError: The report did not pass, or the version could not be told from what serves.
        RegistryError: The registry cannot be written, or the candidate has changed.
    """
    layout = VersionLayout(contract.registry, contract.name)
    found = _published(contract, report.candidate, newest)
    before = read_pointer(layout)
    ended = found is not None and (
        (before is not None and number_of(before.version) > number_of(found.id))
        or _rolled_back_since(database, contract, found)
    )
    if found is None or not ended:
        known = None if found is None else found.id
        found = stage(report.candidate, report, contract.registry, contract.name, known=known)
    pointer = read_pointer(layout)
    assert pointer is not None  # something serves, else it was refused
    return found, pointer


def _rolled_back_since(
    database: Database, contract: ModelContract, version: PromotedVersion
) -> bool:
    """Whether the last move of a model was a rollback after a version was written."""
    moves = database.run(lambda store: store.outcomes.versions(contract.name))
    if not moves or moves[0].action != "rolled_back":
        return False
    written = datetime.fromisoformat(str(json.loads(version.manifest)["created"]))
    return moves[0].created_ns >= written.timestamp() * 1e9


def record_promotion(store: Store, version: PromotedVersion) -> None:
    """Keep a promotion, once; inside a change."""
    # Agents will name this profile by its digest: the store must know it.
    store.put_profile(CalibrationProfile.load(version.path / PROFILE_FILE))
    row = version_row(version, "promoted")
    known = store.outcomes.versions(version.model)
    if not any((one.version, one.action) == (row.version, row.action) for one in known):
        store.outcomes.record_version(row)


def serving_candidate(contract: ModelContract) -> Candidate:
    """Give what serves as a candidate that can be validated again.

    Raises:
        RegistryError: Nothing was promoted, or the version is damaged.
        ContractError: Its report is of another version of Calidrift.
    """
    version = open_version(contract.registry, contract.name)
    document = json.loads(version.report_path.read_text(encoding="utf-8"))
    report = read_record(ValidationReport, document, source=str(version.report_path))
    return replace(report.candidate, path=version.path)


def _published(
    contract: ModelContract, candidate: Candidate, newest: int
) -> PromotedVersion | None:
    layout = VersionLayout(contract.registry, contract.name)
    for identity in reversed(layout.identities()):
        if number_of(identity) <= newest:
            break
        try:
            version = open_version(contract.registry, contract.name, identity)
        except RegistryError:
            continue
        files = version.manifest["files"]
        if all(
            files.get(name, {}).get("sha256") == digest for name, digest in candidate.files.items()
        ):
            return PromotedVersion(
                model=version.model,
                id=version.id,
                parent=version.parent,
                path=version.path,
                manifest=json.dumps(dict(version.manifest), indent=2, sort_keys=True) + "\n",
                profile=str(version.manifest.get("profile", "")),
            )
    return None
