"""Moves of the version pointer that nobody could record: a command beside a running service."""

import time
from typing import Final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import (
    PROFILE_FILE,
    VersionLayout,
    number_of,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import CalidriftError, RegistryError
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.deploy import enqueue
from calidrift_analyzer.jobs._orders import audit_row
from calidrift_analyzer.promote import promoted_version
from calidrift_analyzer.records import DeployAction, VersionRow
from calidrift_analyzer.store import Store

__all__ = ["notice_move"]

_SOMEBODY: Final = "somebody"
_WORDS: Final = {DeployAction.PROMOTE: "promoted", DeployAction.ROLLBACK: "rolled_back"}


def notice_move(store: Store, contract: ModelContract, *, settled_seconds: float) -> str | None:
    """Record what serves, where the last recorded move says that another version does.

    A move of a job that is about to record it, and one that is younger than `settled_seconds`, are
    left to whoever made them. Of several moves between two looks the last one is seen.

    Args:
        store: The store.
        contract: The model.
        settled_seconds: Age from which nobody else will record a move.

    Returns:
        A sentence; `None` where there is nothing to record.
    """
    layout = VersionLayout(contract.registry, contract.name)
    try:
        pointer = read_pointer(layout)
        moved_ns = layout.pointer.stat().st_mtime_ns
    except (RegistryError, OSError):
        return None
    moves = store.outcomes.versions(contract.name)
    if pointer is None or (moves and moves[0].version == pointer.version):
        return None
    if 0 <= time.time_ns() - moved_ns < settled_seconds * 1e9:
        return None
    jobs = store.jobs.open_jobs()
    if any(job.model == contract.name and job.approved_by is not None for job in jobs):
        return None
    try:
        version = promoted_version(open_version(contract.registry, contract.name, pointer.version))
        profile = CalibrationProfile.load(version.path / PROFILE_FILE)
    except CalidriftError:
        return None  # damaged: whoever loads it says so
    before = moves[0].version if moves else None
    back = before is not None and number_of(pointer.version) < number_of(before)
    action = DeployAction.ROLLBACK if back else DeployAction.PROMOTE
    row = VersionRow(
        model=contract.name,
        version=version.id,
        action=_WORDS[action],
        created_ns=moved_ns,
        profile=version.profile,
        document=version.manifest,
    )
    sentence = (
        f"{version.id} serves in place of {before or 'nothing that was recorded'}; a command moved "
        "it that could not use the database"
    )

    def change() -> str:
        if before is not None:
            enqueue(store, contract, version.id, action, before)
        store.put_profile(profile)
        store.outcomes.record_version(row)
        entry = audit_row(_SOMEBODY, action.value, contract.name, version.id, sentence)
        store.jobs.note(entry)
        return sentence

    def done() -> str | None:
        known = store.outcomes.versions(contract.name)
        return sentence if known and known[0].version == version.id else None

    return store.jobs.changing(change, done=done)
