"""Which profile a model is judged by, where several are reported under its name."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import PROFILE_FILE, VersionLayout, read_pointer
from calidrift_agent.errors import ConfigurationError, ProfileError, RegistryError
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.records import ObservedModel
from calidrift_analyzer.store import Store

__all__ = ["judged"]

_SILENT_NS: Final = 3_600 * 10**9
"""A serving version that sent nothing for so long, while others did, is not what runs any more."""


def judged(store: Store, model: str, contract: ModelContract | None) -> ObservedModel | None:
    """Choose under which profile a model is judged.

    That of the version to which the registry points, where processes report it: they were heard
    within the hour before whoever was heard last. So neither a process on an old version, nor one
    whose clock is ahead, nor a push under that name takes the place of what serves. Else the one
    that was recorded last, by the earlier of its windows' end and their arrival, leaving out one
    that is only tried on canaries.

    Args:
        store: The store.
        model: Name of the model.
        contract: The model as it is configured; `None` where it is not.

    Returns:
        What to judge; `None` where nothing was ever recorded about the model.

    Cost: one query, and reading one profile where a version serves.
    """
    found = store.observed(model)
    if not found:
        return None
    serving = None if contract is None else _serving(contract)
    heard_ns = max(one.arrived_ns for one in found)
    chosen = (
        one for one in found if one.profile == serving and one.arrived_ns >= heard_ns - _SILENT_NS
    )
    return next(chosen, None) or store.canaries.in_service(found)


def _serving(contract: ModelContract) -> str | None:
    """Digest of the profile of the version that serves; `None` where none is known to."""
    try:
        layout = VersionLayout(contract.registry, contract.name)
        pointer = read_pointer(layout)
        if pointer is None:
            return None
        return _digest(layout.version(pointer.version) / PROFILE_FILE)
    except (ConfigurationError, ProfileError, RegistryError):
        return None  # those who serve and promote say what is damaged there


@lru_cache(maxsize=256)
def _digest(path: Path) -> str:
    """Digest of a profile in a registry; files of a version never change."""
    return CalibrationProfile.load(path).digest
