"""How long a connection may wait for its other side, and how many there may be."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final, final

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["BoundedProtocol", "Crowd", "Patience"]

_LOG_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a connection may take.

    Attributes:
        head_seconds: Time until the head of a request is complete.
        body_seconds: Time from there until its body is complete.
        answer_seconds: Time in which some of an answer must be taken, and all of it once the
            connection ends.
        most: Most connections at once.
        most_of_one: Most connections of one address.
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float = 30.0
    most: int = 512
    most_of_one: int = 384


@final
@dataclass(slots=True)
class Crowd:
    """All connections of one server.

    Attributes:
        patience: What each may take.
        members: Them, by address; the longest there come first.
    """

    patience: Patience = field(default_factory=Patience)
    members: "dict[str, dict[BoundedProtocol, None]]" = field(default_factory=dict)
    _told: float = field(default=float("-inf"), init=False)

    def join(self, one: "BoundedProtocol") -> None:
        """Take a connection in, and make room for it where there is none.

        Who has waited longest for its own other side gives way: first among those of the same
        address, else of the address that has most. Where all are being answered, it is the
        new one.
        """
        near = self.members.setdefault(one.address, {})
        near[one] = None
        if len(near) > self.patience.most_of_one:
            self._part(near, one)
        elif sum(map(len, self.members.values())) > self.patience.most:
            self._part(max(self.members.values(), key=len), one)

    def leave(self, one: "BoundedProtocol") -> None:
        """Forget a connection; a second call does nothing."""
        near = self.members.get(one.address, {})
        near.pop(one, None)
        if not near:
            self.members.pop(one.address, None)

    def _part(self, near: "dict[BoundedProtocol, None]", new: "BoundedProtocol") -> None:
        waiting = (one for one in near if one is not new and one.since is not None)
        oldest = min(waiting, key=lambda one: one.since or 0.0, default=new)
        now = time.monotonic()
        if now - self._told > _LOG_SECONDS:
            self._told = now
            _log.warning(
                "too many connections, %d of them from %s; the one that waited longest is closed",
                len(near),
                oldest.address or "one address",
            )
        oldest.drop()


@final
class BoundedProtocol(H11Protocol):
    """One connection of uvicorn's, closed where its other side keeps it waiting too long.

    uvicorn itself bounds only the pause between two requests.

    Args:
        crowd: All connections of the server; `None` for those of no other.

    Attributes:
        address: Address of the other side; empty where it has none.
        since: Since when the other side is waited for, on the loop's clock in seconds; `None`
            while it waits for this one.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.since: float | None = None
        self._crowd = crowd or Crowd()
        self._awaited: tuple[object, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self.address = "" if self.client is None else self.client[0]
        self._look()
        self._crowd.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._lost = True
        self._look()
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Go on with the next request, if any."""
        super().on_response_complete()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        super().timeout_keep_alive_handler()
        self._look()

    def shutdown(self) -> None:
        """End after what is under way."""
        super().shutdown()
        self._look()

    def pause_writing(self) -> None:
        """Wait until some of an answer is taken."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Go on with an answer."""
        super().resume_writing()
        self._look()

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        self.connections.discard(self)
        self._crowd.leave(self)
        self.transport.abort()

    def _look(self) -> None:
        """Find what is waited for, and for how long that may go on from now."""
        patience = self._crowd.patience
        seconds: float | None = None
        what: tuple[object, ...] = ()
        if self._lost:
            pass
        elif self.transport.is_closing() or self.flow.write_paused:
            what, seconds = ("answer", self.transport.is_closing()), patience.answer_seconds
        elif self.conn.their_state is h11.SEND_BODY:
            what, seconds = ("body", self.cycle), patience.body_seconds
        elif self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is not None:
            what = ("idle", self.cycle)  # uvicorn has a timer for that
        elif self.conn.their_state is h11.IDLE:
            what, seconds = ("head", self.cycle), patience.head_seconds
        if what == self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = what
        self.since = self.loop.time() if what else None
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.drop)
