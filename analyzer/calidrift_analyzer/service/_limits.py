"""What one caller may ask of the service: bytes in a body, requests in a minute."""

import asyncio
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final, final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calidrift_analyzer.service._problems import problem

__all__ = ["BodyLimit", "RateLimit", "UnknownBodies"]

_MINUTE: Final = 60.0
_MOST_CALLERS: Final = 4_096
_MOST_DRAINED: Final = 64 * 2**20
"""Bytes of a refused body that are read and dropped, so that its sender hears why."""
_MOST_UNKNOWN: Final = 8
_UNKNOWN_SECONDS: Final = 10.0


@final
class RateLimit:
    """A bucket of tokens per caller: bursts up to a minute's worth, then the steady rate.

    Args:
        per_minute: Requests of one caller within a minute.
    """

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, caller: str, now: float | None = None) -> float:
        """Take one request of a caller.

        Args:
            caller: Who asks.
            now: The time in seconds; the monotonic clock where left out.

        Returns:
            0 where it is admitted, else the seconds after which the next one would be.
        """
        now = time.monotonic() if now is None else now
        rate = self._capacity / _MINUTE
        with self._lock:
            left, seen = self._left.pop(caller, (self._capacity, now))
            left = min(self._capacity, left + (now - seen) * rate)
            admitted = left >= 1.0
            self._left[caller] = (left - 1.0 if admitted else left, now)
            while len(self._left) > _MOST_CALLERS:
                self._left.popitem(last=False)
        return 0.0 if admitted else (1.0 - left) / rate


@final
class BodyLimit:
    """Refuses bodies that are too large, before and while they are read (ASGI).

    Args:
        application: What answers requests that are small enough.
        most_bytes: Most bytes of a body.
    """

    def __init__(self, application: ASGIApp, most_bytes: int) -> None:
        self._application = application
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await self._refuse(scope, receive, send, ended=False)
            return
        read = 0
        begun = too_large = ended = False

        async def counted() -> Message:
            nonlocal read, too_large, ended
            message = await receive()
            ended = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._most:
                too_large = True
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            if not too_large or begun:  # else whatever was made of the failure is left out
                begun = True
                await send(message)

        with suppress(_TooLargeError):
            await self._application(scope, counted, noted)
        if too_large and not begun:
            await self._refuse(scope, receive, send, ended=ended)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, *, ended: bool) -> None:
        """Answer with 413, after what still comes: a client that sends is not listening yet."""
        left = 0 if ended else _MOST_DRAINED
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        refusal = problem(
            413,
            f"the body is larger than max_body_bytes ({self._most}); send less at once",
            {"Connection": "close"},
        )
        await refusal(scope, receive, send)


@final
class UnknownBodies:
    """Reads bodies of senders who are known only by what they sent: few at once, for a short time.

    Of too many the oldest one is given up: a body that somebody really signed comes at once, so
    those that are held back on purpose do not keep it out.

    Args:
        most: How many are read at once.
        seconds: How long one may take.
    """

    def __init__(self, most: int = _MOST_UNKNOWN, seconds: float = _UNKNOWN_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._reading: OrderedDict[int, asyncio.Timeout] = OrderedDict()

    async def read(self, request: Request) -> bytes | None:
        """Read a body; `None` where it did not come in time, or too many others came."""
        while len(self._reading) >= self._most:
            _, oldest = self._reading.popitem(last=False)
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(self._seconds) as timer:
                self._reading[id(timer)] = timer
                try:
                    return await request.body()
                finally:
                    self._reading.pop(id(timer), None)
        except TimeoutError:
            return None


class _TooLargeError(Exception):
    """More bytes came than are allowed."""
