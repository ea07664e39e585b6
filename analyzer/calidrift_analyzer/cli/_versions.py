"""What `promote` and `rollback` have in common: keep the move, tell it, and say what serves now."""

import time
from pathlib import Path
from typing import Any

import typer

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import PROFILE_FILE, list_versions
from calidrift_agent._vocabulary import ExitCode
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.config import AnalyzerConfig, ModelContract
from calidrift_analyzer.deploy import Courier, FileDatabase, enqueue
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.jobs import audit_row
from calidrift_analyzer.promote import publication
from calidrift_analyzer.records import (
    DeployAction,
    DeploymentRow,
    DeployState,
    PromotedVersion,
    VersionRow,
)
from calidrift_analyzer.store import Store

__all__ = ["announce"]

_WORDS = {DeployAction.PROMOTE: "promoted", DeployAction.ROLLBACK: "rolled_back"}


def announce(
    out: Output,
    config: AnalyzerConfig,
    version: PromotedVersion,
    action: DeployAction,
    previous: str | None,
) -> None:
    """Record a move of the pointer, publish it, run the model's hook and show the versions.

    The pointer has moved already, so a database that is busy is a remark and not an error.

    Args:
        out: Where to say it.
        config: The configuration.
        version: What serves since.
        action: What the move was.
        previous: The version that served before.

    Raises:
        typer.Exit: The hook failed (status 1); the move stands.
    """
    word = _WORDS[action]
    contract = config.model(version.model)
    published = publication(contract.registry, contract.name, contract.registry_url)
    told = _tell(out, config.database, contract, version, action, previous)
    registry = version.path.parents[2]
    rows = [
        (status.id, status.current, status.problem or "complete")
        for status in list_versions(registry, version.model)
    ]
    out.table(f"{version.model}: versions in {registry}", ("version", "serves", "state"), rows)
    out.show(f"{word.replace('_', ' ')}: {version.id} serves now, in every process that loads it")
    document: dict[str, Any] = {
        "action": word,
        "model": version.model,
        "version": version.id,
        "parent": version.parent,
        "path": version.path,
        "profile": version.profile,
        "publication": published,
    }
    if published is not None:
        out.note(published)
    if told is not None:
        out.show(f"hook {told.state}: {told.sentence}")
        document["deployment"] = {
            "state": told.state,
            "sentence": told.sentence,
            "attempts": told.attempts,
            "output": told.output,
        }
    out.document(document)
    if told is not None and told.state is DeployState.FAILED:
        raise typer.Exit(ExitCode.REFUSED)


def _tell(
    out: Output,
    database: Path,
    contract: ModelContract,
    version: PromotedVersion,
    action: DeployAction,
    previous: str | None,
) -> DeploymentRow | None:
    """Keep the move, and run the hook here and now."""
    row = VersionRow(
        model=version.model,
        version=version.id,
        action=_WORDS[action],
        created_ns=time.time_ns(),
        profile=version.profile,
        document=version.manifest,
    )
    hook = contract.deploy is not None

    def record(store: Store) -> None:
        def change() -> bool:
            enqueue(store, contract, version.id, action, previous)
            # Agents will name this profile by its digest: the store must know it.
            store.put_profile(CalibrationProfile.load(version.path / PROFILE_FILE))
            store.outcomes.record_version(row)
            sentence = f"{version.id} serves since, in place of {previous or 'nothing'}"
            store.jobs.note(
                audit_row(user_name(), action.value, version.model, version.id, sentence)
            )
            return True

        store.jobs.changing(
            change, done=lambda: True if row in store.outcomes.versions(row.model) else None
        )

    outbox = FileDatabase(database)
    try:
        outbox.run(record)
    except StoreError as error:
        more = ", and runs the hook" if hook else ""
        out.note(
            f"the move was made but not recorded: {error}; a running `calidrift serve` notices it "
            f"within minutes and records it{more}"
        )
        return None
    if not hook:
        return None
    try:
        return Courier(outbox, contract).deliver()
    except StoreError as error:
        out.note(f"what the hook came to could not be kept, so it runs again some time: {error}")
        return None
