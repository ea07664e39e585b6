"""What `promote` and `rollback` have in common: keep the move, and say what serves now."""

import time
from typing import Literal

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import PROFILE_FILE, list_versions
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.promote import publication
from calidrift_analyzer.records import PromotedVersion, VersionRow
from calidrift_analyzer.service import open_store

__all__ = ["announce"]


def announce(
    out: Output,
    config: AnalyzerConfig,
    version: PromotedVersion,
    action: Literal["promoted", "rolled_back"],
) -> None:
    """Record a move of the pointer, publish it and show the versions.

    The pointer has moved already, so a database that is busy, or a store that does not answer, is a
    remark and not an error.
    """
    _record(out, config, version, action)
    contract = config.model(version.model)
    published = publication(contract.registry, contract.name, contract.registry_url)
    registry = version.path.parents[2]
    rows = [
        (status.id, status.current, status.problem or "complete")
        for status in list_versions(registry, version.model)
    ]
    out.table(f"{version.model}: versions in {registry}", ("version", "serves", "state"), rows)
    out.show(f"{action.replace('_', ' ')}: {version.id} serves now, in every process that loads it")
    if published is not None:
        out.note(published)
    out.document(
        {
            "action": action,
            "model": version.model,
            "version": version.id,
            "parent": version.parent,
            "path": version.path,
            "profile": version.profile,
            "publication": published,
        }
    )


def _record(out: Output, config: AnalyzerConfig, version: PromotedVersion, action: str) -> None:
    try:
        with open_store(config) as store:
            # Agents will name this profile by its digest: the store must know it.
            store.put_profile(CalibrationProfile.load(version.path / PROFILE_FILE))
            store.outcomes.record_version(
                VersionRow(
                    model=version.model,
                    version=version.id,
                    action=action,
                    created_ns=time.time_ns(),
                    profile=version.profile,
                    document=version.manifest,
                )
            )
    except StoreError as error:
        out.note(f"the move was made but not recorded: {error}")
