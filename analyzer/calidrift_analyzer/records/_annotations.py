"""What people say about a model: points that they mute for a while, and moments that they mark."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import final

__all__ = ["Marker", "MarkerKind", "Mute", "MuteState"]


class MuteState(StrEnum):
    """What became of a mute."""

    ACTIVE = "active"
    EXPIRED = "expired"
    UNMUTED = "unmuted"
    """Somebody ended it before its time."""
    REPLACED = "replaced"
    """Somebody muted the same again, with another end or reason."""


class MarkerKind(StrEnum):
    """Where a marker comes from."""

    MARKED = "marked"
    """A person, or a deployment script, by `calidrift mark`."""
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """One decision of a person not to be called for an alarm for a while.

    A muted alarm stays visible and its evidence keeps counting; it neither starts a repair nor is
    it in the exported alarm.

    Attributes:
        model: Name of the model.
        point: Name of the point, or a pattern with `*` and `?`; `None` for the whole model.
        created_ns: When it was set, UTC nanoseconds.
        until_ns: When it ends by itself, UTC nanoseconds.
        reason: Why.
        author: Who set it: the name of the operating system's user.
        state: What has become of it.
        ended_ns: When it ended, UTC nanoseconds; `None` while it is active.
        ended_by: Who ended it before its time; `None` where nobody did.
        ended_because: Why, where that was said.
    """

    model: str
    point: str | None
    created_ns: int
    until_ns: int
    reason: str
    author: str
    state: MuteState = MuteState.ACTIVE
    ended_ns: int | None = None
    ended_by: str | None = None
    ended_because: str | None = None

    def covers(self, *names: str) -> bool:
        """Whether it is about a point with one of these names.

        Examples:
            >>> one = Mute(model="net", point="layer4.*", created_ns=0, until_ns=1,
            ...            reason="known", author="eve")
            >>> one.covers("layer4.1.conv2:input"), one.covers("fc:input", "head:input")
            (True, False)
        """
        pattern = self.point
        if pattern is None:
            return True
        return any(pattern == name or fnmatchcase(name, pattern) for name in names)

    @property
    def what(self) -> str:
        """What is muted, in words."""
        return "the whole model" if self.point is None else self.point

    @property
    def sentence(self) -> str:
        """What stands beside a muted alarm.

        Examples:
            >>> Mute(model="net", point=None, created_ns=0, until_ns=1_800_000_000 * 10**9,
            ...      reason="a known sensor fault", author="eve").sentence
            'muted until 2027-01-15 08:00 UTC because: a known sensor fault (by eve)'
        """
        until = datetime.fromtimestamp(self.until_ns / 1e9, UTC)
        return f"muted until {until:%Y-%m-%d %H:%M} UTC because: {self.reason} (by {self.author})"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One moment that may explain a change: a deployment, a promotion, a new client.

    Attributes:
        model: Name of the model.
        at_ns: The moment, UTC nanoseconds.
        text: What happened.
        kind: Where the marker comes from.
        author: Who set it; `None` for promotions and rollbacks, which mark themselves.
        created_ns: When it was set, UTC nanoseconds.
        drift_after_seconds: Seconds from this moment to the beginning of the drift, where the
            marker stands beside an alarm; negative where it lies between the beginning and the
            alarm, so within what the windows can tell apart.
    """

    model: str
    at_ns: int
    text: str
    kind: MarkerKind = MarkerKind.MARKED
    author: str | None = None
    created_ns: int = 0
    drift_after_seconds: float | None = None
