"""Moves of the version pointer that another deployment system is told of."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

__all__ = ["DeployAction", "DeployState", "DeploymentRow"]


class DeployAction(StrEnum):
    """What the move was."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class DeployState(StrEnum):
    """How far telling it has come; the last try says so."""

    PENDING = "pending"
    """Not tried yet."""
    ATTEMPTED = "attempted"
    """Tried in vain; it is tried again."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up; the move itself stands."""
    SUPERSEDED = "superseded"
    """A newer move came first."""

    @property
    def finished(self) -> bool:
        """Whether it is never tried again."""
        return self not in _OPEN


_OPEN: Final = frozenset({DeployState.PENDING, DeployState.ATTEMPTED})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRow:
    """One move, and what became of telling it.

    Attributes:
        entry: Its number, from 1; 0 before it is kept.
        model: Name of the model.
        version: The version that serves since.
        previous: The version that served before; `None` for none.
        action: What the move was.
        registry: Folder of the registry.
        manifest_sha256: Of the version's manifest.
        created_ns: When the move was kept, UTC nanoseconds.
        state: How far it has come.
        attempts: How often it was tried.
        updated_ns: When it came there, UTC nanoseconds.
        sentence: In words.
        output: The end of what the command wrote or the address answered.
    """

    entry: int = 0
    model: str
    version: str
    previous: str | None
    action: DeployAction
    registry: str
    manifest_sha256: str
    created_ns: int
    state: DeployState = DeployState.PENDING
    attempts: int = 0
    updated_ns: int = 0
    sentence: str = "not tried yet"
    output: str = ""

    @property
    def key(self) -> str:
        """The same for every try of this move, and for no other move."""
        return f"{self.model}/{self.version}/{self.action}/{self.created_ns}"
