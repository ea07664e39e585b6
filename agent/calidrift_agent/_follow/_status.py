"""Where a follower stands."""

from dataclasses import dataclass, field
from typing import final

from calidrift_agent._follow._outcome import FollowOutcome


@final
@dataclass(frozen=True, slots=True)
class FollowStatus:
    """Where a follower stands.

    Attributes:
        model: Name of the model.
        active: Whether it follows; not where the agent is switched off or after `close`.
        serving: The version that serves; None before the first one.
        wanted: The version that the registry names, or last named where it cannot be reached; None
            where nothing was promoted, or where the pointer could not be read yet.
        problem: Why `wanted` does not serve, or why the registry cannot be asked, in words; None
            where all is well.
        attempts: How often which outcome was had.
        canary: Whether this replica is marked as one that serves canaries first.
        trial: Whether the version that serves here is one that is tried on canaries now.
    """

    model: str
    active: bool
    serving: str | None
    wanted: str | None
    problem: str | None
    attempts: dict[FollowOutcome, int] = field(default_factory=dict)
    canary: bool = False
    trial: bool = False
