"""What the host may say about a request: its segment and its session."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import final

from calidrift_agent.errors import ConfigurationError


@final
@dataclass(frozen=True, slots=True)
class RequestContext:
    """Segment and session of the requests made in a context; None where nothing was said."""

    segment: str | None = None
    session: str | None = None


_NOTHING = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("calidrift_request", default=_NOTHING)


@contextmanager
def request_context(*, segment: str | None = None, session: str | None = None) -> Iterator[None]:
    """Say what the requests inside a `with` block belong to.

    Follows threads and asyncio tasks as context variables do. An inner context keeps what the
    outer one said about anything that it does not say itself.

    Args:
        segment: A group of requests that is reported on its own ("night", "tenant-a"). Keep
            these few: only the first 64 names of a process are kept apart.
        session: Requests of one session are one unit of inference together. Never exported.

    Raises:
        ConfigurationError: A value is not text.

    Example:
        >>> with request_context(segment="night"), request_context(session="s1"):
        ...     current_context()
        RequestContext(segment='night', session='s1')
    """
    for name, value in (("segment", segment), ("session", session)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(
                f"{name} is {value!r} of type {type(value).__name__}, but must be text; "
                f"pass str({name})"
            )
    outer = _current.get()
    token = _current.set(
        RequestContext(
            outer.segment if segment is None else segment,
            outer.session if session is None else session,
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


def current_context() -> RequestContext:
    """Return what is known about the request of this thread or task."""
    return _current.get()
